"""What goes in comes out: graphs, weights of every dtype, and all that is said about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import helper, numpy_helper

from edgewise import package
from edgewise.data.postprocess import Classify
from edgewise.data.preprocess import ImagePreprocess
from edgewise.errors import InvalidInput, InvalidModel, InvalidPackage
from edgewise.graph import Graph
from edgewise.package import Form, Package, Provenance, build
from edgewise.package.manifest import BITS
from edgewise.types import Execution

CREATED = "2026-01-01T00:00:00Z"


def typed(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


@given(
    dtype=st.sampled_from(sorted(BITS)),
    shape=st.lists(st.integers(0, 5), max_size=4).map(tuple),
    take_out_bytes=st.sampled_from([0, 1, 16, 10**6]),
    seed=st.integers(0, 2**32 - 1),
    coders=st.sampled_from(["fast", "all", "none"]),
    spread=st.sampled_from([1, 3, 256]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_dtype_and_shape_comes_back_to_the_bit(
    dtype: str,
    shape: tuple[int, ...],
    take_out_bytes: int,
    seed: int,
    coders: Any,
    spread: int,
    make_graph: Callable[..., Graph],
    tmp_path: Path,
) -> None:
    count = math.prod(shape)
    raw = np.random.default_rng(seed).integers(0, spread, (count * BITS[dtype] + 7) // 8, dtype=np.uint8)
    if dtype == "bool":
        raw &= 1
    weight = onnx.TensorProto(name="w", data_type=helper.np_dtype_to_tensor_dtype(typed(dtype)), dims=shape, raw_data=raw.tobytes())
    graph = make_graph(weight)

    build(graph, created=CREATED, take_out_bytes=take_out_bytes, coders=coders).save(tmp_path / "a.edgew")
    opened = package.open(tmp_path / "a.edgew")

    assert opened.graph().to_bytes() == graph.to_bytes()
    assert opened.graph().signature == graph.signature
    assert onnx.load_model_from_string(opened.model_bytes()).graph.initializer[1] == weight


@pytest.mark.parametrize("name", ["float32", "float64", "int32", "int64", "uint64", "float16", "bfloat16", "int4", "uint4", "int8"])
def test_weights_in_typed_fields_come_back_with_the_same_values(name: str, make_graph: Callable[..., Graph]) -> None:
    values = np.array([1, 2, 3, 0, 5]).astype(typed(name))
    weight = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(typed(name)), [5], values)
    back = build(make_graph(weight), created=CREATED, take_out_bytes=0).graph().proto.graph.initializer[1]
    assert np.array_equal(numpy_helper.to_array(back), numpy_helper.to_array(weight))


def test_the_same_content_gives_the_same_bytes(make_graph: Callable[..., Graph], tmp_path: Path) -> None:
    for name in ("a", "b"):
        weight = numpy_helper.from_array(np.arange(100, dtype=np.float32), "w")
        build(make_graph(weight), created=CREATED, provenance=Provenance(versions={"onnx": "1", "numpy": "2"})).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    package.open(tmp_path / "a").save(tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_one_content_one_id(make_graph: Callable[..., Graph], small: Package) -> None:
    assert len(small.content_id) == 64
    assert small.content_id != build(make_graph(), created=CREATED).content_id


def test_building_leaves_the_graph_alone(make_graph: Callable[..., Graph]) -> None:
    graph = make_graph(numpy_helper.from_array(np.arange(100, dtype=np.float32), "w"))
    before = graph.proto.SerializeToString(deterministic=True)
    build(graph, created=CREATED)
    assert graph.proto.SerializeToString(deterministic=True) == before


def test_all_that_is_said_comes_back(make_graph: Callable[..., Graph], tmp_path: Path) -> None:
    preprocess = ImagePreprocess((4, 4), 1, (0.5,), (0.25,))
    postprocess = Classify(("cat", "dog", "Übel", "日本"), top=2)
    execution = Execution("onnxruntime", "fp32", 2, {"spinning": "0"})
    provenance = Provenance("net.onnx", "0" * 64, "quantize(bits=8)", "study-1", versions={"edgewise": "0.1"}, reference=execution, seed=7)
    built = build(
        make_graph(), created=CREATED, version=3, preprocess=preprocess, postprocess=postprocess, execution=execution, provenance=provenance
    )
    built.save(tmp_path / "a.edgew")
    opened = package.open(tmp_path / "a.edgew")
    assert opened.preprocess == preprocess
    assert opened.postprocess == postprocess
    assert opened.labels == ("cat", "dog", "Übel", "日本")
    assert opened.execution == execution
    assert opened.manifest == built.manifest
    assert (opened.manifest.provenance, opened.manifest.version, opened.manifest.created) == (provenance, 3, CREATED)
    assert opened.size_bytes == (tmp_path / "a.edgew").stat().st_size
    assert opened.describe()["content_id"] == built.content_id
    assert opened.encoded.count("日本".encode()) == 1


@pytest.mark.parametrize("coders", ["fast", "all", "none"])
def test_entries_share_the_weights_that_they_have_in_common(coders: Any, make_graph: Callable[..., Graph], tmp_path: Path) -> None:
    big = numpy_helper.from_array(np.arange(1000, dtype=np.float32), "w")
    own = numpy_helper.from_array(np.arange(1000, 2000, dtype=np.float32), "v")
    main, lowered = make_graph(big), make_graph(big, own)
    build(main, created=CREATED, forms={"ov": Form(lowered, "engine", "openvino")}, coders=coders).save(tmp_path / "a.edgew")
    opened = package.open(tmp_path / "a.edgew")
    assert opened.graph("ov").to_bytes() == lowered.to_bytes()
    assert opened.graph().to_bytes() == main.to_bytes()
    alone = build(main, created=CREATED, coders=coders).members["weights"]
    assert opened.members["weights"][: len(alone)] == alone
    assert opened.manifest.entry("ov").tensors[0] == opened.manifest.entry("main").tensors[0]
    assert len(opened.members["weights"]) < 2 * len(alone) + 200
    assert opened.manifest.entry("ov").engine == "openvino"
    with pytest.raises(InvalidPackage, match="main, ov"):
        opened.graph("exit")


def test_equal_weights_of_one_graph_are_kept_apart(make_graph: Callable[..., Graph]) -> None:
    twins = [numpy_helper.from_array(np.ones(100, np.float32), name) for name in ("a", "b")]
    graph = make_graph(*twins)
    built = build(graph, created=CREATED, coders="none")
    assert built.graph().to_bytes() == graph.to_bytes()
    assert len(built.members["weights"]) >= 800
    first, second = build(graph, created=CREATED).manifest.entry("main").tensors
    assert first.offset + first.length <= second.offset


def test_what_json_cannot_hold_is_refused(make_graph: Callable[..., Graph]) -> None:
    with pytest.raises(InvalidPackage, match="null"):
        build(make_graph(), created=CREATED, execution=Execution("onnxruntime", threads=math.nan))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="kind"):
        build(make_graph(), created=CREATED, preprocess={"size": 3})
    with pytest.raises(InvalidInput, match="differ"):
        build(make_graph(), created=CREATED, labels=("a",), postprocess=Classify(("b",)))
    with pytest.raises(InvalidInput, match="main"):
        build(make_graph(), created=CREATED, forms={"main": Form(make_graph(), "part")})


def test_weights_in_another_file_are_refused(make_graph: Callable[..., Graph]) -> None:
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "weights.bin")
    with pytest.raises(InvalidModel, match="another file"):
        build(make_graph(weight), created=CREATED)
