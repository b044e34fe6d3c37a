"""What the page does in a browser: its script under its own content policy, by mouse and by keyboard, narrow, dark and printed."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewise.records import Study
from edgewise.report import family_html, html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium here to open the page in")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-extensions", "--hide-scrollbars", "--window-size=1280,900", "--virtual-time-budget=5000",
    "--dump-dom",
)  # fmt: skip

# Runs `driver` after the page has loaded; what it put into `seen` goes into the document, or to the one that frames it.
DRIVEN = """
const seen = {{ violations: [] }};
document.addEventListener("securitypolicyviolation", (event) => seen.violations.push(event.violatedDirective));
addEventListener("load", async () => {{
  const $ = (selector) => document.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const tip = document.getElementById("tip");
  const soon = () => new Promise((done) => setTimeout(done, 50));
  try {{ {driver} }} catch (error) {{ seen.error = `${{error}} ${{error.stack}}`; }}
  if (parent !== window) return parent.postMessage([name, JSON.stringify(seen)], "*");
  const told = document.createElement("pre");
  told.id = "seen";
  told.textContent = JSON.stringify(seen);
  document.body.append(told);
}});
"""

FRAMES = """<!doctype html><script>
const told = {};
addEventListener("message", ({ data: [name, seen] }) => {
  told[name] = JSON.parse(seen);
  document.getElementById("seen").textContent = JSON.stringify(told);
});
</script><pre id="seen">{}</pre>
"""


def driven(page: str, driver: str) -> str:
    """The page with a second script, which its policy allows by hash, and a third one, which it doesn't."""
    script = DRIVEN.format(driver=driver)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.count("script-src &#39;") == page.count("</body>") == 1
    allowed = page.replace("script-src &#39;", f"script-src &#39;sha256-{digest}&#39; &#39;")
    return allowed.replace("</body>", f"<script>{script}</script><script>document.body.id = 'not allowed'</script></body>")


