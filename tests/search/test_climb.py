"""The rungs and when to stop, on records that are made up: nothing is measured here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgewise.records import Conditions, Interval, Latency, Measurement, PairedDifference, Quality, Speedup, Trial
from edgewise.search import Climb, Store, climb
from edgewise.search.pace import Pace
from edgewise.types import Budget, Execution

CONDITIONS = Conditions("here", "engine 1", 1, (0,), None, None, None, None, "2026-01-01")
ENGINES = (Execution("one"), Execution("two"))


def made(recipe: str, execution: Execution, lost: float, faster: float = 2.0, detectable: float = 0.001) -> Trial:
    drop = PairedDifference(Interval(-lost, -lost - 0.01, -lost + 0.01, 100), 0, 0, 1.0, detectable)
    ratio = Interval(faster, faster - 0.01, faster + 0.01, 20)
    timed = Speedup(ratio, (faster,), (1.0,), (1.0,), True, 1.0, CONDITIONS, CONDITIONS)
    return Trial(f"{recipe} {execution}", "int8", recipe, execution, "screened", size_bytes=100, drop=drop, speedup=timed)


def climbing(tmp_path: Path, *trials: Trial, budget: Budget | None = None) -> Climb:
    bench = SimpleNamespace(store=Store(tmp_path), origin=("weights", "data"))
    reference = SimpleNamespace(quality=Quality("accuracy", "validation", Interval(0.9, 0.88, 0.92, 100), ()))
    return Climb(
        bench=cast(Any, bench),
        dense=cast(Any, None),
        budget=budget or Budget(speedup=1.5, max_drop=0.01),
        engines=("one", "two"),
        pace=Pace(1.0, None),
        reference=cast(Any, reference),
        baseline=trials[0],
        trials=list(trials),
        maker=cast(Any, None),
    )


def test_accuracy_control_is_driven_by_the_drop_on_every_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    int8 = climb.INT8[0]
    search = climbing(tmp_path, *(made(int8, execution, 0.05) for execution in ENGINES), made(climb.INT8[1], ENGINES[0], 0.5))
    asked = []

    def sensitive(of: Climb, execution: Execution, allowed: float) -> list[str]:
        asked.append((execution, allowed))
        return ["first", "last"] if execution is ENGINES[0] else ["last"]

    monkeypatch.setattr(climb, "_sensitive", sensitive)
    expected = [
        ("mixed", "quantize(skip=('first', 'last'))", [ENGINES[0]]),
        ("mixed", "quantize(skip=('last',))", [ENGINES[1]]),
    ]
    assert list(climb.mixed(search)) == expected
    assert asked == [(execution, 0.01) for execution in ENGINES]
    assert list(climb.mixed(search)) == expected
    assert len(asked) == 2  # what took long is kept
    assert list(climb.mixed(replace(search, budget=Budget(max_drop=0.06)))) == []  # nothing loses too much


def test_an_engine_that_loses_little_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = climbing(tmp_path, made(climb.INT8[0], ENGINES[0], 0.05), made(climb.INT8[0], ENGINES[1], 0.004))
    monkeypatch.setattr(climb, "_sensitive", lambda *_: ["last"])
    assert [executions for _, _, executions in climb.mixed(search)] == [[ENGINES[0]]]
    monkeypatch.setattr(climb, "_sensitive", lambda *_: [])
    assert list(climb.mixed(replace(search, budget=Budget(max_drop=0.02)))) == []


@pytest.mark.parametrize(
    ("trial", "enough"),
    [
        (made("a", ENGINES[0], 0.0), True),
        (made("gains", ENGINES[0], -0.01), True),
        (made("too slow", ENGINES[0], 0.0, faster=1.2), False),
        (made("loses too much", ENGINES[0], 0.02), False),
        (made("within the budget, but a loss that shows", ENGINES[0], 0.008, detectable=0.005), False),
        (made("less than can be seen", ENGINES[0], 0.008, detectable=0.02), True),
        (replace(made("failed", ENGINES[0], 0.0), state="failed"), False),
    ],
    ids=lambda value: value.recipe if isinstance(value, Trial) else "",
)
def test_it_ends_when_the_budget_is_met_and_no_more_can_be_gained_than_the_split_shows(tmp_path: Path, trial: Trial, enough: bool) -> None:
    assert climbing(tmp_path, trial).satisfied() is enough


def measured(latency_ms: float, memory: int = 100, execution: Execution = ENGINES[0]) -> Measurement:
    return Measurement(execution, CONDITIONS, Latency((latency_ms,) * 10), 1.0, 1.0, 10, memory)


@pytest.mark.parametrize(
    ("limit", "faster", "own", "asked", "enough"),
    [
        (Budget(latency_ms=5.0), 1.2, measured(8.3), 0, False),  # not worth measuring
        (Budget(latency_ms=5.0), 2.5, measured(4.0), 1, True),
        (Budget(latency_ms=5.0), 2.5, measured(6.0), 1, False),  # its own milliseconds count
        (Budget(memory_bytes=150), 2.5, measured(4.0, memory=200), 1, False),
        (Budget(memory_bytes=150), 2.5, measured(4.0), 1, True),
        (Budget(speedup=2.0), 2.5, measured(4.0), 0, True),
    ],
)
def test_milliseconds_and_memory_are_met_by_what_was_measured(
    tmp_path: Path, limit: Budget, faster: float, own: Measurement, asked: int, enough: bool
) -> None:
    dense = replace(made("", ENGINES[0], 0.0, faster=1.0), measurement=measured(10.0, memory=400))
    candidate = replace(made("", ENGINES[1], 0.0, faster=faster), rung="precision")
    search = climbing(tmp_path, dense, candidate, budget=limit)
    search.graphs = dict.fromkeys((dense.key, candidate.key), cast(Any, None))
    proved = []

    def prove(trial: Trial, *_: Any, **__: Any) -> Trial:
        proved.append(trial)
        return replace(trial, measurement=own)

    cast(Any, search.bench).prove = prove
    assert search.satisfied() is enough and search.satisfied() is enough
    assert len(proved) == asked  # kept, whatever it says
    search.maker = cast(Any, SimpleNamespace(structure=None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "_matmul_share", lambda climb: 1.0)
        patch.setattr(climb, "of_tokens", lambda graph: False)
        assert (next(climb.int8(search), None) is None) is enough


@pytest.mark.parametrize(("faster", "lost", "tried"), [(2.0, 0.008, False), (1.2, 0.0, True), (2.0, 0.02, True)])
def test_integers_are_not_tried_where_a_shorter_float_does_it(tmp_path: Path, faster: float, lost: float, tried: bool) -> None:
    search = climbing(tmp_path, replace(made("", ENGINES[0], lost, faster=faster, detectable=0.005), rung="precision"))
    search.maker = cast(Any, SimpleNamespace(structure=None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(climb, "_matmul_share", lambda climb: 1.0)
        patch.setattr(climb, "of_tokens", lambda graph: False)
        assert (next(climb.int8(search), None) is not None) is tried
