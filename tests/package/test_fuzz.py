"""Whatever the bytes are, the only error is InvalidPackage."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings

from edgewise import package
from edgewise.errors import InvalidPackage
from edgewise.package import layout

Write = Callable[[bytes], Path]
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def try_all(path: Path) -> None:
    with contextlib.suppress(InvalidPackage):
        opened = package.open(path)
        for use in (opened.graph, opened.model_bytes, lambda: opened.preprocess, lambda: opened.postprocess, opened.describe):
            with contextlib.suppress(InvalidPackage):
                use()


@given(data=st.binary(max_size=600))
@settings(relaxed, max_examples=150)
def test_random_bytes(data: bytes, written: Write) -> None:
    try_all(written(data))
    try_all(written(layout.MAGIC + data))


@given(data=st.data())
@settings(relaxed, max_examples=350)
def test_manifests_with_something_else_somewhere(
    data: st.DataObject, take_apart: Any, small: package.Package, small_coded: package.Package, written: Write, somewhere_else: Any
) -> None:
    parts = take_apart(data.draw(st.sampled_from([small, small_coded])))
    bytes_before = parts.data()
    manifest = copy.deepcopy(parts.manifest)
    for _ in range(data.draw(st.integers(1, 3))):
        somewhere_else(data, manifest)
    parts.manifest = manifest
    parts.data = lambda: bytes_before
    try_all(written(parts.file()))


@given(at=st.integers(0, 10_000), length=st.integers(0, 8), by=st.binary(max_size=8))
@settings(relaxed, max_examples=300)
def test_graphs_with_other_bytes_somewhere(
    at: int, length: int, by: bytes, take_apart: Any, small: package.Package, written: Write
) -> None:
    parts = take_apart(small)
    graph = parts.members["graphs/0.onnx"]
    at %= len(graph)
    parts.replace("graphs/0.onnx", graph[:at] + by + graph[at + length :])
    try_all(written(parts.file()))


@given(shape=st.lists(st.integers(0, 40), max_size=4), dtype=st.sampled_from(sorted(package.manifest.BITS)), name=st.sampled_from("wv"))
@settings(relaxed, max_examples=200)
def test_coded_tensors_of_another_shape_or_dtype(
    shape: list[int], dtype: str, name: str, take_apart: Any, small_coded: package.Package, written: Write
) -> None:
    """Graph and manifest agree; only the coded bytes are of something else."""
    parts = take_apart(small_coded)
    plain = onnx.ModelProto.FromString(small_coded.member(small_coded.manifest.members[0]))
    row = next(row for row in parts.manifest["entries"][0]["tensors"] if row["name"] == name)
    tensor = next(tensor for tensor in plain.graph.initializer if tensor.name == name)
    row.update(shape=shape, dtype=dtype)
    tensor.dims[:] = shape
    tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    parts.manifest["members"][0].update(coding="raw", size=None)
    parts.replace("graphs/0.onnx", plain.SerializeToString())
    try_all(written(parts.file()))
