"""A fabricated study, close to what `fit` records of a small image classifier: deterministic, no engine, no file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from edgewise.records import (
    ClassQuality,
    Conditions,
    DataSummary,
    Device,
    Interval,
    JointTime,
    Latency,
    LatencyTable,
    LayerModel,
    Measurement,
    ModelSummary,
    Outcome,
    PairedDifference,
    PartWidth,
    Peaks,
    PruningPlan,
    Quality,
    Speedup,
    StepEffect,
    Study,
    Trial,
    Verdict,
    WidthTime,
)
from edgewise.types import Budget, Execution, Signature, TensorSpec

LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
ORT, OPENVINO = Execution("onnxruntime"), Execution("openvino")


def wilson(right: int, n: int) -> Interval:
    p, z = right / n, 1.959964
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(p, float(max(0.0, middle - half)), float(min(1.0, middle + half)), n)


def conditions(execution: Execution) -> Conditions:
    versions = {"onnxruntime": "1.31.1", "openvino": "2026.4.1"}
    return Conditions(
        "local",
        f"{execution.backend} {versions.get(execution.backend, '?')}",
        execution.threads,
        (0,),
        2450.0,
        61.5,
        0.012,
        0.42,
        "2026-10-02T09:14:03Z",
    )


def measurement(execution: Execution, p50_ms: float, size_bytes: int, seed: int, n: int = 300) -> Measurement:
    noise = np.random.default_rng(seed).gamma(1.3, 0.025, n)
    samples = tuple(float(v) for v in p50_ms * (0.97 + noise))
    return Measurement(
        execution,
        conditions(execution),
        Latency(samples),
        9.3 + seed,
        p50_ms * 6,
        size_bytes,
        11_000_000 + 9 * size_bytes,
        1000 / p50_ms,
        roofline_share=0.31 + 0.01 * (seed % 9),
    )


def quality(metric: str, split: str, value: float, n: int, labels: tuple[str, ...], seed: int) -> Quality:
    random = np.random.default_rng(seed)
    scores = tuple(float(v) for v in (random.random(n) < value))
    right = round(value * n)
    each = max(1, n // max(1, len(labels)))
    recalls = np.clip(value + np.random.default_rng(1).normal(0, 0.04, len(labels)) + random.normal(0, 0.006, len(labels)), 0.05, 1.0)
    per_class = tuple(
        ClassQuality(label, each, wilson(round(float(r) * each), each), wilson(round(float(r) * each), each), float(r))
        for label, r in zip(labels, recalls, strict=True)
    )
    macro = [wilson(right - 10, n), wilson(right, n), wilson(right - 5, n)]
    return Quality(metric, split, wilson(right, n), scores, per_class, *(at.value for at in macro), *macro)


def paired(difference: float, n: int) -> PairedDifference:
    lost = max(3, round(abs(difference) * n * 1.6))
    gained = max(1, lost + round(difference * n))
    half = 1.96 * np.sqrt(lost + gained) / n
    return PairedDifference(Interval(difference, difference - half, difference + half, n), gained, lost, 0.034, 2.8 * np.sqrt(0.01 / n))


def speedup(ratio: float, base_ms: float, execution: Execution, conclusive: bool = True) -> Speedup:
    half = 0.006 if conclusive else 0.05
    pairs = tuple(float(ratio * (1 + e)) for e in np.random.default_rng(7).normal(0, 0.01, 60))
    return Speedup(
        Interval(ratio, ratio * (1 - half), ratio * (1 + half), 60),
        pairs,
        (base_ms,) * 60,
        (base_ms / ratio,) * 60,
        conclusive,
        12.5,
        conditions(OPENVINO),
        conditions(execution),
    )


# rung, recipe, execution, state, reason, validation accuracy, speedup, size
ROWS: tuple[tuple[str, str, Execution, str, str, float | None, float | None, int | None], ...] = (
    ("engine", "", OPENVINO, "measured", "", 0.9330, None, 1_092_000),
    ("engine", "", ORT, "measured", "", 0.9330, 0.83, 1_092_000),
    ("engine", "", Execution("onnxruntime", options={"allow_spinning": "0"}), "measured", "", 0.9330, 0.80, 1_092_000),
    ("engine", "", Execution("openvino", "bf16"), "failed", "this CPU has no bf16: precisions here are fp32", None, None, None),
    (
        "int8",
        "quantize(bits=8, mode='dynamic')",
        ORT,
        "screened",
        "slower than the reference in a quick timing (0.71×)",
        0.9318,
        0.71,
        301_000,
    ),
    ("int8", "quantize(bits=8, estimator='minmax')", ORT, "measured", "", 0.9262, 1.94, 298_000),
    ("int8", "quantize(bits=8, estimator='minmax')", OPENVINO, "measured", "", 0.9260, 2.55, 298_000),
    ("int8", "quantize(bits=8, estimator='percentile')", OPENVINO, "measured", "", 0.9306, 2.57, 298_000),
    ("int8", "quantize(bits=8, estimator='mse')", OPENVINO, "measured", "", 0.9318, 2.61, 298_000),
    (
        "int8",
        "quantize(bits=8, estimator='entropy', granularity='tensor')",
        OPENVINO,
        "screened",
        "accuracy 3.90 points below the reference on 1,000 samples",
        0.8940,
        None,
        291_000,
    ),
    ("int8, some left alone", "quantize(bits=8, estimator='mse', skip=['conv1', 'fc'])", OPENVINO, "measured", "", 0.9324, 2.32, 331_000),
    (
        "int8, some left alone",
        "quantize(bits=8, estimator='mse', skip=['conv1'])",
        ORT,
        "failed",
        "the measuring process ended with signal 9 while loading; give it more memory, or leave the trial out",
        None,
        None,
        None,
    ),
)


def trial(index: int, row: tuple, base_ms: float, n: int, labels: tuple[str, ...], metric: str) -> Trial:
    rung, recipe, execution, state, reason, value, ratio, size = row
    measured = value is not None and (ratio is not None or index == 0)
    return Trial(
        f"key{index:02d}",
        rung,
        recipe,
        execution,
        state,
        reason,
        size,
        quality(metric, "validation", value, n, labels, 1) if value is not None else None,
        paired(value - ROWS[0][5], n) if value is not None and index else None,
        speedup(ratio, base_ms, execution, conclusive=index != 5) if ratio else None,
        measurement(execution, base_ms / (ratio or 1), size or 1, index) if measured else None,
        0.0123 if "quantize" in recipe and value else None,
        ("conv1", "layer1.0.conv1", "layer1.0.conv2") if recipe and value else (),
        {
            "fc": "in_features=64 is below min_features=128",
            "Add_3": "its two inputs have scales of their own",
            "Add_9": "its two inputs have scales of their own",
        }
        if recipe and value
        else {},
        ("calibrated on 512 samples",) if recipe else (),
        seconds=14.2,
    )


def verdict(
    study_trials: tuple[Trial, ...], chosen: int, budget: Budget, base_ms: float, labels: tuple[str, ...], metric: str, n: int
) -> Verdict:
    picked, reference = study_trials[chosen], study_trials[0]
    ratio = picked.speedup or speedup(1.0, base_ms, picked.execution)
    before, after = quality(metric, "test", 0.9321, n, labels, 3), quality(metric, "test", 0.9309, n, labels, 4)
    drop = paired(-0.0012, n)
    outcomes = []
    if budget.speedup:
        outcomes.append(Outcome("speedup", budget.speedup, ratio.ratio, ratio.ratio.value >= 0.98 * budget.speedup, "x"))
    if budget.size_bytes:
        outcomes.append(
            Outcome(
                "size_bytes",
                budget.size_bytes,
                Interval(picked.size_bytes, picked.size_bytes, picked.size_bytes, 1),
                picked.size_bytes <= budget.size_bytes,
                "bytes",
            )
        )
    outcomes.append(Outcome("max_drop", budget.max_drop, Interval(0.0012, -0.0007, 0.0031, n), budget.max_drop >= 0.0012, "points"))
    return Verdict(
        picked.key,
        all(outcome.met for outcome in outcomes),
        tuple(outcomes),
        ratio,
        measurement(picked.execution, base_ms / ratio.ratio.value, picked.size_bytes, 3, n=1000),
        measurement(reference.execution, base_ms, reference.size_bytes, 5, n=1000),
        after,
        before,
        drop,
        "2.61x at 0.12 points",
    )


def build(
    *,
    rows: tuple[tuple, ...] = ROWS,
    chosen: int | None = 8,
    budget: Budget | None = None,
    labels: tuple[str, ...] = LABELS,
    metric: str = "accuracy",
    base_ms: float = 4.18,
    n: int = 10_000,
    verdict_n: int = 10_000,
) -> Study:
    budget = budget or Budget(speedup=2.5, size_bytes=1_000_000, max_drop=0.003)
    trials = tuple(trial(i, row, base_ms, n // 2, labels, metric) for i, row in enumerate(rows))
    signature = Signature(
        (TensorSpec("image", ("batch", 1, 28, 28), "float32"),), (TensorSpec("logits", ("batch", len(labels)), "float32"),)
    )
    device = Device(
        "bench-1",
        "x86_64",
        "AMD EPYC 7763 64-Core Processor",
        2,
        ("avx2", "fma", "f16c"),
        8_000_000_000,
        "Linux 6.1 (Debian 12)",
        {"onnxruntime": "1.31.1", "openvino": "2026.4.1"},
        "none: no RAPL here (a virtual machine), and no meter is attached",
        peaks=(Peaks(1, 71.4, 139.0, 18.2), Peaks(2, 139.8, 271.0, 24.9)),
    )
    return Study(
        1,
        "2026-10-02T09:12:44Z",
        budget,
        ModelSummary("fashion-resnet20", "ab" * 32, 272_474, 31_250_000, 1_092_000, 71, signature),
        DataSummary(
            "image-classification",
            metric,
            "data/fashion-mnist",
            "cd" * 32,
            {"train": 55_000, "calibration": 512, "validation": n // 2, "test": verdict_n},
            labels,
            (
                "43 duplicates across splits: kept in train, taken out of validation and test",
                "2 files couldn't be read: left out (img_0031.png, img_0977.png)",
            ),
        ),
        device,
        (ORT, OPENVINO),
        "key00",
        trials,
        verdict(trials, chosen, budget, base_ms, labels, metric, verdict_n) if chosen is not None else None,
        {"edgewise": "0.1.0", "python": "3.11.7", "onnx": "1.23.2", "onnxruntime": "1.31.1", "openvino": "2026.4.1", "numpy": "2.4.6"},
        ("the frequency governor isn't readable here",),
        412.0,
    )


@pytest.fixture
def make_study() -> Callable[..., Study]:
    return build


@pytest.fixture(scope="session")
def met() -> Study:
    return build()


@pytest.fixture(scope="session")
def missed() -> Study:
    return build(budget=Budget(speedup=3.0, size_bytes=1_000_000, max_drop=0.003))


@pytest.fixture(scope="session")
def unfinished() -> Study:
    return build(rows=ROWS[:2], chosen=None)


# A residual network of three stages: the stream of each, and in every block a convolution whose branch may go.
UNITS = {
    f"layer{stage}.{block}.conv1.weight" if block is not None else f"stream{stage}": 16 * 2 ** (stage - 1)
    for stage in (1, 2, 3)
    for block in (None, 0, 1, 2)
}
# Share of the dense time that goes with each part.
SHARES = {name: (0.16 if name.startswith("stream") else 0.07) / (1 if "1" in name[:7] else 1.4) for name in UNITS}
NARROWED = {
    "stream1": 8, "layer1.0.conv1.weight": 8, "layer1.2.conv1.weight": 0, "stream2": 24, "layer2.0.conv1.weight": 16,
    "layer2.1.conv1.weight": 8, "layer2.2.conv1.weight": 0, "stream3": 48, "layer3.1.conv1.weight": 24, "layer3.2.conv1.weight": 8,
}  # fmt: skip


def near(value: float, half: float = 0.004, n: int = 15) -> Interval:
    return Interval(value, value * (1 - half), value * (1 + half), n)


def table(form: str = "quantize(bits=8, estimator='mse')") -> LatencyTable:
    entries = []
    for name, units in UNITS.items():
        lead = name if name.startswith("stream") else f"{name[:6]}.0.conv1.weight"
        for width in [w for w in (0, 1, 4, 8, 16, 24, 32, 48) if w < units and (w or "conv1" in name)]:
            steps = -(-width // 8) * 8 / units
            ratio = near(1 - SHARES[lead] * (1 - min(1.0, steps)), 0.003)
            entries.append(WidthTime(name, width, ratio, "" if lead == name else lead, 1 if name.startswith("stream") else 2))
    joint = tuple(JointTime({name: max(1, units // k) for name, units in UNITS.items()}, near(1 / k, 0.01)) for k in (2, 3, 4, 6))
    shares = {"Conv 3×3 1×16×28×28 · 16×16×3×3 → 1×16×28×28": (0.02, 0.01, 0.0, 0.31, 0.0, 0.0), "Add": (0.03, 0.04, 0.0, 0.0, 0.0, 0.0)}
    return LatencyTable(
        OPENVINO, form, "ef" * 32, {"image": (1, 1, 28, 28)}, "a1b2c3d4", "2026-10-02T09:20:11Z", 1.61, UNITS, tuple(entries), joint,
        (joint[1],), LayerModel(shares, 0.5, 0.031, 0.087), near(1.0012, 0.004, 10), conditions(OPENVINO), 94.2,
        ("layer3.0.conv1.weight at 1 could not be timed: the process ended with signal 9",),
    )  # fmt: skip


# Asked, validation accuracy, speedup on validation, size, change on the test split
REACHED = ((4.0, 0.9297, 4.06, 172_000, -0.0021), (6.0, 0.9268, 6.05, 118_000, -0.0052), (8.0, 0.9201, 7.42, 81_000, -0.0123))


def left_of(asked: float) -> dict[str, int]:
    return {name: width and max(2, width - int(2 * (asked - 4))) for name, width in NARROWED.items()}


def recipe_of(asked: float) -> str:
    """Each member is pruned from the one before."""
    stages = [f"prune(widths={left_of(each)!r}) > distill(epochs=8)" for each, *_ in REACHED if each <= asked]
    return " > ".join([*stages, "quantize()"])


def steps(recipe: str, metric_value: float, ratio: float) -> tuple[StepEffect, ...]:
    """The model as it came, and after every step: pruning costs quality and time is gained by it, training takes most of it back."""
    said = recipe.split(" > ")
    found = [StepEffect("", 0.0, wilson(4665, 5000), near(1.004, 0.01, 16), 31_250_000, 272_474)]
    pruned = [i for i, step in enumerate(said) if step.startswith("prune")]
    for i, step in enumerate(said):
        done = sum(place <= i for place in pruned) / len(pruned)
        speed = 1 + (ratio / 2.1 - 1) * done
        value = metric_value - 0.21 * done if step.startswith("prune") else metric_value + 0.0008
        last = step.startswith("quantize")
        found.append(
            StepEffect(
                step, 74.8 if step.startswith("distill") else 4.2, wilson(round(5000 * (metric_value if last else value)), 5000),
                near(ratio if last else speed, 0.012, 16), round(31_250_000 / speed), round(272_474 / speed),
            )
        )  # fmt: skip
    return tuple(found)


def member(asked: float, max_drop: float = 0.01) -> Study:
    """A study that had to prune: with its latency table, its plans, what each step did, and what is left of the parts."""
    rows = tuple(("prune", recipe_of(each), OPENVINO, "measured", "", *figures) for each, *figures, _ in REACHED)
    place = [each for each, *_ in REACHED].index(asked)
    found = build(rows=ROWS + rows[: place + 1], chosen=len(ROWS) + place, budget=Budget(speedup=asked, max_drop=max_drop))
    _, value, ratio, _, change = REACHED[place]
    plans = [PruningPlan(asked, "quantize()", OPENVINO, 1.02 * asked, near(0.91 * asked, 0.008, 60), NARROWED)] if asked != 6 else []
    plans.append(PruningPlan(asked, "quantize()", OPENVINO, 1.022 * asked, near(ratio, 0.007, 60), NARROWED))
    left = left_of(asked)
    lost = Outcome("max_drop", max_drop, Interval(-change, -change - 0.003, -change + 0.003, 10_000), -change <= max_drop, "points")
    outcomes = (found.verdict.outcomes[0], lost)
    judged = replace(
        found.verdict,
        outcomes=outcomes,
        met=all(outcome.met for outcome in outcomes),
        drop=paired(change, 10_000),
        quality=quality("accuracy", "test", 0.9321 + change, 10_000, LABELS, 4),
    )
    return replace(
        found, verdict=judged, tables=(table(),), plans=tuple(plans), steps=steps(recipe_of(asked), value, ratio),
        widths=tuple(PartWidth(name, "channels", units, left.get(name, units)) for name, units in UNITS.items()),
    )  # fmt: skip


@pytest.fixture(scope="session")
def pruned() -> Study:
    return member(4.0)


@pytest.fixture(scope="session")
def family() -> tuple[Study, ...]:
    """Two that met their budget, and one that missed it twice: too slow, and too much lost."""
    return tuple(member(asked) for asked, *_ in REACHED)


def bare() -> Study:
    """None wherever the records allow it."""
    study = build(rows=ROWS[:1], chosen=None)
    empty = Trial("key00", "", "", Execution("x"), "measured")
    return replace(
        study,
        trials=(empty,),
        reference="gone",
        reference_set=(),
        versions={},
        notes=(),
        device=replace(study.device, peaks=(), backends={}, isa=()),
    )


def transformer() -> Study:
    """Heads beside thousands of neurons, many parts, and tables of two forms."""
    kinds = {"attention.value.weight": ("heads", 12), "intermediate.dense.weight": ("neurons", 3072)}
    widths = tuple(
        PartWidth(f"encoder.layer.{i}.{name}", kind, units, 0 if i == 7 else max(1, units * (i % 5) // 4))
        for i in range(24)
        for name, (kind, units) in kinds.items()
    )
    entries = tuple(
        WidthTime(one.part, one.units // 2, near(0.98), "" if i < 2 else widths[i % 2].part, 12) for i, one in enumerate(widths)
    )
    units = {one.part: one.units for one in widths}
    tables = tuple(replace(table(form), units=units, entries=entries, notes=()) for form in ("", "quantize()"))
    return replace(member(4.0), widths=widths, tables=tables)


def half_planned() -> Study:
    """A table that was begun, a plan that was far off, an engine that can't run a step, and nothing chosen."""
    begun = replace(
        table(""), entries=table().entries[:1], joint=(), corrections=(), model=None, scatter=None, conditions=None, dense_ms=0.0
    )
    empty = replace(begun, entries=(), seconds=0.0, form="quantize()")
    study = member(6.0)
    steps_ = tuple(replace(step, speedup=None) for step in study.steps)
    return replace(study, verdict=None, tables=(begun, empty), plans=study.plans[:1], steps=steps_, widths=())


