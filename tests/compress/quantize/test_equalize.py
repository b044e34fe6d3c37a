from collections.abc import Callable

import numpy as np

from edgewise.compress.quantize.calibrate import default_execution
from edgewise.compress.quantize.equalize import equalized, streams
from edgewise.graph import Graph, taps
from edgewise.types import Inputs


def test_streams_end_at_clips_inputs_and_outputs(net: Graph) -> None:
    found = {frozenset(stream.tensors): stream for stream in streams(net)}
    residual = next(stream for tensors, stream in found.items() if "sum" in tensors)
    assert set(residual.tensors) == {"stem", "stem_relu", "project", "sum"}
    assert set(residual.makers) == {"stem", "project"} and set(residual.readers) == {"expand", "down"}
    everything = {name for tensors in found for name in tensors}
    assert not everything & {"x", "y", "expand", "expand_clip", "depthwise", "depthwise_clip"}  # ReLU6 bounds them
    assert not everything & {"left", "right", "joined"}  # concatenation renumbers channels


def test_the_function_stays_the_same_and_channels_come_closer(
    net: Graph, samples: list[Inputs], held_out: Inputs, error: Callable[..., float], run: Callable[..., dict[str, np.ndarray]]
) -> None:
    even, found = equalized(net, samples, default_execution())
    assert found
    assert error(net, even, held_out) < 1e-5

    def spread(graph: Graph) -> float:
        sizes = np.abs(run(taps(graph, ["sum"]), held_out)["sum"]).max((0, 2, 3))
        return float(sizes.max() / np.median(sizes))

    assert spread(even) < spread(net)
