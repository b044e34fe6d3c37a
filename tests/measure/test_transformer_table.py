"""Tables of a transformer: one for each length, widths of heads, inner units, the stream and whole branches; times are made up."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from edgewise.compress.quantize import quantize
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index, cost, fold, set_axes, shrink, total
from edgewise.graph.parts import Coupling, parts
from edgewise.measure.layermodel import latency_predictor
from edgewise.measure.sizes import operations_predictor, size_predictor
from edgewise.measure.table import default_ladder, latency_table
from edgewise.records import Device, LatencyTable
from edgewise.testing import FakeClock
from edgewise.testing.encoder_graphs import encoder, texts
from edgewise.types import Execution

EXECUTION = Execution("onnxruntime")
LENGTHS = (32, 64, 128)
TABLES: dict[int, LatencyTable] = {}  # made once


@cache
def net(form: str = "fp32") -> tuple[Graph, Coupling]:
    graph = fold(encoder(layers=3, width=32, heads=4, inner=96))
    if form == "int8":
        graph = quantize(graph, calibration=[texts(8, 12)]).model
    return graph, parts(graph)


def inputs(tokens: int) -> dict[str, np.ndarray]:
    return {name: np.ones((1, tokens), np.int64) for name in ("input_ids", "attention_mask")}


def synthetic_ms(graph: Graph, tokens: int) -> float:
    """Whole vectors of eight in every product, which weights slow down; elementwise work by what is written."""
    index = Index(set_axes(graph, batch=1, tokens=tokens))
    ms = 0.01
    for node in index.nodes:
        shape = index.shape(node.output[0]) or ()
        if not shape or not all(isinstance(axis, int) for axis in shape):
            continue
        elements = float(np.prod(np.array(shape, np.float64)))
        if node.op_type == "MatMul":
            inner = (index.shape(node.input[0]) or (1,))[-1]
            whole = [-(-int(axis) // 8) * 8 for axis in (shape[-1], inner) if isinstance(axis, int)]
            ms += 0.002 + elements / shape[-1] * whole[0] * whole[1] / 3e7
        elif node.op_type in ("Softmax", "LayerNormalization", "Add", "Relu", "Transpose"):
            ms += 0.0005 + elements / 4e6
    return ms


class Timer:
    def __init__(self, dense: Graph, tokens: int, clock: FakeClock) -> None:
        self.tokens, self.dense_ms, self.clock = tokens, synthetic_ms(dense, tokens), clock
        self.random, self.timed = np.random.default_rng(tokens), 0

    def __call__(self, graph: Graph, pairs: int) -> list[tuple[float, float]]:
        self.clock.sleep(0.2)
        self.timed += 1
        both = np.array([self.dense_ms, synthetic_ms(graph, self.tokens)])
        return [tuple(value * np.exp(self.random.normal(0, 0.003, 2))) for value in [both] * pairs]


def measured(tokens: int, device: Device) -> LatencyTable:
    if tokens not in TABLES:
        clock = FakeClock()
        timer = Timer(net()[0], tokens, clock)
        TABLES[tokens] = latency_table(*net(), EXECUTION, inputs(tokens), device, timer=timer, clock=clock, seconds=40)
    return TABLES[tokens]


def drawn(coupling: Coupling, seed: int) -> dict[str, int]:
    """Widths as a plan has them: whole vectors, any number of heads, branches that are gone."""
    random, found = np.random.default_rng(seed), {}
    for part in coupling.parts:
        options = [width for width in default_ladder(part.units, part.removable, kind=part.kind) if width != 1]
        found[part.name] = int(random.choice([part.units, *options]))
    return found


@pytest.mark.parametrize("tokens", LENGTHS)
def test_unseen_widths_of_a_transformer_are_predicted_at_each_length(tokens: int, device: Device) -> None:
    graph, coupling = net()
    predict = latency_predictor(graph, coupling, measured(tokens, device))
    errors = []
    for seed in range(30):
        widths = drawn(coupling, seed)
        real = synthetic_ms(shrink(graph, {name: range(width) for name, width in widths.items()}, coupling=coupling), tokens)
        errors.append(predict(widths) / predict({}) / (real / synthetic_ms(graph, tokens)) - 1)
    assert np.median(np.abs(errors)) < 0.03 and np.quantile(np.abs(errors), 0.9) < 0.08


def test_the_ladder_covers_heads_inner_units_the_stream_and_branches(device: Device) -> None:
    _, coupling = net()
    entries: dict[str, set[int]] = {}
    for entry in measured(32, device).entries:
        entries.setdefault(entry.part, set()).add(entry.width)
    for part in coupling.parts:
        assert (0 in entries[part.name]) == part.removable
        if part.kind == "heads":
            assert {1, 2, 3} <= entries[part.name]
        else:
            assert len(entries[part.name]) >= 4


def test_a_table_of_one_length_is_none_of_another(device: Device) -> None:
    tables = [measured(tokens, device) for tokens in LENGTHS]
    assert len({str(table.inputs) for table in tables}) == 3
    graph, coupling = net()
    # Attention takes a larger share of long sequences, so heads do too.
    heads = {part.name: 1 for part in coupling.parts if part.kind == "heads"}
    predictors = [latency_predictor(graph, coupling, table) for table in tables]
    ratios = [predict.ratio(heads) for predict in predictors]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] > ratios[-1] + 0.02
    with pytest.raises(InvalidInput, match="was measured with inputs="):
        latency_table(graph, coupling, EXECUTION, inputs(64), device, known=tables[0], timer=Timer(graph, 64, FakeClock()))


@pytest.mark.parametrize("form", ("fp32", "int8"))
def test_operations_and_bytes_of_a_transformer_are_those_of_the_shrunk_graph(form: str) -> None:
    graph, coupling = net(form)
    assert {part.name for part in coupling.parts} == {part.name for part in net()[1].parts}
    assert {part.kind for part in coupling.parts} == {"hidden", "heads", "neurons"}
    operations, size = operations_predictor(graph, coupling, batch=1, tokens=20), size_predictor(graph, coupling)
    stored = {tensor.name for tensor in graph.proto.graph.initializer}
    for seed in range(4):
        widths = drawn(coupling, seed)
        small = shrink(graph, {name: range(width) for name, width in widths.items()}, coupling=coupling)
        assert operations(widths) == total(cost(small, batch=1, tokens=20)).macs
        kept = sum(len(tensor.raw_data) for tensor in small.proto.graph.initializer if tensor.name in stored)
        assert size(widths) == pytest.approx(kept, abs=200)  # a target of Reshape is stored anew
