"""Coded weights and graphs: smaller, the same to the bit, and bounded whatever a file claims."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import numpy_helper

from edgewise import package
from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.graph import Graph
from edgewise.package import Limits, Package, build, coded

Write = Callable[[bytes], Path]
CREATED = "2026-01-01T00:00:00Z"
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def weights() -> list[onnx.TensorProto]:
    """int8, floats on a grid, shared floats, ordinary ones, int4."""
    random = np.random.default_rng(0)
    shared = random.normal(size=5).astype(np.float32)
    made = {
        "int8": np.rint(random.normal(0, 9, (40, 60))).astype(np.int8),
        "grid": np.rint(random.normal(0, 5, (40, 60))).astype(np.float32) * np.float32(0.01) + np.float32(0),
        "shared": shared[random.integers(0, 5, (30, 50))],
        "float": random.normal(size=(20, 30)).astype(np.float32),
        "random": random.integers(0, 256, 400).astype(np.uint8),
    }
    int4 = onnx.TensorProto(name="int4", data_type=onnx.TensorProto.INT4, dims=[30, 31])
    numbers = np.rint(random.normal(0, 1.5, 930)).clip(-8, 7).astype(np.int8).view(np.uint8) & 15
    int4.raw_data = (numbers[::2] | numbers[1::2] << 4).tobytes()
    return [*(numpy_helper.from_array(values, name) for name, values in made.items()), int4]


@pytest.fixture
def many(make_graph: Callable[..., Graph]) -> Graph:
    return make_graph(*weights())


@pytest.fixture
def packed(many: Graph) -> Package:
    """Its graph is coded too: a text in it is long enough."""
    proto = many.copy_proto()
    proto.doc_string = "a text that says one thing again and again; " * 20
    return build(Graph.from_proto(proto), created=CREATED)


def test_each_kind_is_coded_by_what_suits_it(packed: Package, many: Graph, tmp_path: Path) -> None:
    packed.save(tmp_path / "a.edgew")
    opened = package.open(tmp_path / "a.edgew")
    rows = {row.name: row for row in opened.manifest.entry("main").tensors}
    by = {name: coded.coder_of(opened.stored(row)) if row.coding == "coded" else "raw" for name, row in rows.items()}
    assert by["grid"] == "grid" and by["shared"] in ("palette", "grid") and by["float"] == "float planes" and by["random"] == "raw"
    assert rows["int4"].coding == "coded" and rows["int8"].length < 0.75 * 2400
    assert opened.manifest.member("graphs/0.onnx").coding == "lzma"
    assert opened.graph().to_bytes() == packed.graph().to_bytes()
    for tensor in opened.graph().proto.graph.initializer:
        assert tensor in (*many.proto.graph.initializer,)
    assert onnx.ModelProto.FromString(opened.model_bytes()) == opened.graph().proto


def test_all_is_at_most_fast_and_fast_at_most_none(many: Graph) -> None:
    sizes = [build(many, created=CREATED, coders=coders).size_bytes for coders in ("all", "fast", "none")]  # type: ignore[arg-type]
    assert sizes[0] <= sizes[1] < 0.7 * sizes[2]
    with pytest.raises(InvalidInput, match="give 'fast', 'all' or 'none'"):
        build(many, created=CREATED, coders="zip")  # type: ignore[arg-type]


def test_coded_tensors_follow_each_other_and_raw_ones_are_aligned(packed: Package) -> None:
    end = 0
    for row in packed.manifest.entry("main").tensors:
        assert row.offset == (end if row.coding == "coded" else -(-end // 64) * 64)
        end = row.offset + row.length
    assert end == len(packed.members["weights"])


def test_large_models_leave_out_what_is_slow_to_decode() -> None:
    assert "adaptive" in coded.chosen("fast", coded.ADAPTIVE_ELEMENTS)
    assert "adaptive" not in coded.chosen("fast", coded.ADAPTIVE_ELEMENTS + 1)
    assert "mixing" in coded.chosen("all", 10**9) and not coded.chosen("none", 1)


def test_unused_bits_that_say_something_stay(make_graph: Callable[..., Graph]) -> None:
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT4, dims=[601], raw_data=bytes(300) + b"\xf0")
    built = build(make_graph(weight), created=CREATED)
    assert built.manifest.entry("main").tensors[0].coding == "raw"
    assert built.graph().proto.graph.initializer[1] == weight


@given(data=st.data())
@settings(relaxed, max_examples=150)
def test_damage_behind_right_hashes(data: Any, packed: Package, take_apart: Any, written: Write) -> None:
    """What a forger can do: an error in our words, or a model whose tensors have the size that the manifest says."""
    parts = take_apart(packed)
    name = data.draw(st.sampled_from(sorted(parts.members)))
    damaged = bytearray(parts.members[name])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    parts.replace(name, bytes(damaged))
    path = written(parts.file())
    opened = package.open(path)
    with contextlib.suppress(InvalidPackage):
        graph = opened.graph()
        assert onnx.ModelProto.FromString(opened.model_bytes()) == graph.proto
    for row in opened.manifest.entry("main").tensors:
        with contextlib.suppress(InvalidPackage):
            assert len(opened.read(row)) == package.manifest.stored_bytes(row.dtype, row.shape)


def test_an_error_names_the_file_and_what_is_damaged(packed: Package, take_apart: Any, written: Write) -> None:
    parts = take_apart(packed)
    parts.members["weights"] = b"\xff" * len(parts.members["weights"])
    parts.replace("weights", parts.members["weights"])
    opened = package.open(written(parts.file()))
    with pytest.raises(InvalidPackage, match=r"forged\.edgew: the tensor 'int8' can't be decoded: .*names no coder"):
        opened.model_bytes()
    parts = take_apart(packed)
    parts.replace("graphs/0.onnx", b"\xff" + parts.members["graphs/0.onnx"][1:])
    with pytest.raises(InvalidPackage, match=r"forged\.edgew: the member graphs/0\.onnx can't be decoded: its LZMA"):
        package.open(written(parts.file())).graph()


@pytest.mark.parametrize("size", [0, 1, 100, 2**20, 8 * 2**20])
def test_a_graph_of_another_size_than_it_says(size: int, packed: Package, take_apart: Any, written: Write) -> None:
    parts = take_apart(packed)
    parts.manifest["members"][0]["size"] = size
    with pytest.raises(InvalidPackage, match="doesn't give"):
        package.open(written(parts.file())).graph()


def test_a_small_file_that_unfolds_to_much_is_refused_before_it_does(packed: Package, take_apart: Any, written: Write) -> None:
    parts = take_apart(packed)
    parts.manifest["members"][0]["size"] = 9 * 2**20
    with pytest.raises(InvalidPackage, match=r"graph of 9,437,184 bytes .* raise Limits\.graph_bytes"):
        package.open(written(parts.file()))
    parts = take_apart(packed)
    parts.manifest["entries"][0]["tensors"][0]["shape"] = [2**20, 2**12]
    with pytest.raises(InvalidPackage, match=r"unfolds to .*Limits"):
        package.open(written(parts.file()))
    row = parts.manifest["entries"][0]["tensors"][0]
    row["shape"] = [1]
    with pytest.raises(InvalidPackage, match="raw would take '1'"):
        package.open(written(parts.file()))
    row.update(shape=[40, 60], member="graphs/0.onnx", offset=0, length=10)
    with pytest.raises(InvalidPackage, match="which is coded itself"):
        package.open(written(parts.file()))


def test_a_small_file_does_not_unfold_to_hundreds_of_megabytes(make_graph: Callable[..., Graph], take_apart: Any, written: Write) -> None:
    zeros = numpy_helper.from_array(np.zeros((64, 64), np.int8), "zeros")
    parts = take_apart(build(make_graph(zeros), created=CREATED))
    assert len(parts.members["weights"]) < 10
    row = parts.manifest["entries"][0]["tensors"][0]
    row["shape"] = [2**13, 2**13]
    graph = onnx.ModelProto.FromString(parts.members["graphs/0.onnx"])
    graph.graph.initializer[1].dims[:] = row["shape"]
    parts.replace("graphs/0.onnx", graph.SerializeToString())
    opened = package.open(written(parts.file()))
    assert len(opened.model_bytes()) > 2**26
    row["shape"] = [2**13, 2**13 + 1]
    with pytest.raises(InvalidPackage, match=r"raise Limits\.expansion"):
        package.open(written(parts.file()))
    assert package.open(written(parts.file()), limits=Limits(expansion=2**26)).manifest


def test_what_shrinks_without_measure_stays_raw(make_graph: Callable[..., Graph]) -> None:
    """Two blocks of zeros, too much together: one of them stays raw, and the default limits open what was built."""
    blocks = [numpy_helper.from_array(np.zeros((9 + i, 2**22), np.int8), str(i)) for i in range(2)]
    built = build(make_graph(*blocks), created=CREATED)
    assert sorted(row.coding for row in built.manifest.entry("main").tensors) == ["coded", "raw"]


def test_bombs_take_no_more_than_they_may(packed: Package, take_apart: Any, written: Write) -> None:
    import lzma

    bomb = lzma.compress(bytes(16 * 2**20), lzma.FORMAT_RAW, filters=coded._filters(lzma))
    parts = take_apart(packed)
    parts.replace("graphs/0.onnx", bomb)
    opened = package.open(written(parts.file()), limits=Limits())
    tracemalloc.start()
    with pytest.raises(InvalidPackage, match="doesn't give"):
        opened.graph()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**20  # the dictionary is one


@given(data=st.binary(max_size=400))
@settings(deadline=None, max_examples=100)
def test_lzma_comes_back(data: bytes) -> None:
    blob = coded.encode_graph(data * 5)
    if blob is not None:
        assert coded.decode_graph(blob, 5 * len(data)) == data * 5
        for wrong in (blob[:-1], blob + b"\0", blob + blob):
            with pytest.raises(InvalidInput):
                coded.decode_graph(wrong, 5 * len(data))


@pytest.mark.parametrize(("dtype", "values"), [("int4", [8, 0, 1]), ("int4", [-9, 0, 1]), ("uint4", [16, 0, 1]), ("int2", [2, 0, 1])])
def test_numbers_that_an_element_can_not_hold(dtype: str, values: list[int]) -> None:
    from edgewise import coding

    blob = coding.encode(np.array(values, np.uint8 if dtype == "uint4" else np.int8))
    with pytest.raises(InvalidInput, match=f"{dtype} can't hold"):
        coded.decode_tensor(blob, dtype, (3,))
