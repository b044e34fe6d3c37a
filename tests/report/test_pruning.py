"""What a report shows of structured pruning: steps, widths, latency tables, plans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape

import pytest
from rich.console import Console

from edgewise.records import Interval, PartWidth, Study
from edgewise.report import figures, html, latency_table, predictions, roofline, steps, table, times_chart, widths

SECTIONS = ("steps", "widths", "plans", "table")


def words(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def content(section: tuple[str, str, str] | None) -> str:
    assert section is not None
    return section[2]


def shown(study: Study, width: int = 80) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table(study))
    return capture.get()


def test_the_sections_are_there_when_there_is_something_to_show(pruned: Study, met: Study) -> None:
    page, plain = html(pruned), html(met)
    for name in SECTIONS:
        assert f'<section id="{name}"' in page
        assert f'<section id="{name}"' not in plain
    empty = replace(pruned, steps=(), widths=(), plans=(), tables=())
    assert not any(f'<section id="{name}"' in html(empty) for name in SECTIONS)


def test_each_step_is_held_against_the_one_before(pruned: Study) -> None:
    first, prune, distill, quantize = steps.lines(pruned.steps)
    assert (first.took, first.quality_change, first.speedup_change, first.operations_change) == ("", "", "", "")
    assert prune.took == "4.2 s" and distill.took == "1 min 15 s"
    assert prune.quality_change == "−21.3 points" and distill.quality_change == "+21.1 points"
    assert prune.speedup_change == "1.93× the row above"
    assert distill.speedup_change == distill.operations_change == quantize.parameters_change == "as before"
    assert prune.operations == "16.2 M" and prune.operations_change == "−48 %"
    assert str(quantize.speedup) == "4.06× (4.01 to 4.11×, 16 pairs)"


def test_speeds_that_the_race_cannot_tell_apart_are_not_called_a_change(pruned: Study) -> None:
    def change(low: float, high: float) -> str:
        before = replace(pruned.steps[0], speedup=Interval(1.0, 0.98, 1.02, 16))
        after = replace(pruned.steps[1], speedup=Interval((low + high) / 2, low, high, 16))
        return steps.lines((before, after))[1].speedup_change

    assert change(1.01, 1.05) == "as before"
    assert change(1.03, 1.05) == "1.04× the row above"
    assert change(0.90, 0.94) == "0.92× the row above"


def test_a_step_that_no_engine_runs_says_so(pruned: Study) -> None:
    blind = replace(pruned, steps=(pruned.steps[0], replace(pruned.steps[1], speedup=None), *pruned.steps[2:]))
    assert "– can't be run by this engine" in words(content(steps.section(blind)))
    assert "can't be run" in shown(blind)


def test_a_step_is_shortened_and_its_whole_text_is_there(pruned: Study) -> None:
    text = content(steps.section(pruned))
    assert "<summary><code>prune(widths={10 parts})</code></summary>" in text
    assert pruned.steps[1].step in words(text)
    assert "<summary><code>distill" not in text  # short enough as it is


@pytest.mark.parametrize(
    ("recipe", "short"),
    [
        ("", "as it came"),
        ("quantize(bits=8, skip=['conv1', 'fc'])", "quantize(bits=8, skip=['conv1', 'fc'])"),
        ("prune(widths={'a': 1})", "prune(widths={'a': 1})"),
        ("prune(widths={'layer1.0.conv1': 8, 'layer1.1.conv1': 8}, seed=1)", "prune(widths={2 parts}, seed=1)"),
        ("f(skip=['layer1.0.conv1.weight', 'layer1.1.conv1.weight']) > g()", "f(skip=[2 parts]) > g()"),
        ("""p(widths={"layer1.it's.conv1": 8, 'layer1.1.conv1.weight': 8})""", "p(widths={2 parts})"),
    ],
)
def test_arguments_that_name_every_part_are_counted(recipe: str, short: str) -> None:
    assert figures.shortened(recipe) == short


def test_the_whole_recipe_stands_where_it_is_made_again(pruned: Study) -> None:
    page = html(pruned)
    recipe = pruned.trial(pruned.verdict.trial).recipe
    assert recipe in words(page[page.index('<section id="reproduce"') :])


def rows(study: Study, width: int) -> Iterator[tuple[str, list[str]]]:
    drawn = widths.chart(study.widths, width)
    for href, inside in re.findall(r'<a class="s0 row point" href="#([\w-]+)"[^>]*>(.*?)</a>', drawn, re.DOTALL):
        yield href, re.findall(r'<rect [^>]*width="([\d.]+)"[^>]*class="([^"]*)"', inside)


@pytest.mark.parametrize("width", [340, 760])
def test_a_bar_is_as_long_as_the_share_that_is_left(pruned: Study, width: int) -> None:
    found = dict(rows(pruned, width))
    assert list(found) == [f"part-{number}" for number in range(1, len(pruned.widths) + 1)]
    wholes = {}
    for part, bars in zip(pruned.widths, found.values(), strict=True):
        lengths = {name: float(length) for length, name in bars}
        if not part.width:
            assert set(lengths) == {"mark gone"}
            continue
        assert lengths["mark"] / lengths["was"] == pytest.approx(part.width / part.units, abs=0.002)
        wholes[part.units] = lengths["was"]
    assert wholes[64] / wholes[16] == pytest.approx(4, rel=0.01)


def test_widths_in_a_sentence(pruned: Study) -> None:
    assert widths.summary(pruned.widths) == (
        "8 of 12 parts are narrower, 2 are gone, with their branches. Left: 224 of 448 channels (50 %)."
    )
    mixed = (PartWidth("a", "heads", 12, 6), PartWidth("b", "neurons", 3072, 3072), PartWidth("c", "heads", 12, 0))
    assert widths.summary(mixed) == (
        "1 of 3 parts is narrower, 1 is gone, with its branch. Left: 6 of 24 heads (25 %), 3,072 of 3,072 neurons (100 %)."
    )


def test_every_part_is_in_the_table_that_the_bars_lead_to(pruned: Study) -> None:
    text = content(widths.section(pruned))
    assert text.count('<tr id="part-') == len(pruned.widths)
    assert "stream2 channels 32 24 75 % left" in words(text)
    assert "layer1.2.conv1.weight channels 16 0 gone" in words(text)


def test_a_name_keeps_its_end() -> None:
    long = (PartWidth("backbone.features.stage3.block11.depthwise.conv1.weight", "channels", 8, 4),)
    assert re.search(r">…[\w.]*depthwise\.conv1<", widths.chart(long, 340))


def test_a_curve_for_each_part_that_was_measured(pruned: Study) -> None:
    found = latency_table.groups(pruned.tables[0], "entry-1")
    assert [len(group.alike) for group in found] == [0, 0, 0, 2, 2, 2]
    assert {group.curve.part for group in found} >= {"stream3", "layer1.0.conv1.weight"}
    least = [min(entry.ratio.value for entry, _ in group.curve.points) for group in found]
    assert least == sorted(least)  # what saves the most stands first
    for group in found:
        for entry, row in group.curve.points:
            assert pruned.tables[0].entries[int(row.rpartition("-")[2]) - 1] == entry


def test_the_facts_of_a_table(pruned: Study) -> None:
    said = words(content(latency_table.section(pruned)))
    for fact in (
        "openvino fp32 ×1 (openvino 2026.4.1), image 1×1×28×28",
        "Dense model 1.61 ms a call",
        "Against itself 1.00× (0.997 to 1.01×, 10 pairs)",
        "33 widths of single parts, 36 more of parts that are alike",
        "4 configurations, 1 plan measured later",
        "3.1 % median, 8.7 % at worst, on 4 configurations",
        "Took 1 min 34 s",
        "layer3.0.conv1.weight at 1 could not be timed: the process ended with signal 9",
        "stream1 8 of 16 92.00 % 91.72 to 92.28 % 15 pairs alone",
        "layer1.1.conv1.weight 8 of 16 96.50 %",
        "as layer1.0.conv1.weight",
        "Add 7.0 %",
    ):
        assert fact in said, fact


def test_a_table_that_was_only_begun(pruned: Study) -> None:
    begun = replace(pruned.tables[0], entries=(), joint=(), model=None, scatter=None, conditions=None)
    said = words(content(latency_table.section(replace(pruned, tables=(begun,)))))
    assert "No width was timed yet." in said
    assert "nothing was fitted to it yet" in said


def test_points_of_the_curves_lead_to_their_entries(pruned: Study) -> None:
    twice = replace(pruned, tables=(pruned.tables[0], replace(pruned.tables[0], form="")))
    text = content(latency_table.section(twice))
    links, ids = set(re.findall(r'href="#([\w-]+)"', text)), re.findall(r'id="([\w-]+)"', text)
    assert len(ids) == len(set(ids)) == 2 * len(pruned.tables[0].entries)
    assert links <= set(ids)
    assert len(links) == 2 * sum(not entry.measured_as for entry in pruned.tables[0].entries)


def test_many_parts_leave_those_that_save_little_to_the_table() -> None:
    many = tuple(times_chart.Curve(f"part{i}", 8, 0, ()) for i in range(20))
    drawn = times_chart.chart(many, 760)
    assert "part11" in drawn and "part12" not in drawn
    assert "the 12 of 20 that save the most" in drawn


def test_prediction_against_measurement(pruned: Study, family: tuple[Study, ...]) -> None:
    first, second = predictions.rows(pruned.plans)
    assert (first.name, second.name) == ("4×, plan 1", "4×, plan 2")
    assert first.apart == pytest.approx(0.91 / 1.02 - 1)
    said = words(content(predictions.section(pruned.plans)))
    for figure in ("4.08× 3.64× 3.61 to 3.67× 60 pairs −10.8 % −9.0 % 10 parts", "quantize() on openvino fp32 ×1", "at most 10.8 % apart"):
        assert figure in said, figure
    names = [row.name for row in predictions.rows([plan for study in family for plan in study.plans])]
    assert names == ["4×, plan 1", "4×, plan 2", "6×", "8×, plan 1", "8×, plan 2"]


def test_one_plan_needs_no_chart(pruned: Study) -> None:
    assert "<svg" in content(predictions.section(pruned.plans))
    alone = content(predictions.section(pruned.plans[1:]))
    assert "<svg" not in alone
    assert "1 plan; " in words(alone)


@pytest.mark.parametrize("width", [340, 760])
def test_plans_lie_left_or_right_of_what_was_asked(pruned: Study, width: int) -> None:
    drawn = predictions.chart(predictions.rows(pruned.plans), width)
    asked = float(re.search(r'<path d="M([\d.]+) [^"]*" class="limit">', drawn)[1])
    first, second = (float(x) for x in re.findall(r'<circle cx="([\d.]+)" [^>]*class="mark">', drawn)[1:])
    assert first < asked < second  # 3.64× and 4.06× where 4× was asked


def test_the_terminal_has_steps_and_widths_in_80_columns(pruned: Study, met: Study) -> None:
    text = shown(pruned)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for said in (
        "What each step did, on the validation split (n = 5,000, 16 pairs)",
        "72.0 % −21.3 1.93× ·1.93× 16.2 M −48 %",
        "distill(epochs=8) 1 min 15 s 93.0 % +21.1 1.93× 16.2 M",
        "4.06× ·2.10×",
        "Widths: 8 of 12 parts are narrower, 2 are gone",
    ):
        assert said in flat, said
    assert "layer1.0.conv1" not in text
    assert "What each step did" not in shown(met) and "Widths" not in shown(met)


def test_the_roofline_counts_what_the_pruned_model_computes(pruned: Study) -> None:
    before, after = roofline.spots(pruned)
    whole = roofline.spots(replace(pruned, steps=()))
    assert before == whole[0]
    assert after.gops / whole[1].gops == pytest.approx(pruned.steps[-1].operations / pruned.model.operations)
    assert "Operations are counted on each model." in words(html(pruned))
