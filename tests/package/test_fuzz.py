"""Whatever the bytes are, the only error is InvalidPackage."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from edgewise import package
from edgewise.errors import InvalidPackage
from edgewise.package import layout

Write = Callable[[bytes], Path]
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
any_json = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8
)


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
@settings(relaxed, max_examples=250)
def test_manifests_with_something_else_somewhere(data: st.DataObject, take_apart: Any, small: package.Package, written: Write) -> None:
    parts = take_apart(small)
    bytes_before = parts.data()
    manifest = copy.deepcopy(parts.manifest)
    for _ in range(data.draw(st.integers(1, 3))):
        here = manifest
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and data.draw(st.integers(0, 4)):
                here = here[key]
                continue
            here[key] = data.draw(any_json)
            break
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
