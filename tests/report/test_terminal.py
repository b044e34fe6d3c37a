from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from edgewise.records import Comparison, Interval, Study
from edgewise.report import compare_table, device_table, profile_table, table
from edgewise.report.words import headline


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, file=None, record=True, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def flat(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def comparison(study: Study) -> Comparison:
    verdict = study.verdict
    layers = (("conv1", 0.0004), ("layer1.0", 0.0071), ("logits", 0.0123))
    return Comparison(
        ("fp32.onnx", "int8.edgew"),
        10_000,
        0.0123,
        0.41,
        Interval(0.9911, 0.989, 0.993, 10_000),
        layers,
        "layer1.0",
        verdict.reference_quality,
        verdict.quality,
        verdict.drop,
    )


def test_says_what_the_page_says(met: Study) -> None:
    text = shown(table(met))
    assert headline(met).sentence in flat(text)
    for said in (
        "✓ Budget met",
        "2.61×",
        "2.59…2.63×",
        "60 pairs",
        "93.2 %",
        "n=5,000",
        "−0.27…+0.03",
        "298 kB",
        "[chosen]",
        "[reference]",
        "at least 2.5×",
        "4.4 % to spare",
    ):
        assert said in text, said
    assert "#4 failed: this CPU has no bf16" in text
    assert "true fp32" in text


def test_missed_and_unfinished(missed: Study, unfinished: Study) -> None:
    assert "✗ Budget missed" in shown(table(missed))
    text = shown(table(unfinished))
    assert "○ No verdict yet" in text
    assert "Asked: speed at least 2.5×" in flat(text)


@pytest.mark.parametrize("width", [80, 120])
def test_fits(extreme: Study, width: int) -> None:
    text = shown(table(extreme), width)
    assert max(map(len, text.splitlines())) <= width
    assert "None" not in text


def test_a_recipe_cannot_style_or_move_the_terminal(hostile_study: Study) -> None:
    for renderable in (table(hostile_study), device_table(hostile_study.device)):
        text = shown(renderable)
        assert "\x1b" not in text
        assert "\x00" not in text
        assert "[bold]" in text.replace(" ", "").replace("\n", "")


def test_profile(met: Study) -> None:
    found = [trial.measurement for trial in met.trials if trial.measurement]
    text = shown(profile_table(found, name="fashion.onnx"))
    assert max(map(len, text.splitlines())) <= 80
    for said in ("fashion.onnx", "4.16 ms", "4.14…4.17 ms", "300 calls", "31.0 %", "9.30 ms", "1.09 MB"):
        assert said in text, said
    assert "openvino 2026.4.1, onnxruntime 1.31.1" in flat(text)
    assert "neighbours" not in text
    stolen = replace(found[0], conditions=replace(found[0].conditions, steal=0.21))
    assert "21 % of the time went to this machine's neighbours" in flat(shown(profile_table([stolen])))
    unknown = replace(found[0], conditions=replace(found[0].conditions, steal=None), roofline_share=None)
    assert "–" in shown(profile_table([unknown]))


def test_device(met: Study) -> None:
    text = flat(shown(device_table(met.device)))
    for said in (
        "AMD EPYC 7763",
        "avx2, fma, f16c",
        "onnxruntime 1.31.1, openvino 2026.4.1",
        "none: no RAPL here",
        "1 thread: fp32 71.4 GFLOP/s",
    ):
        assert said in text, said
    assert "not measured" in shown(device_table(replace(met.device, peaks=())))


def test_compare(met: Study) -> None:
    text = shown(compare_table(comparison(met)))
    assert max(map(len, text.splitlines())) <= 80
    for said in (
        "int8.edgew against fp32.onnx",
        "99.11 %",
        "1.2 % (relative L2)",
        "layer1.0 ← parts here",
        "−0.12",
        "10,000 pairs",
        "0.28 points",
        "sneaker",
    ):
        assert said in flat(text), said


def test_compare_without_labels_or_layers(met: Study) -> None:
    bare = replace(comparison(met), layers=(), first_parting=None, quality_a=None, quality_b=None, drop=None)
    text = shown(compare_table(bare))
    assert "the graphs share no tensor to compare" in flat(text)
    assert "Per class" not in text
    same = replace(bare, layers=(("conv1", 0.0), ("logits", 0.0)), relative_l2=0.0, max_abs=0.0)
    assert "nowhere: no difference lasts to the outputs" in flat(shown(compare_table(same)))


def test_many_layers_start_at_the_parting(met: Study) -> None:
    layers = tuple((f"layer{i}", 0.0 if i < 40 else 0.01) for i in range(90))
    text = shown(compare_table(replace(comparison(met), layers=layers, first_parting="layer40")))
    assert "layer39" in text
    assert "layer40 ← parts here" in text
    assert "layer12 " not in text
    assert "78 more not shown" in text


def test_classes_and_their_means_after_a_search(met: Study) -> None:
    text = flat(shown(table(met)))
    for said in ("Mean over classes reference chosen", "F1 93.16 % 92.65…93.64 %", "5 more changed less", "Recall of chosen"):
        assert said in text, said
    bare = replace(met.verdict.quality, per_class=())
    assert "Mean over classes" not in shown(table(replace(met, verdict=replace(met.verdict, quality=bare))))


def test_compare_shows_means_over_classes(met: Study) -> None:
    text = flat(shown(compare_table(comparison(met))))
    assert "Mean over classes a b" in text
    older = replace(comparison(met).quality_b, macro_precision=None, macro_recall=None, macro_f1=None)
    assert "Mean over classes" not in shown(compare_table(replace(comparison(met), quality_b=older)))