def opened(path: Path, *flags: str) -> Any:
    """What the drivers saw, once the browser has opened `path`."""
    line = [BROWSER, *FLAGS, *flags, f"--user-data-dir={path.parent / 'profile'}", path.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return json.loads(markup.unescape(found[1]))


def framed(folder: Path, pages: Mapping[str, str], driver: str, width: int) -> Any:
    """Name of the page -> what the driver saw in it, each in a frame of `width` pixels."""
    frames = ""
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(driven(page, driver), encoding="utf-8")
        frames += f'<iframe name="{name}" src="{name}.html" width="{width}" height="800" style="border: 0"></iframe>\n'
    (folder / "frames.html").write_text(FRAMES + frames, encoding="utf-8")
    return opened(folder / "frames.html")


USE = """
seen.script = document.documentElement.classList.contains("js");
seen.body = document.body.id;
seen.nested = all("a.point title").length;

const charts = all(".only-wide .chart").filter((chart) => chart.querySelector("a.point"));
const points = all("a.point", charts[0]);
const chosen = points.find((point) => point.getAttribute("href") === "#trial-9");
const lines = () => tip.hidden ? null : all("div", tip).map((line) => line.textContent);
const at = () => points.indexOf(document.activeElement);
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

seen.before = lines();
chosen.dispatchEvent(new MouseEvent("mouseenter"));
seen.hover = lines();
const box = tip.getBoundingClientRect();
seen.inside = box.left >= 0 && box.right <= document.documentElement.clientWidth && box.width > 50;
chosen.dispatchEvent(new MouseEvent("mouseleave"));
seen.left = lines();

seen.stops = charts.map((chart) => all("a.point", chart).filter((point) => point.tabIndex === 0).length);
seen.count = points.length;
points[0].focus();
seen.focus = [at(), lines()];
seen.moves = ["ArrowRight", "ArrowDown", "ArrowLeft", "End", "ArrowRight", "ArrowUp", "Home"].map((key) => { press(key); return at(); });
seen.moved = lines();
seen.stop = points.map((point) => point.tabIndex === 0);
press("Escape");
seen.escaped = lines();
press("ArrowRight");
document.activeElement.blur();
seen.blurred = lines();

const folded = all("details");
folded[0].open = true;
dispatchEvent(new Event("beforeprint"));
seen.printed = folded.every((part) => part.open);
dispatchEvent(new Event("afterprint"));
seen.after = folded.filter((part) => part.open).map((part) => folded.indexOf(part));

const table = $("table.sortable");
const order = (column) => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.sort ?? null);
const sorted = (column) => {
  const head = table.tHead.rows[0].cells[column];
  head.querySelector("button").click();
  return [head.getAttribute("aria-sort"), order(column).map((value) => value === null ? null : Number(value))];
};
seen.sorts = [1, 1, 5, 0].map(sorted);
seen.marked = all("th[aria-sort]", table).length;

chosen.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
await soon();
seen.target = $(":target")?.id;
"""


@pytest.fixture(scope="module")
def used(met: Study, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(driven(html(met), USE), encoding="utf-8")
    seen = opened(path)
    assert "error" not in seen, seen["error"]
    return seen


def test_its_own_script_runs_and_no_other(used: Any) -> None:
    assert used["script"]
    assert used["body"] != "not allowed"
    assert set(used["violations"]) <= {"script-src", "script-src-elem"}  # the one that isn't allowed, and nothing of the page itself
    assert len(used["violations"]) <= 1


def test_hovering_shows_the_recipe_and_its_figures(used: Any) -> None:
    assert used["before"] is used["left"] is None
    recipe, execution, *figures = used["hover"]
    assert recipe == "quantize(bits=8, estimator='mse') (chosen)"
    assert execution == "openvino fp32 ×1"
    for said in ("accuracy 93.2 %", "speedup 2.61× (2.59 to 2.63×, 60 pairs)", "size 298 kB"):
        assert any(line.startswith(said) for line in figures), figures
    assert used["inside"]
    assert used["nested"] == 0  # the browser's own tooltips would stand beside it


def test_by_keyboard_a_chart_is_one_stop_and_arrows_go_from_point_to_point(used: Any) -> None:
    last = used["count"] - 1
    assert last > 5
    assert set(used["stops"]) == {1}
    first, lines = used["focus"]
    assert first == 0 and lines
    assert used["moves"] == [1, 2, 1, last, 0, last, 0]
    assert used["moved"] == lines
    assert used["stop"] == [True] + [False] * last
    assert used["escaped"] is used["blurred"] is None


def test_a_point_leads_to_its_row(used: Any) -> None:
    assert used["target"] == "trial-9"


def test_the_table_is_sorted_with_what_has_no_figure_last(used: Any) -> None:
    for (direction, values), expected in zip(used["sorts"], ("ascending", "descending", "ascending", "ascending"), strict=True):
        assert direction == expected
        figures = [value for value in values if value is not None]
        assert len(figures) > 5
        assert figures == sorted(figures, reverse=expected == "descending")
        assert values == figures + [None] * (len(values) - len(figures))
    assert used["marked"] == 1


def test_what_is_folded_away_is_printed_and_folded_again(used: Any) -> None:
    assert used["printed"]
    assert used["after"] == [0]


PRUNED = """
const charts = all(".only-wide .chart").filter((chart) => chart.querySelector("a.point"));
seen.stops = charts.map((chart) => all("a.point", chart).filter((point) => point.tabIndex === 0).length);
seen.sections = charts.map((chart) => chart.closest("section").id);
const lines = () => tip.hidden ? null : all("div", tip).map((line) => line.textContent);
seen.tips = {};
seen.targets = {};
for (const name of NAMED) {
  const points = all(`#${name} .only-wide a.point`);
  const point = points[points.length - 1];
  point.dispatchEvent(new MouseEvent("mouseenter"));
  const box = tip.getBoundingClientRect();
  seen.tips[name] = [lines(), box.left >= 0 && box.right <= document.documentElement.clientWidth && box.width > 50];
  point.dispatchEvent(new MouseEvent("mouseleave"));
  point.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
  await soon();
  // A row that is folded away has to be unfolded by the way there.
  seen.targets[name] = [$(":target")?.id, $(":target")?.getClientRects().length > 0];
}
"""


def test_points_of_pruning_tell_their_figures_and_lead_to_rows_that_are_folded_away(pruned: Study, tmp_path: Path) -> None:
    names = ["widths", "plans", "table"]
    (tmp_path / "page.html").write_text(driven(html(pruned), PRUNED.replace("NAMED", json.dumps(names))), encoding="utf-8")
    seen = opened(tmp_path / "page.html")
    assert "error" not in seen, seen["error"]
    assert set(names) <= set(seen["sections"])
    assert set(seen["stops"]) == {1}
    assert seen["tips"]["widths"] == [["layer3.2.conv1.weight", "8 of 64 channels", "12 % left"], True]
    assert seen["tips"]["plans"][0][2] == "measured 4.06× (4.03 to 4.09×, 60 pairs)"
    assert "time of the whole model" in seen["tips"]["table"][0][1]
    assert seen["targets"]["widths"] == [f"part-{len(pruned.widths)}", True]
    assert seen["targets"]["plans"] == ["plan-2", True]
    assert seen["targets"]["table"][0].startswith("entry-1-") and seen["targets"]["table"][1]


def test_points_of_a_family_lead_to_its_members(family: tuple[Study, ...], tmp_path: Path) -> None:
    driver = PRUNED.replace("NAMED", json.dumps(["tradeoffs", "plans"]))
    (tmp_path / "page.html").write_text(driven(family_html(family), driver), encoding="utf-8")
    seen = opened(tmp_path / "page.html")
    assert "error" not in seen, seen["error"]
    assert seen["tips"]["tradeoffs"][0][:2] == ["asked 8×: missed", "speedup 7.42× (7.38 to 7.46×, 60 pairs)"]
    assert seen["tips"]["tradeoffs"][1]
    assert seen["targets"] == {"tradeoffs": ["member-3", True], "plans": ["plan-5", True]}


NARROW = """
seen.width = document.documentElement.clientWidth;
seen.needed = document.documentElement.scrollWidth;
const shown = (selector) => all(selector).some((part) => part.offsetParent !== null);
seen.charts = [shown(".only-narrow"), shown(".only-wide")];
seen.small = all("main p, main td b, main td small, main dd").filter((part) => parseFloat(getComputedStyle(part).fontSize) < 12).length;
seen.regions = all(".scroll").filter((part) => part.scrollWidth > part.clientWidth && part.tabIndex !== 0).length;
"""


def test_on_a_phone_nothing_is_wider_than_the_screen(
    met: Study, unfinished: Study, hostile_study: Study, family: tuple[Study, ...], tmp_path: Path
) -> None:
    pages = {"met": html(met), "unfinished": html(unfinished), "hostile": html(hostile_study), "pruned": html(family[2])}
    pages |= {"family": family_html(family), "evil family": family_html([hostile_study, hostile_study])}
    found = framed(tmp_path, pages, NARROW, 360)
    assert found.keys() == pages.keys()
    for name, seen in found.items():
        assert seen.get("error") is None
        assert seen["width"] == 360
        assert seen["needed"] <= 360, name
        assert seen["charts"] == [True, False]
        assert seen["small"] == seen["regions"] == 0


COLOURS = """
const style = getComputedStyle(document.body);
seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;
seen.colours = [style.backgroundColor, style.color];
"""


def brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_dark_where_the_reader_is(met: Study, tmp_path: Path, dark: bool) -> None:
    (tmp_path / "page.html").write_text(driven(html(met), COLOURS), encoding="utf-8")
    seen = opened(tmp_path / "page.html", f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    if seen["dark"] != dark:
        pytest.skip("this Chromium can't be told which colours its reader prefers")
    page, ink = map(brightness, seen["colours"])
    assert (page < 60 and ink > 180) if dark else (page > 230 and ink < 80)
