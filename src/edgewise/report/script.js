"use strict";
(() => {
  document.documentElement.classList.add("js");
  const tip = document.getElementById("tip");

  // Tooltips: the same lines on hover and on focus; Escape hides them. Native titles would show twice.
  const show = (point) => {
    tip.replaceChildren(...point.dataset.tip.split("\n").map((words) => {
      const line = document.createElement("div");
      line.textContent = words;
      return line;
    }));
    tip.hidden = false;
    const at = point.querySelector(".mark").getBoundingClientRect();
    const left = Math.min(Math.max(8, at.x + at.width / 2 - tip.offsetWidth / 2), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = at.y - tip.offsetHeight - 12;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 50 ? above : at.bottom + 12) + scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };

  // A chart is one stop of the Tab key; arrows go from point to point.
  for (const chart of document.querySelectorAll(".chart")) {
    const points = [...chart.querySelectorAll("a.point")];
    points.forEach((point, index) => {
      point.querySelector("title")?.remove();
      point.setAttribute("tabindex", index === 0 ? "0" : "-1");
      point.addEventListener("mouseenter", () => show(point));
      point.addEventListener("mouseleave", hide);
      point.addEventListener("focus", () => {
        points.forEach((other) => other.setAttribute("tabindex", other === point ? "0" : "-1"));
        if (point.matches(":focus-visible")) show(point);
      });
      point.addEventListener("blur", hide);
      point.addEventListener("keydown", (event) => {
        const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: points.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        points[(to + points.length) % points.length].focus();
      });
    });
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // Sorting: rows without a figure stay last, either way round.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const text = row.cells[column].dataset.sort;
          return text === undefined ? (down ? -Infinity : Infinity) : Number(text);
        };
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const one = value(a), two = value(b);
          return one === two ? 0 : (down ? two - one : one - two);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // Paper can't be clicked: what is folded away is printed.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
})();
