"use strict";
(() => {
  const EVERY_MS = 1000, PATIENCE_MS = 10000;
  const WORDS = { ready: "ready", absent: "on disk", loading: "loading", unloading: "unloading", failed: "failed" };
  const MARKS = { ready: "●", absent: "○", loading: "◐", unloading: "◐", failed: "✕" };
  const $ = (id) => document.getElementById(id);
  let key = ""; // in this page's memory alone
  let paused = false, wants = false, drawn = null;
  const rows = new Map(), tiles = new Map(), plots = new Map(), busy = new Set();

  const SVG = "http://www.w3.org/2000/svg";
  const made = (name, attributes = {}, ...inside) => {
    const element = attributes.svg ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [attribute, value] of Object.entries(attributes)) if (attribute !== "svg") element.setAttribute(attribute, value);
    element.append(...inside);
    return element;
  };
  // Text is only touched where it changed: a screen reader isn't told of what stayed.
  const write = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const named = (element, name, on) => { if (element.classList.contains(name) !== on) element.classList.toggle(name, on); };
  const attribute = (element, name, value) => { if (element.getAttribute(name) !== value) element.setAttribute(name, value); };

  const NONE = "–";
  const digits = (value) => value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  const count = (value) => value.toLocaleString("en-US");
  const rate = (value) => value === 0 ? "0" : value >= 1000 ? count(Math.round(value)) : value >= 10 ? value.toFixed(0) : value.toFixed(1);
  const time = (ms) => ms === null ? NONE : ms >= 10000 ? `${digits(ms / 1000)} s` : `${digits(ms)} ms`;
  const size = (bytes) => bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e3).toFixed(0)} kB`;
  const share = (part, whole) => whole ? `${(100 * part / whole).toFixed(part && part < whole / 10 ? 1 : 0)} %` : NONE;

  // Charts: a step of the grid is a second; the newest one is on the right.
  const bars = (values, top, height) => values.map((value, at) => {
    const tall = top ? value / top * height : 0;
    return tall ? `M${at * 10 + 1} ${height}v${-Math.max(tall, 1)}h8V${height}z` : "";
  }).join("");
  const line = (values, top, height) => {
    let path = "", pen = false;
    values.forEach((value, at) => {
      if (value === null) { pen = false; return; }
      const y = (height - value / top * (height - 2) - 1).toFixed(1);
      path += pen ? `L${at * 10 + 5} ${y}` : `M${at * 10 + 5} ${y}h.01`;
      pen = true;
    });
    return path;
  };
  const highest = (values) => values.reduce((most, value) => Math.max(most, value ?? 0), 0);
  const rounded = (value) => {
    if (!value) return 1;
    const unit = 10 ** Math.floor(Math.log10(value));
    return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((step) => step >= value * .999);
  };

  const plot = (name, title, kind) => {
    const path = made("path", { svg: true, class: kind });
    const picture = made("svg", { svg: true, role: "img", viewBox: "0 0 600 100", preserveAspectRatio: "none" }, path);
    const top = made("span");
    const whole = made("figure", { class: "plot" }, made("figcaption", {}, made("b", {}, title), top), picture,
      made("p", { class: "ends", "aria-hidden": "true" }, made("span", {}, "a minute ago"), made("span", {}, "now")));
    $("charts").append(whole);
    plots.set(name, { path, picture, top });
  };
  plot("rate", "Requests a second", "bars");
  plot("p99", "p99 of answers, each second", "line");

  const tile = (name, title) => {
    const value = made("b", {}, NONE), under = made("small");
    $("tiles").append(made("div", {}, made("dt", {}, title), made("dd", {}, value, under)));
    tiles.set(name, { value, under });
  };
  for (const [name, title] of [["rate", "Requests a second"], ["p50", "Latency, p50"], ["p99", "Latency, p99"], ["queue", "In queue"],
    ["misses", "Refused or late"], ["cache", "From cache"], ["ready", "Models ready"], ["memory", "Memory of models"]]) tile(name, title);
  const gauge = made("meter", { min: "0", max: "1", low: ".8", high: ".95", optimum: "0", hidden: "", "aria-label": "Memory of models, of its cap" });
  tiles.get("memory").under.before(gauge);

  const draw = (told) => {
    const recent = told.recent, put = (name, value, under = "", bad = false) => {
      write(tiles.get(name).value, value);
      write(tiles.get(name).under, under);
      named(tiles.get(name).value, "bad", bad);
    };
    write($("about"), `${told.server.name} ${told.server.version}`);
    put("rate", rate(recent.rate), `${count(recent.requests)} in ${Math.round(recent.seconds)} s`);
    put("p50", time(recent.p50_ms));
    put("p99", time(recent.p99_ms), recent.p95_ms === null ? "" : `p95 ${time(recent.p95_ms)}`);
    put("queue", digits(recent.waiting), "on average");
    const missed = recent.refused + recent.late;
    put("misses", count(missed), missed ? `${count(recent.refused)} refused, ${count(recent.late)} late` : "none", missed > 0);
    put("cache", share(recent.cached, recent.success), recent.cached ? `${count(recent.cached)} of ${count(recent.success)}` : "");
    const ready = told.models.filter((model) => model.state === "ready").length;
    const failed = told.models.filter((model) => model.versions.some((version) => version.state === "failed")).length;
    put("ready", count(ready), `of ${count(told.models.length)}${failed ? `, ${count(failed)} with a version that failed` : ""}`);
    const memory = told.memory;
    put("memory", memory ? size(memory.used_bytes) : NONE, memory?.cap_bytes ? `of ${size(memory.cap_bytes)}` : memory ? "no cap" : "not measured");
    gauge.hidden = !memory?.cap_bytes;
    if (memory?.cap_bytes) gauge.value = memory.used_bytes / memory.cap_bytes;

    const most = rounded(highest(told.rates)), slowest = rounded(highest(told.p99s_ms));
    attribute(plots.get("rate").path, "d", bars(told.rates, most, 100));
    write(plots.get("rate").top, `up to ${count(most)}`);
    attribute(plots.get("rate").picture, "aria-label", `Requests a second over the last minute: ${rate(recent.rate)} on average, ${count(highest(told.rates))} at most`);
    attribute(plots.get("p99").path, "d", line(told.p99s_ms, slowest, 100));
    write(plots.get("p99").top, recent.p99_ms === null ? "nothing was answered" : `up to ${time(slowest)}`);
    attribute(plots.get("p99").picture, "aria-label", `p99 of latency over the last minute: ${time(recent.p99_ms)} in all`);

    for (const name of [...rows.keys()]) if (!told.models.some((model) => model.name === name)) { rows.get(name).row.remove(); rows.delete(name); }
    let before = null;
    for (const model of told.models) {
      if (!rows.has(model.name)) rows.set(model.name, row(model.name));
      const { row: element } = rows.get(model.name), next = before ? before.nextSibling : $("rows").firstChild;
      if (next !== element) $("rows").insertBefore(element, next);
      fill(rows.get(model.name), model);
      before = element;
    }
    $("none").hidden = told.models.length > 0;
    drawn = told;
  };

  const row = (name) => {
    const versions = made("ul", { class: "versions" });
    const button = made("button", { type: "button" });
    button.addEventListener("click", () => act(name, button.dataset.verb));
    const cells = new Map(), element = made("tr", {}, made("th", { scope: "row" }, name, versions), made("td", { class: "act" }, button));
    for (const [id, label, wide] of [["rate", "Requests/s", true], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"], ["queue", "In queue"],
      ["rows", "Rows a call"], ["cache", "Cached"], ["refused", "Refused"], ["late", "Late"], ["fail", "Failed"]]) {
      const value = made("span"), under = made("small");
      const cell = made("td", { class: wide ? "number wide" : "number", "data-label": label }, value, under);
      element.append(cell);
      cells.set(id, { cell, value, under });
    }
    const path = made("path", { svg: true, class: "bars" });
    cells.get("rate").under.replaceWith(made("svg", { svg: true, class: "spark", "aria-hidden": "true", viewBox: "0 0 600 100", preserveAspectRatio: "none" }, path));
    return { row: element, versions, cells, path, button };
  };

  const fill = ({ row, versions, cells, path, button }, model) => {
    const recent = model.recent, put = (id, value, under = "", bad = false) => {
      const { cell, value: text, under: small } = cells.get(id);
      write(text, value);
      if (id !== "rate") write(small, under);
      named(cell, "bad", bad);
      named(cell, "zero", !bad && (value === "0" || value === NONE));
    };
    put("rate", rate(recent.rate));
    attribute(path, "d", bars(model.rates, highest(model.rates), 100));
    named(row, "idle", recent.requests === 0);
    for (const each of ["p50", "p95", "p99"]) put(each, time(recent[`${each}_ms`]));
    put("queue", recent.waiting ? digits(recent.waiting) : "0");
    const sizes = Object.entries(recent.rows), calls = sizes.reduce((sum, [, times]) => sum + times, 0);
    const often = sizes.sort((one, other) => other[1] - one[1]).slice(0, 2).sort((one, other) => one[0] - other[0]);
    put("rows", recent.mean_rows === null ? NONE : digits(recent.mean_rows),
      sizes.length > 1 ? often.map(([many, times]) => `${many}: ${share(times, calls)}`).join(", ") : "");
    put("cache", recent.cached ? share(recent.cached, recent.success) : NONE);
    for (const each of ["refused", "late", "fail"]) put(each, count(recent[each]), "", recent[each] > 0);

    while (versions.children.length > model.versions.length) versions.lastChild.remove();
    model.versions.forEach((version, at) => {
      if (!versions.children[at]) versions.append(made("li", {}, made("i"), made("b"), made("span")));
      const item = versions.children[at], [mark, number, words] = item.children;
      const alone = model.versions.filter((each) => each.recent.requests).length < 2;
      const own = alone || !version.recent.requests ? "" : `, ${rate(version.recent.rate)}/s, p99 ${time(version.recent.p99_ms)}`;
      attribute(item, "class", version.state);
      attribute(mark, "aria-hidden", "true");
      write(mark, `${MARKS[version.state]} `);
      write(number, `version ${version.version}`);
      const why = version.reason ? `: ${version.reason}` : version.state === "absent" ? ", loaded when asked" : "";
      write(words, ` ${WORDS[version.state]}${why}${own}`);
    });
    const verb = model.state === "ready" || model.state === "loading" ? "unload" : "load";
    button.dataset.verb = verb;
    write(button, verb === "load" ? "Load" : "Unload");
    attribute(button, "aria-label", `${verb === "load" ? "Load" : "Unload"} ${model.name}`);
    const wait = busy.has(model.name) || model.state === "loading" || model.state === "unloading";
    attribute(button, "aria-disabled", String(wait)); // and not "disabled": the focus would be lost
  };

  const say = (words, bad = false) => { write($("said"), words); named($("said"), "bad", bad); };
  const headers = () => key ? { Authorization: `Bearer ${key}` } : {};
  const state = (words, kind) => { write($("live"), words); attribute($("live"), "class", `state ${kind}`); };

  const act = async (name, verb) => {
    if (busy.has(name) || rows.get(name).button.getAttribute("aria-disabled") === "true") return;
    busy.add(name);
    attribute(rows.get(name).button, "aria-disabled", "true");
    say(`${verb === "load" ? "Loading" : "Unloading"} ${name} …`);
    try {
      const answer = await fetch(`v2/repository/models/${encodeURIComponent(name)}/${verb}`,
        { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: "{}" });
      if (answer.status === 401 || answer.status === 403) {
        say(`${name} was not ${verb}ed: this needs a key with the scope admin.`, true);
        ask();
      } else if (!answer.ok) {
        const told = await answer.json().catch(() => ({}));
        say(`${name} was not ${verb}ed: ${told.error ?? `the server answered ${answer.status}`}`, true);
      } else say(`${name} was ${verb}ed.`);
    } catch {
      say(`${name}: no answer from the server.`, true);
    } finally {
      busy.delete(name);
      await look(true);
    }
  };

  const ask = () => {
    if ($("ask").open) return;
    $("secret").value = "";
    $("ask").showModal();
  };
  $("ask").addEventListener("close", () => {
    if ($("ask").returnValue === "use") {
      key = $("secret").value.trim();
      say(key ? "The key is used from now on." : "No key is used from now on.");
      wants = false;
      look();
    }
    $("secret").value = "";
    $("ask").returnValue = "";
  });
  $("key").addEventListener("click", ask);
  $("pause").addEventListener("click", () => {
    paused = !paused;
    attribute($("pause"), "aria-pressed", String(paused));
    if (paused) state("paused", "plain"); else look();
  });

  let looking = false;
  const look = async (anyway = false) => {
    if (looking) return;
    looking = true;
    try {
      const answer = await fetch("page/figures", { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      if (answer.status === 401 || answer.status === 403) {
        state("key needed", "bad");
        if (!wants) { wants = true; say("This server shows its figures to those with a key: give one with the button “Key”.", true); }
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const told = await answer.json();
      if (paused && drawn && !anyway) return;
      draw(told);
      if (!paused) state("live", "good");
    } catch {
      if (!paused) state(drawn ? "no answer; trying again" : "no answer", "bad");
    } finally {
      looking = false;
    }
  };
  const turn = async () => {
    if (!paused && !wants && document.visibilityState === "visible") await look();
    setTimeout(turn, EVERY_MS);
  };
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible" && !paused && !wants) look(); });
  write($("where"), location.host);
  turn();
})();
