"""Whatever the bytes are, and though every hash be right: InvalidPackage, or a package like any other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from edgewise.errors import InvalidInput, InvalidModel, InvalidPackage
from edgewise.package import Limits, Package, minimal
from edgewise.package.minimal import graphs, layout, metadata, net, streams

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Small, so that a forged length costs a test no time.
LIMITS = Limits(minimal_bytes=2**17)


def try_all(file: bytes) -> None:
    try:
        opened = minimal.decode(file, limits=LIMITS)
    except InvalidPackage as error:
        assert "\n" not in str(error)
        return
    graph = opened.graph()
    assert len(opened.model_bytes()) > 0
    for use in (lambda: opened.preprocess, lambda: opened.postprocess, opened.describe):
        try:
            use()
        except InvalidPackage:
            continue
    # It was read, so it can be written, as the same net; not as the same bytes, for a forger may take a longer way.
    try:
        again = minimal.decode(minimal.encode(minimal.full(opened)))
    except (InvalidInput, InvalidModel) as error:
        raise AssertionError("it was read and can't be written") from error
    assert again.graph().proto == graph.proto
    assert again.manifest.preprocess == opened.manifest.preprocess


@cache
def stored(package: Package) -> bytes:
    return streams.encode(net.of(package.graph().proto).weights)


def changed(data: bytes, draw: st.DataObject) -> bytes:
    at = draw.draw(st.integers(0, len(data)))
    kind = draw.draw(st.sampled_from(["flip", "cut", "insert", "repeat", "large"]))
    if kind == "flip" and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << draw.draw(st.integers(0, 7))]) + data[at + 1 :]
    if kind == "cut":
        return data[:at] + data[at + draw.draw(st.integers(0, 5)) :]
    if kind == "repeat":
        return data[:at] + data[max(0, at - 8) : at] * draw.draw(st.integers(1, 4)) + data[at:]
    return data[:at] + (b"\xff\xff\xff\x7f" if kind == "large" else draw.draw(st.binary(max_size=4))) + data[at:]


@given(data=st.binary(max_size=200))
@settings(relaxed, max_examples=100)
def test_random_bytes(data: bytes) -> None:
    try_all(data)
    try_all(layout.MAGIC + b"\1" + data)


@given(structure=st.binary(max_size=80), weights=st.binary(max_size=20), coded=st.booleans())
@settings(relaxed, max_examples=200)
def test_random_structures(structure: bytes, weights: bytes, coded: bool, forge: Callable[..., bytes]) -> None:
    try_all(forge(structure, weights, coded=coded))
    try_all(forge(bytes([10, 36, 1, 1, 0x10, 6, 1, 3, 0x10, 6]) + structure, weights))


@given(data=st.data())
@settings(relaxed, max_examples=80)
def test_real_files_with_something_else_somewhere(data: st.DataObject, lenet: Package, forge: Callable[..., bytes]) -> None:
    # The structure as it is before it is coded, so that changes reach what reads it.
    structure = graphs.encode(net.of(lenet.graph().proto)) + metadata.encode(lenet.manifest)
    weights = stored(lenet)
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            structure = changed(structure, data)
        else:
            weights = changed(weights, data)
    try_all(forge(structure, weights))
