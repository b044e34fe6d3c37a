from collections.abc import Callable

import numpy as np
import pytest

from edgewise.compress.quantize import calibrate, static, walk
from edgewise.compress.quantize.options import Options
from edgewise.compress.quantize.qdq import Settled, write
from edgewise.compress.quantize.static import observe, settle
from edgewise.graph import Graph
from edgewise.types import Inputs


def quiet(what: str, share: float) -> None:
    pass


@pytest.fixture(scope="module")
def settled(net: Graph, samples: list[Inputs]) -> Settled:
    return settle(observe(net, samples, Options(), equalize=True, execution=None, progress=quiet), Options(), quiet)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_real_arithmetic_is_what_the_integers_state(
    settled: Settled, held_out: Inputs, run: Callable[..., dict[str, np.ndarray]], backend: str
) -> None:
    pytest.importorskip(backend)
    stated = run(write(settled), held_out, optimization="off")["y"]
    # A value on the edge of two integers may fall to either side: rare, and one step.
    np.testing.assert_allclose(run(write(settled, real=True), held_out, backend)["y"], stated, atol=0.02 * float(np.abs(stated).max()))


def test_a_walk_that_starts_small_and_runs_again_on_more_is_the_same_walk(
    net: Graph, samples: list[Inputs], held_out: Inputs, error: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, int]] = []
    original = static.Settler.__call__

    def spy(self: static.Settler, layer, node, exact, rounded, outputs, run):  # type: ignore[no-untyped-def]
        taken.append((layer.name, len(exact)))
        return original(self, layer, node, exact, rounded, outputs, run)

    monkeypatch.setattr(static.Settler, "__call__", spy)
    held = calibrate.held_bytes(net, samples[0])
    assert held == sorted(held, reverse=True)
    small = {**(walk.walk.__kwdefaults__ or {}), "budget": 2 * held[0]}  # one piece at first, all six before the end
    monkeypatch.setattr(walk.walk, "__kwdefaults__", small)
    observed = observe(net, samples, Options(), equalize=True, execution=None, progress=quiet)
    settled = settle(observed, Options(), quiet)
    assert taken[0] == ("stem", 1) and taken[-1] == ("y", 6)
    assert error(net, write(settled), held_out) < 0.08
