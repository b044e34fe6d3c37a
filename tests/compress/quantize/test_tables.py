from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgewise import package
from edgewise.compress.quantize import quantize
from edgewise.compress.quantize.tables import rounded, tables
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index, taps
from edgewise.types import Inputs

Run = Callable[..., dict[str, np.ndarray]]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_rows_are_gathered_as_integers(text: Graph, held_out_phrases: Inputs, run: Run, backend: str) -> None:
    pytest.importorskip(backend)
    done = quantize(text, mode="dynamic")
    table = Index(text).constant("table")
    assert table is not None and tables(text) == {"embedded": "table"}
    found = run(taps(done.model, ["embedded"]), held_out_phrases, backend)["embedded"]
    step = np.abs(table).max(1) / 127
    wanted = table[held_out_phrases["ids"]]
    assert (np.abs(found - wanted) <= 0.5001 * step[held_out_phrases["ids"]][..., None]).all()
    index = Index(done.model)
    assert "table" not in index.initializers
    assert index.initializers["table_quantized"].data_type == onnx.TensorProto.INT8
    onnx.checker.check_model(done.model.proto, full_check=True)
    assert "embedded" in done.touched and any("tables in 8-bit integers, with scales of rows" in note for note in done.notes)


@pytest.mark.parametrize(("axis", "shape"), [(0, (700, 1)), (1, (8,))])
def test_scales_follow_what_differs(axis: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    table = rng.uniform(-1, 1, (700, 8)) * np.exp(rng.normal(0, 2, (700, 1) if axis == 0 else (1, 8)))
    integers, scale, found = rounded(table.astype(np.float32))
    assert found == axis and scale.shape == shape and integers.dtype == np.int8
    assert (np.abs(integers * scale - table) <= 0.5001 * scale).all()


def test_a_table_that_something_else_reads_stays_beside_its_integers(new_net: Any, run: Run) -> None:
    net = new_net()
    table = net.constant("table", net.rng.normal(0, 1, (512, 8)).astype(np.float32))
    x = net.add("Gather", [table, "ids"], "embedded")
    h = net.linear(x, "mix", 8, 8)
    net.add("MatMul", [h, net.add("Transpose", [table], "turned", perm=[1, 0])], "y")
    graph = net.graph({"ids": ["batch", "tokens"]}, {"y": ["batch", "tokens", 512]}, types={"ids": onnx.TensorProto.INT64})
    done = quantize(graph, mode="dynamic")
    ids = {"ids": np.arange(10).reshape(2, 5)}
    before, after = run(graph, ids)["y"], run(done.model, ids)["y"]
    assert np.linalg.norm(before - after) < 0.05 * np.linalg.norm(before)


def test_small_tables_and_skipped_ones_stay(text: Graph, new_net: Any) -> None:
    left = quantize(text, mode="dynamic", skip=("embedded",))
    assert "table" in {tensor.name for tensor in left.model.proto.graph.initializer}
    net = new_net()
    x = net.add("Gather", [net.constant("table", net.rng.normal(0, 1, (16, 8)).astype(np.float32)), "ids"], "embedded")
    net.linear(x, "y", 8, 4)
    small = net.graph({"ids": ["batch", "tokens"]}, {"y": ["batch", "tokens", 4]}, types={"ids": onnx.TensorProto.INT64})
    assert not tables(small)
    assert not tables(quantize(text, mode="dynamic").model)


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_fewer_bits_are_fewer_levels_and_fewer_bytes_where_they_are_coded(text: Graph, bits: int) -> None:
    done = quantize(text, mode="dynamic", embeddings=bits)
    integers = Index(done.model).constant("table_quantized")
    assert integers is not None and integers.dtype == np.int8 and np.abs(integers).max() == 2 ** (bits - 1) - 1
    whole, few = (package.build(quantize(text, mode="dynamic", embeddings=each).model, created="") for each in (8, bits))
    sizes = [next(row.length for row in one.manifest.entry("main").tensors if row.name == "table_quantized") for one in (whole, few)]
    assert sizes[1] <= (bits / 8 + 0.05) * integers.size and sizes[1] < sizes[0]
    assert any(f"tables in {bits}-bit integers" in note for note in done.notes)


def test_no_bits_leave_tables_in_float_and_impossible_ones_are_refused(text: Graph) -> None:
    assert "table" in Index(quantize(text, mode="dynamic", embeddings=0).model).initializers
    for wrong in (1, 9, -1):
        with pytest.raises(InvalidInput, match="the bits of tables, 2 to 8"):
            quantize(text, mode="dynamic", embeddings=wrong)
