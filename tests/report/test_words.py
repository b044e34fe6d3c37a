from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgewise.records import Interval, Outcome, Study
from edgewise.report import figures, words
from edgewise.types import Budget


def outcome_row(study: Study, outcome: Outcome) -> words.Limit:
    return words.limit(study, study.verdict, outcome)


def test_met_in_one_sentence(met: Study) -> None:
    said = words.headline(met)
    assert said.state == "met"
    assert said.sentence == (
        "Everything that was asked for is met on this device: the model answers 2.61 times as fast, its file is 3.7 times smaller, "
        "and it loses 0.12 points of accuracy."
    )


def test_missed_says_which_limit_and_by_how_much(missed: Study) -> None:
    said = words.headline(missed)
    assert said.badge == "Budget missed"
    assert "speed is 2.61× where at least 3× was asked (13 % short)" in said.sentence
    assert "At the nearest point found" in said.sentence


def test_no_verdict(unfinished: Study) -> None:
    assert words.headline(unfinished).badge == "No verdict yet"
    assert words.limits(unfinished) == ()
    assert words.asked(unfinished) == "speed at least 2.5×, file size at most 1 MB, loss of accuracy at most 0.3 points"


def test_a_difference_that_n_cannot_show_is_not_called_a_loss(met: Study) -> None:
    drop = replace(met.verdict.drop, difference=Interval(-0.0012, -0.004, 0.0016, 400))
    study = replace(met, verdict=replace(met.verdict, drop=drop))
    assert "no change in accuracy shows on 400 test samples" in words.headline(study).sentence


def test_a_speedup_that_spans_one_is_not_called_faster(met: Study) -> None:
    speedup = replace(met.verdict.speedup, ratio=Interval(1.01, 0.99, 1.03, 60))
    assert "takes as long as before" in words.headline(replace(met, verdict=replace(met.verdict, speedup=speedup))).sentence


def test_speed_counts_as_met_from_two_percent_below_and_says_so(met: Study) -> None:
    row = outcome_row(met, Outcome("speedup", 2.65, Interval(2.61, 2.60, 2.62, 60), True, "x"))
    assert row.margin == "1.5 % short"
    assert row.note == "a speed counts as met from −2 % upwards"


def test_an_interval_across_the_limit_is_said(met: Study) -> None:
    over = outcome_row(met, Outcome("latency_ms", 2.0, Interval(1.9, 1.7, 2.1, 300), True, "ms"))
    assert over.note == "met by the estimate; its interval reaches past the limit"
    under = outcome_row(met, Outcome("latency_ms", 2.0, Interval(2.1, 1.9, 2.3, 300), False, "ms"))
    assert under.note == "missed by the estimate; its interval reaches into the limit"
    assert under.margin == "5.0 % too much"
    clear = outcome_row(met, Outcome("latency_ms", 2.0, Interval(1.5, 1.4, 1.6, 300), True, "ms"))
    assert (clear.note, clear.asked, clear.got.interval) == ("", "at most 2 ms", "1.40 to 1.60 ms")


def test_every_kind_of_limit(met: Study) -> None:
    memory = outcome_row(met, Outcome("memory_bytes", 16e6, Interval(13.7e6, 13.7e6, 13.7e6, 1), True, "bytes"))
    assert (memory.asked, memory.got.value, memory.got.n) == ("at most 16 MB", "13.7 MB", "measured once")
    modelled = replace(met.verdict, measurement=replace(met.verdict.measurement, energy_mj=3.0, energy_source="modelled: 5 W per core"))
    energy = words.limit(replace(met, verdict=modelled), modelled, Outcome("energy_mj", 4.0, Interval(3.0, 2.8, 3.2, 20), True, "mJ"))
    assert (energy.asked, energy.got.value) == ("at most 4 mJ", "3.00 mJ")
    assert "modelled: 5 W per core" in energy.got.interval
    other = outcome_row(met, Outcome("warmth", 4.0, Interval(3.0, 2.8, 3.2, 20), True, "K"))
    assert (other.name, other.asked) == ("warmth", "at most 4 K")


def test_relative_drop_names_both(met: Study) -> None:
    study = replace(met, budget=Budget(speedup=2.5, max_drop=0.01, relative_drop=True))
    row = outcome_row(study, Outcome("max_drop", 0.00932, Interval(0.0012, 0, 0.003, 10_000), True, "points"))
    assert row.asked == "at most 0.932 points (1 % of 93.2 %)"


def test_the_reference_set_and_what_one_means(met: Study) -> None:
    said = words.speed_means(met)
    assert "true fp32" in said
    assert "onnxruntime fp32 ×1, openvino fp32 ×1" in said


def test_what_n_can_show(met: Study) -> None:
    assert "10,000 test samples" in words.can_show(met)
    assert "0.28 points" in words.can_show(met)
    shaky = replace(met, verdict=replace(met.verdict, speedup=replace(met.verdict.speedup, conclusive=False)))
    assert "inconclusive" in words.can_show(shaky)


def test_a_pass_that_changes_nothing_says_so(met: Study) -> None:
    sparse = replace(met.trials[8], recipe="prune(of='weights', ratio=0.9)", size_bytes=met.trials[0].size_bytes)
    sparse = replace(sparse, speedup=replace(sparse.speedup, ratio=Interval(1.01, 0.99, 1.03, 60)))
    assert figures.remark(met, sparse) == "changes nothing measurable in time or size"
    assert figures.remark(met, met.trials[8]) == ""
    assert figures.remark(met, replace(met.trials[8], touched=())) == "touched no part of the model"
    assert figures.remark(met, met.trials[5]) == "the timing stayed inconclusive"


def test_a_missing_meter_is_said_aloud(met: Study) -> None:
    shown = figures.energy(met.verdict.measurement, met.device.energy)
    assert str(shown) == "not known (none: no RAPL here (a virtual machine), and no meter is attached)"


def test_sentences_exist_at_every_extreme(extreme: Study, make_study: Callable[..., Study]) -> None:
    assert words.headline(extreme).sentence
    assert words.speed_means(extreme)
    assert all(row.asked and row.got.value for row in words.limits(extreme))
