"""Sizes as functions of widths, against the counts of graphs that were really shrunk."""

import numpy as np
import pytest
from onnx import helper

from edgewise.compress.quantize import quantize
from edgewise.errors import InvalidInput
from edgewise.export import export
from edgewise.graph import Graph, cost, fold, total
from edgewise.graph.parts import parts
from edgewise.graph.shrink import shrink
from edgewise.measure.sizes import Size, layout, operations_predictor, size_predictor
from edgewise.testing import graphs, nets


def weight(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def conv(x, name, y, **attributes):
    return ("Conv", [x, name], [y], attributes)


SAME = {"pads": [1, 1, 1, 1]}


def residual():
    """Two blocks on a stem; the inside of each may go."""
    nodes = [conv("x", "stem", "s", **SAME), ("Relu", ["s"], ["r0"])]
    for i in (1, 2):
        nodes += [
            conv(f"r{i - 1}", f"a{i}", f"p{i}", **SAME),
            ("Relu", [f"p{i}"], [f"q{i}"]),
            conv(f"q{i}", f"b{i}", f"t{i}", **SAME),
            ("Add", [f"t{i}", f"r{i - 1}"], [f"u{i}"]),
            ("Relu", [f"u{i}"], [f"r{i}"]),
        ]
    nodes += [("GlobalAveragePool", ["r2"], ["g"]), ("Flatten", ["g"], ["f"]), ("MatMul", ["f", "head"], ["y"])]
    weights = {"stem": weight(16, 3, 3, 3), "head": weight(16, 10)}
    for i in (1, 2):
        weights |= {f"a{i}": weight(24, 16, 3, 3), f"b{i}": weight(16, 24, 3, 3)}
    return graphs.build(nodes, {"x": ("batch", 3, 12, 12)}, {"y": ("batch", 10)}, weights)


def concatenated():
    """Two branches side by side, a depthwise convolution over both, flattened into a dense layer."""
    nodes = [
        conv("x", "one", "a", **SAME),
        conv("x", "two", "b", **SAME),
        ("Concat", ["a", "b"], ["c"], {"axis": 1}),
        conv("c", "deep", "d", group=20, strides=[2, 2], **SAME),
        ("Relu", ["d"], ["e"]),
        ("Flatten", ["e"], ["f"]),
        ("Gemm", ["f", "dense", "bias"], ["h"]),
        ("Relu", ["h"], ["k"]),
        ("MatMul", ["k", "head"], ["y"]),
    ]
    weights = {
        "one": weight(8, 3, 3, 3),
        "two": weight(12, 3, 3, 3),
        "deep": weight(20, 1, 3, 3),
        "dense": weight(20 * 16, 24),
        "bias": weight(24),
        "head": weight(24, 5),
    }
    return graphs.build(nodes, {"x": ("batch", 3, 8, 8)}, {"y": ("batch", 5)}, weights)


NETS = {"residual": residual, "concatenated": concatenated, "mlp": lambda: graphs.mlp()[0]}


def configurations(coupling, n, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(n):
        yield {part.name: int(random.integers(0 if part.removable else 1, part.units + 1)) for part in coupling.parts}


def smaller(graph, coupling, widths):
    return shrink(graph, {name: range(width) for name, width in widths.items()}, coupling=coupling)


def stored_bytes(graph, names):
    kinds = {t.name: helper.tensor_dtype_to_np_dtype(t.data_type).itemsize * int(np.prod(t.dims)) for t in graph.proto.graph.initializer}
    return sum(size for name, size in kinds.items() if name in names)


@pytest.mark.parametrize("name", ["residual", "concatenated", "mlp"])
def test_operations_and_bytes_are_those_of_the_shrunk_graph(name):
    graph = fold(Graph.from_proto(NETS[name]()))
    coupling = parts(graph)
    assert coupling.parts
    operations, size = operations_predictor(graph, coupling, batch=2), size_predictor(graph, coupling)
    names = {tensor.name for tensor in graph.proto.graph.initializer}
    for widths in [{}, *configurations(coupling, 12)]:
        real = smaller(graph, coupling, widths)
        assert operations(widths) == total(cost(real, batch=2)).macs
        assert size(widths) == stored_bytes(real, names)


@pytest.mark.parametrize("name", ["mobilenet_like", "densenet_like", "vit_like", "grouped"])
def test_no_network_is_known_by_name(name):
    graph = fold(export(getattr(nets, name)(), nets.example(name)))
    coupling = parts(graph)
    operations = operations_predictor(graph, coupling)
    for widths in [{}, *configurations(coupling, 4)]:
        assert operations(widths) == total(cost(smaller(graph, coupling, widths))).macs


def test_a_quantized_graph_counts_like_its_float_one():
    graph = fold(Graph.from_proto(residual()))
    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(4)]
    small = quantize(graph, calibration=samples).model
    coupling, inner = parts(graph), parts(small)
    assert [part.name for part in inner.parts] == [part.name for part in coupling.parts]
    operations, size = operations_predictor(small, inner), size_predictor(small, inner)
    plain = operations_predictor(graph, coupling)
    for widths in [{}, *configurations(inner, 6)]:
        real = smaller(small, inner, widths)
        assert operations(widths) == plain(widths) == total(cost(real)).macs
        # A constant in place of a removed branch is stored anew.
        assert size(widths) == stored_bytes(real, {tensor.name for tensor in small.proto.graph.initializer})


def test_many_widths_at_once_are_the_same():
    graph = fold(Graph.from_proto(residual()))
    coupling = parts(graph)
    operations = operations_predictor(graph, coupling)
    chosen = list(configurations(coupling, 5))
    together = operations.many(np.stack([operations.layout.vector(widths) for widths in chosen]))
    assert together.tolist() == [operations(widths) for widths in chosen]


def test_a_removed_branch_takes_its_layers_along():
    graph = fold(Graph.from_proto(residual()))
    coupling = parts(graph)
    found = layout(graph, coupling)
    assert [part.name for part in coupling.parts if part.removable] == ["a1", "a2"]
    gone = {layer.name for layer in found.layers if layer.gone == (list(found.parts).index("a1"),)}
    made_by = {node.output[0]: node.name for node in graph.proto.graph.node}
    # The ReLU behind the sum too: what reaches it went through the one before.
    assert gone == {made_by[tensor] for tensor in ("p1", "q1", "t1", "u1", "r1")}
    assert found.least.tolist() == [0 if part.removable else 1 for part in coupling.parts]


def test_constants_are_computed_once_and_are_no_layers():
    graph = Graph.from_proto(graphs.quantized_matmul()[0])
    found = layout(graph, parts(graph), batch=1)
    assert [layer.family for layer in found.layers] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "MatMul",
        "QuantizeLinear",
        "DequantizeLinear",
    ]


def test_alike_layers_say_the_same():
    graph = fold(Graph.from_proto(residual()))
    shapes = {layer.name: layer.shape for layer in layout(graph, parts(graph)).layers if layer.family == "Conv 3×3"}
    assert sorted(shapes.values())[0] == "Conv 3×3 1×16×12×12 · 24×16×3×3 → 1×24×12×12"
    assert sorted(map(list(shapes.values()).count, shapes.values())) == [1, 2, 2, 2, 2]


def test_unknown_parts_are_told():
    graph = fold(Graph.from_proto(residual()))
    with pytest.raises(InvalidInput, match="no part 'a9'; its parts are stem, a1, a2"):
        operations_predictor(graph, parts(graph))({"a9": 3})


def test_sizes_multiply_and_add_like_polynomials():
    a, b = Size({(0,): 1}), Size({(1,): 1})
    assert (3 * a * (b + a + 2)).terms == {(0, 1): 3, (0, 0): 3, (0,): 6}
