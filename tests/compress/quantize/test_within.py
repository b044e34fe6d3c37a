from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgewise.compress.quantize import quantize_within, sensitivity
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.types import Inputs

OPTIONS: dict[str, Any] = {"rounding": "nearest", "equalize": False, "reduce_range": False}


@pytest.fixture
def evaluate(net: Graph, held_out: Inputs, error: Callable[..., float]) -> Callable[[Graph], float]:
    return lambda graph: 1 - error(net, graph, held_out)


def test_a_node_that_is_ruined_is_the_most_sensitive(net: Graph, samples: list[Inputs]) -> None:
    found = sensitivity(net, calibration=samples, samples=8, **OPTIONS)
    assert len(found) == 9
    assert [s.divergence for s in found] == sorted((s.divergence for s in found), reverse=True)
    rest = sensitivity(net, calibration=samples, samples=8, quantized="rest", **OPTIONS)
    assert {s.node for s in rest} == {s.node for s in found}
    with pytest.raises(InvalidInput, match="alone, rest"):
        sensitivity(net, calibration=samples, quantized="both")


def test_nothing_is_reverted_when_the_drop_holds(net: Graph, samples: list[Inputs], evaluate: Callable[[Graph], float]) -> None:
    done = quantize_within(net, calibration=samples, evaluate=evaluate, reference=1.0, max_drop=0.1, **OPTIONS)
    assert len(done.touched) == 9 and not done.skipped


def test_the_fewest_nodes_that_hold_the_drop_stay_in_float(net: Graph, samples: list[Inputs], evaluate: Callable[[Graph], float]) -> None:
    whole = 1 - evaluate(quantize_within(net, calibration=samples, evaluate=lambda g: 1.0, reference=1.0, max_drop=0, **OPTIONS).model)
    steps: list[str] = []
    limit = 0.8 * whole
    done = quantize_within(
        net,
        calibration=samples,
        evaluate=evaluate,
        reference=1.0,
        max_drop=limit,
        progress=lambda what, share: steps.append(what),
        **OPTIONS,
    )
    assert 1 - evaluate(done.model) <= limit
    assert 0 < len(done.skipped) < 9 and len(done.touched) + len(done.skipped) == 9
    assert all("keep the drop within" in reason for reason in done.skipped.values())
    tried = [note for note in done.notes if "nodes in float" in note]
    assert 2 <= len(tried) <= 5 and tried[-1] in steps


def test_a_limit_that_can_not_be_held_gives_the_float_model(
    net: Graph, samples: list[Inputs], held_out: Inputs, error: Callable[..., float]
) -> None:
    done = quantize_within(net, calibration=samples, evaluate=lambda graph: 0.0, reference=1.0, max_drop=0.1, **OPTIONS)
    assert done.touched == () and len(done.skipped) == 9
    assert error(net, done.model, held_out) < 1e-6
    assert "stays in float" in done.notes[-1]


@pytest.mark.parametrize("max_drop", [-0.1, np.nan])
def test_a_drop_below_zero_is_refused(net: Graph, samples: list[Inputs], max_drop: float) -> None:
    with pytest.raises(InvalidInput, match="max_drop"):
        quantize_within(net, calibration=samples, evaluate=lambda graph: 0.0, reference=1.0, max_drop=max_drop)
