"""What disturbed the timing is said where its conditions are shown: on the page and in the terminal."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from edgewise.records import Study
from edgewise.report import html, table
from edgewise.report.words import disturbed


def with_pairs(study: Study, **changes: object) -> Study:
    timed = study.verdict.speedup
    sides = (replace(found, watched=120, **changes) for found in (timed.reference_conditions, timed.candidate_conditions))
    speedup = replace(timed, **dict(zip(("reference_conditions", "candidate_conditions"), sides, strict=True)))
    return replace(study, verdict=replace(study.verdict, speedup=speedup))


def terminal(study: Study) -> str:
    console = Console(width=80, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table(study))
    return " ".join(capture.get().split())


def test_in_words(met: Study) -> None:
    found = met.verdict.speedup.candidate_conditions
    assert disturbed(found) == ""
    assert disturbed(replace(found, watched=120)) == "none of 120 pairs"
    steal = replace(found, watched=120, again=3, disturbances=("steal 14 %", "throttled"))
    assert disturbed(steal) == "of 120 pairs, 3 were measured again: steal 14 %; throttled at worst"
    assert disturbed(replace(steal, again=1)) == "of 120 pairs, 1 was measured again: steal 14 %; throttled"
    both = "of 120 pairs, 40 were measured again and 66 were disturbed and counted all the same: steal 14 %; throttled at worst"
    assert disturbed(replace(steal, again=40, disturbed=66)) == both


def test_where_conditions_are_shown(met: Study) -> None:
    said = "of 120 pairs, 3 were measured again: steal 14 % at worst"
    study = with_pairs(met, again=3, disturbances=("steal 14 %",))
    assert f"Timing: {said}." in terminal(study)
    assert html(study).count(said) == 2  # both sides of the comparison
    assert "none of 120 pairs" in html(with_pairs(met))
    assert "measured again" not in terminal(with_pairs(met)) + terminal(met)
    assert "not looked at" in html(met)


def test_what_a_device_says_is_text(met: Study) -> None:
    evil = "<script>alert(1)</script>[bold]\x1b[31m"
    study = with_pairs(met, again=3, disturbances=(evil,))
    assert evil not in html(study)
    assert "\x1b" not in terminal(study)


def test_of_a_latency_table(pruned: Study) -> None:
    found = pruned.tables[0]
    watched = replace(found, conditions=replace(found.conditions, watched=900, again=12, disturbances=("steal 21 %",)))
    said = "of 900 pairs, 12 were measured again: steal 21 % at worst"
    assert said in html(replace(pruned, tables=(watched,)))
    assert said not in html(pruned)
