"""The page, the chart and the table of a family."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from edgewise.errors import InvalidInput
from edgewise.records import Study
from edgewise.report import family_html, family_table, html
from edgewise.report.family_chart import allowed, chart, members, trials
from edgewise.report.markup import VOID
from edgewise.report.words import family as headline
from edgewise.types import Budget

Family = tuple[Study, ...]


class Words(HTMLParser):
    """The page's text, its links and ids, and whether every element closes in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.said = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        assert not {"src", "srcset", "action", "onclick", "onerror", "onload", "style"} & set(found)
        assert name not in ("img", "iframe", "object", "embed", "base", "form", "link")
        self.links += [found["href"] or ""] if "href" in found else []
        self.ids += [found["id"] or ""] if "id" in found else []
        self.scripts += name == "script"
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.said += data + " "


def read(text: str) -> Words:
    page = Words(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert "NaN" not in page.said and "None" not in page.said
    page.said = " ".join(page.said.split())
    return page


def shown(studies: Family) -> str:
    console = Console(width=80, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(family_table(studies))
    return capture.get()


def test_every_member_stands_on_the_page_with_its_intervals(family: Family) -> None:
    page = read(family_html(family))
    for said in (
        "2 of 3 members meet what was asked for on this device; 8× misses it",
        "4.06× at −0.21, 6.05× at −0.52, 7.42× at −1.23",
        "dense 1.00× by definition 93.21 % 92.70 to 93.69 % n = 10,000 0 by definition 1.09 MB",
        "4× its report 4.06× 4.04 to 4.08× 60 pairs 93.0 % 92.5 to 93.5 % n = 10,000 −0.21 −0.34 to −0.08 n = 10,000 pairs 172 kB",
        "✗ missed Speed: 7.3 % short Loss of accuracy: 0.23 points too many",
        "the smallest change of accuracy that can be shown is 0.28 points",
        "true fp32",
        "--speedup 4,6,8",
        "prune(widths={'stream1': 8,",
        "5 plans; prediction and measurement were at most 10.8 % apart",
    ):
        assert said in page.said, said


def test_a_member_leads_to_its_own_report_beside_the_page(family: Family) -> None:
    page = read(family_html(family))
    assert [link for link in page.links if not link.startswith("#")] == ["4x/report.html", "6x/report.html", "8x/report.html"]
    odd = read(family_html([replace(family[0], budget=Budget(speedup=1.125))]))
    assert "1.125x/report.html" in odd.links


def test_points_lead_to_the_rows_of_the_members(family: Family) -> None:
    drawn = chart(family, 760)
    assert re.findall(r'href="#([\w-]+)"', drawn) == ["member-1", "member-2", "member-3"]
    assert drawn.count("hollow point") == 1  # the one that missed its budget
    assert "speedup 7.42× (7.38 to 7.46×, 60 pairs)" in drawn


def test_the_chart_holds_every_member_and_counts_a_shared_trial_once(family: Family) -> None:
    assert [member.change.value for member in members(family)] == [-0.0021, -0.0052, -0.0123]
    keys = [trial.key for trial, _, _ in trials(family)]
    assert len(keys) == len(set(keys)) > 8
    assert family[0].reference not in keys
    assert {trial.key for study in family for trial in study.trials if trial.speedup and trial.drop} == set(keys)
    assert allowed(family) == 0.01
    relative = tuple(replace(study, budget=replace(study.budget, relative_drop=True)) for study in family)
    assert allowed(relative) == pytest.approx(0.01 * family[0].verdict.reference_quality.value.value)


def test_a_trial_that_collapsed_does_not_flatten_the_members(family: Family) -> None:
    study = family[0]
    bad = replace(
        study.trials[7], key="bad", drop=replace(study.trials[7].drop, difference=replace(study.trials[7].drop.difference, value=-0.8))
    )
    drawn = chart((replace(study, trials=(*study.trials, bad)), *family[1:]), 760)
    assert "▾ 1 trial below" in drawn
    assert "▾" not in chart(family, 760)


def test_a_limit_that_is_nowhere_near_does_not_flatten_the_members(family: Family) -> None:
    def height(max_drop: float) -> float:
        studies = tuple(replace(study, budget=replace(study.budget, max_drop=max_drop)) for study in family)
        drawn = chart(studies, 760)
        assert ("further down" in drawn) == (max_drop == 0.5)
        marks = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)" r="12"', drawn)]
        return max(marks) - min(marks)

    assert height(0.5) > height(0.03) > 40


def test_the_terminal_says_what_the_page_says(family: Family) -> None:
    text = shown(family)
    assert max(map(len, text.splitlines())) <= 80
    assert headline(family).sentence in " ".join(text.replace("│", " ").split())
    for said in ("✗ Some budgets missed", "4.04…4.08×", "−0.34…−0.08", "n=10,000", "✓ met", "✗ missed", "172 kB", "12.5 MB", "dense"):
        assert said in text, said


def test_all_met_none_met_and_not_there_yet(family: Family) -> None:
    assert headline(family[:2]).state == "met"
    assert headline(family[:2]).sentence.startswith("All 2 members meet")
    assert headline(family[:1]).sentence.startswith("The one member meets")
    assert headline(family[2:]).badge == "Budget missed"
    waiting = (family[0], replace(family[1], verdict=None))
    assert headline(waiting).state == "none"
    assert "no verdict yet" in read(family_html(waiting)).said
    assert "no verdict yet" in shown(waiting)
    alone = replace(family[1], verdict=None)
    assert "No member has come to a verdict yet." in family_html([alone])


def test_a_timing_that_stayed_wide_is_said_of_its_member(family: Family) -> None:
    study = family[0]
    wide = replace(study, verdict=replace(study.verdict, speedup=replace(study.verdict.speedup, conclusive=False)))
    assert "timing inconclusive" in read(family_html((wide,))).said
    assert "timing" in shown((wide,))
    assert "inconclusive" not in read(family_html((study,))).said


def test_nothing_in_the_records_becomes_markup(family: Family, hostile_study: Study) -> None:
    text = family_html((hostile_study, hostile_study))
    page = read(text)
    assert page.scripts == read(family_html(family)).scripts == 1
    assert "<script>alert(1)</script>" in page.said
    assert "\x1b" not in text and "\u202e" not in text
    assert "\x1b" not in shown((hostile_study,))


def test_any_study_makes_a_sound_page_of_one(extreme: Study) -> None:
    read(family_html([extreme]))
    assert max(map(len, shown((extreme,)).splitlines())) <= 80


def test_the_policy_and_the_script_are_those_of_the_single_page(family: Family) -> None:
    def policy(text: str) -> str:
        return re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]

    assert policy(family_html(family)) == policy(html(family[0]))
    assert family_html(family) == family_html(family)


def test_a_family_of_nothing() -> None:
    for call in (family_html, family_table):
        with pytest.raises(InvalidInput, match="studies is empty"):
            call([])