def hostile() -> Study:
    """Markup, terminal codes and broken text in every place that a user's words can reach."""
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>[bold]\x1b[31m\x00\u202e&amp;"
    study = build(labels=tuple(f"{evil}{i}" for i in range(10)))
    trials = tuple(
        replace(t, recipe=evil, rung=evil, reason=evil, skipped={evil: evil}, notes=(evil,), touched=(evil,)) for t in study.trials
    )
    made, planned = member(4.0), member(4.0).plans[0]
    odd = replace(
        table(evil), units={evil: 8}, entries=(WidthTime(evil, 4, near(0.9), evil, 1), WidthTime(evil, 2, near(0.8))), notes=(evil,),
        conditions=replace(conditions(OPENVINO), engine=evil), model=LayerModel({evil: (0.5,)}, 0.5),
    )  # fmt: skip
    return replace(
        study,
        tables=(odd,),
        plans=(replace(planned, form=evil, widths={evil: 1}, execution=Execution(evil)), planned),
        steps=tuple(replace(step, step=evil) for step in made.steps),
        widths=(PartWidth(evil, evil, 8, 4), PartWidth(evil, "channels", 8, 0)),
        trials=trials,
        notes=(evil,),
        versions={evil: evil},
        model=replace(study.model, name=evil),
        data=replace(study.data, source=evil, cleaning=(evil,), metric=evil, task=evil),
        device=replace(study.device, name=evil, cpu=evil, energy=evil, backends={evil: evil}),
        reference_set=(Execution(evil, options={evil: evil}),),
    )


@cache
def extremes() -> dict[str, Study]:
    """Named studies at the edges of what the records can hold."""
    many = tuple(f"class {i:03d}" for i in range(100))
    sixty = tuple(
        (
            "engine" if i % 7 == 0 else "int8" if i % 3 else "pruned",
            "" if i == 0 else f"prune(of='channels', speedup={1 + i / 20:.2f}) > quantize(bits=8)",
            OPENVINO,
            "measured",
            "",
            0.933 - 0.0007 * i * (1 + 0.4 * np.sin(i)),
            None if i == 0 else 1 + i / 14,
            1_092_000 - 15_000 * i,
        )
        for i in range(60)
    )
    long_recipe = " > ".join(f"prune(of='channels', speedup={1 + i / 10:.1f}, skip=['stage{i}.block.conv1.weight'])" for i in range(9))
    rows = tuple((r[0], long_recipe if i == 8 else r[1], *r[2:]) for i, r in enumerate(ROWS))
    spread = tuple(
        (
            f"rung {i}",
            f"quantize(bits={8 - i % 5})" if i else "",
            OPENVINO,
            "measured",
            "",
            0.93 - 0.01 * i,
            None if i == 0 else 3 ** (i - 2),
            1_000_000 // 2**i,
        )
        for i in range(9)
    )
    return {
        "one": build(rows=ROWS[:1], chosen=0, budget=Budget(latency_ms=5.0)),
        "classes": build(labels=many),
        "sixty": build(rows=sixty, chosen=30),
        "long": build(rows=rows),
        "agreement": build(metric="agreement", labels=(), n=400, verdict_n=400),
        "fast": build(base_ms=0.003),
        "slow": build(base_ms=3000.0),
        "spread": build(rows=spread, chosen=4, base_ms=30.0),
        "bare": bare(),
        "hostile": hostile(),
        "pruned": member(8.0),
        "transformer": transformer(),
        "half planned": half_planned(),
    }


@pytest.fixture(
    params=[
        "one",
        "classes",
        "sixty",
        "long",
        "agreement",
        "fast",
        "slow",
        "spread",
        "bare",
        "hostile",
        "pruned",
        "transformer",
        "half planned",
    ]
)
def extreme(request: pytest.FixtureRequest) -> Study:
    return extremes()[request.param]


@pytest.fixture
def hostile_study() -> Study:
    return extremes()["hostile"]
