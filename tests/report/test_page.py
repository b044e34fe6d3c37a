from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edgewise.records import Interval, Study
from edgewise.report import html
from edgewise.report.markup import VOID


class Page(HTMLParser):
    """Reads a page back: open elements must close in order; ids, links, text and scripts are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: Counter[str] = Counter()
        self.scripts: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen[name] += 1
        for key, value in attributes:
            self.attributes[key] += 1
            if key == "id":
                self.ids.append(value or "")
            if key == "href":
                self.links.append(value or "")
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words += data + " "


def check(text: str, outside: tuple[str, ...] = ()) -> Page:
    """What holds of every report. `outside` are the links that lead to other files."""
    page = Page(text)
    assert page.seen["h1"] == 1
    assert len(page.ids) == len(set(page.ids))
    assert [link for link in page.links if not link.startswith("#")] == list(outside)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert not {"src", "srcset", "action", "onclick", "onerror", "onload", "style"} & set(page.attributes)
    assert not {"img", "iframe", "object", "embed", "base", "form", "link"} & set(page.seen)
    assert "NaN" not in page.words
    assert "None" not in page.words
    return page


def test_a_whole_page(met: Study) -> None:
    page = check(html(met))
    for said in (
        "Budget met",
        "2.61×",
        "2.59 to 2.63×",
        "60 pairs",
        "93.09 %",
        "n = 10,000",
        "was 93.21 %",
        "quantize(bits=8, estimator='mse')",
        "this CPU has no bf16",
        "in_features=64 is below min_features=128",
        "sneaker",
        "43 duplicates across splits",
        "edgewise fit fashion-resnet20",
        "--max-drop 0.3%",
        "no RAPL here",
        "the frequency governor isn't readable here",
        "onnxruntime 1.31.1",
        "one start",
        "hypervisor",
    ):
        assert said in page.words, said
    for section in ("verdict", "tradeoffs", "trials", "classes", "time", "roofline", "skipped", "data", "environment", "reproduce"):
        assert section in page.ids
    assert page.seen["tr"] > 12 + 10
    assert page.seen["details"] >= 8


def test_missed_and_unfinished(missed: Study, unfinished: Study) -> None:
    assert "Nearest point found" in check(html(missed)).words
    page = check(html(unfinished))
    assert "No verdict yet" in page.words
    assert "classes" not in page.ids


def test_every_extreme_is_a_sound_page(extreme: Study) -> None:
    check(html(extreme))


def test_nothing_in_the_records_becomes_markup(make_study: Callable[..., Study], request: pytest.FixtureRequest) -> None:
    plain = check(html(make_study()))
    hostile = check(html(request.getfixturevalue("hostile_study")))
    assert hostile.seen["script"] == plain.seen["script"] == 1
    assert hostile.scripts == plain.scripts
    assert "<script>alert(1)</script>" in hostile.words  # shown as the text that it is
    assert "\x1b" not in html(request.getfixturevalue("hostile_study"))
    assert "\u202e" not in html(request.getfixturevalue("hostile_study"))


def test_only_its_own_script_may_run_and_nothing_may_be_fetched(met: Study) -> None:
    text = html(met)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    script = Page(text).scripts[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in policy[1]
    assert policy[1].startswith("default-src &#39;none&#39;")
    outside = [url for url in re.findall(r"(?:https?:)?//[\w./]+", text.replace(script, "")) if url != "http://www.w3.org/2000/svg"]
    assert outside == []
    assert "@import" not in text
    assert "url(" not in text


def test_points_link_to_their_rows(met: Study) -> None:
    text = html(met)
    assert re.search(
        r'<a class="s1 point" href="#trial-9" aria-label="quantize\(bits=8, estimator=&#39;mse&#39;\) \(chosen\); openvino', text
    )
    assert 'id="trial-9"' in text


def test_the_table_can_be_sorted(met: Study) -> None:
    text = html(met)
    assert text.count('<button type="button">') == 8
    row = text[text.index('<tr id="trial-9"') :]
    assert 'data-sort="2.61"' in row[: row.index("</tr>")]


def test_what_is_missing_is_said(met: Study) -> None:
    without = replace(met, device=replace(met.device, peaks=()))
    assert "The device's peaks weren't measured" in check(html(without)).words
    blind = replace(met, verdict=replace(met.verdict, measurement=replace(met.verdict.measurement, roofline_share=None)))
    assert "The share of the roof wasn't computed for the chosen." in check(html(blind)).words


def test_few_calls_are_not_sold_as_a_tail(met: Study) -> None:
    few = replace(
        met.verdict.measurement,
        latency=replace(met.verdict.measurement.latency, samples_ms=met.verdict.measurement.latency.samples_ms[:100]),
    )
    page = check(html(replace(met, verdict=replace(met.verdict, measurement=few))))
    assert "p99 stands on the slowest 1: read it as a hint" in page.words


def test_a_budget_limit_that_is_not_drawn_is_named(met: Study) -> None:
    bound = replace(met, budget=replace(met.budget, memory_bytes=16_000_000, latency_ms=3.0, percentile="p95"))
    assert "The budget's limit of memory and p95 latency isn't drawn." in check(html(bound)).words


def test_the_same_study_gives_the_same_page(met: Study) -> None:
    assert html(met) == html(met)


def test_styles_cover_where_it_is_read(met: Study) -> None:
    text = html(met)
    for rule in (
        "prefers-color-scheme: dark",
        "@media print",
        "prefers-reduced-motion",
        ":focus-visible",
        "max-width: 44rem",
        "tabular-nums",
        "forced-colors",
    ):
        assert rule in text, rule


def test_the_room_needs_no_engine_and_no_torch() -> None:
    code = "import sys, edgewise.report; print([m for m in ('torch', 'onnx', 'onnxruntime', 'scipy', 'openvino') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_means_over_the_classes_come_with_their_intervals(met: Study) -> None:
    words = " ".join(check(html(met)).words.split())
    assert "Mean over all classes, on the test split Reference Chosen Precision 93.11 % 92.60 to 93.59 % n = 10,000" in words
    older = {f"macro_{name}_interval": None for name in ("precision", "recall", "f1")}
    before = replace(met, verdict=replace(met.verdict, reference_quality=replace(met.verdict.reference_quality, **older)))
    assert "Reference Chosen Precision 93.1 % 93.0 % 92.5 to 93.5 %" in " ".join(check(html(before)).words.split())


def test_a_classs_f1_comes_with_its_interval(met: Study) -> None:
    sure = tuple(replace(row, f1_interval=Interval(row.f1, 0.1234, 0.9876, row.n)) for row in met.verdict.quality.per_class)
    page = check(html(replace(met, verdict=replace(met.verdict, quality=replace(met.verdict.quality, per_class=sure)))))
    assert "12.3 to 98.8 %" in page.words
