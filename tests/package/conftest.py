"""Small packages, whole and forged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgewise.graph import Graph
from edgewise.package import Package, build, layout
from edgewise.package.manifest import aligned

CREATED = "2026-01-01T00:00:00Z"


def model_of(*weights: onnx.TensorProto) -> onnx.ModelProto:
    """x + 1 -> y, with `weights` lying beside it: what a package has to keep, whatever its dtype."""
    one = numpy_helper.from_array(np.float32(1), "one")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["y"], name="add")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [one, *weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="test")


def graph_of(*weights: onnx.TensorProto) -> Graph:
    return Graph.from_proto(model_of(*weights))


def forged(manifest: Any, data: bytes, *, file_bytes: int | None = None, manifest_bytes: int | None = None) -> bytes:
    """A file with every hash right, around any manifest (JSON data or bytes) and any members' bytes."""
    encoded = manifest if isinstance(manifest, bytes) else msgspec.json.encode(manifest)
    start = aligned(layout.PREAMBLE_BYTES + len(encoded))
    head = layout.HEAD.pack(
        layout.MAGIC, layout.MAJOR, layout.MINOR, manifest_bytes if manifest_bytes is not None else len(encoded),
        file_bytes if file_bytes is not None else start + len(data), 0, 0,
    )  # fmt: skip
    body = head + layout.content_id(head, encoded) + bytes(layout.SIGNATURE_BYTES) + encoded
    return body + bytes(start - len(body)) + data


class Parts:
    """A package taken apart, to be changed and forged anew."""

    def __init__(self, package: Package) -> None:
        self.manifest: dict[str, Any] = msgspec.json.decode(package.encoded)
        self.members = {name: bytes(data) for name, data in package.members.items()}

    def data(self) -> bytes:
        data = b""
        for member in self.manifest["members"]:
            data += bytes(max(0, member["offset"] - len(data))) + self.members.get(member["name"], b"")
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Put other bytes in a member, with its hash, its length and the offsets after it made right."""
        self.members[name] = data
        end = 0
        for member in self.manifest["members"]:
            content = self.members[member["name"]]
            member.update(offset=aligned(end), length=len(content), sha256=hashlib.sha256(content).hexdigest())
            end = member["offset"] + len(content)

    def file(self) -> bytes:
        return forged(self.manifest, self.data())


@pytest.fixture
def small() -> Package:
    """About 1.3 kB, with one weight outside the graph, nothing coded."""
    weight = numpy_helper.from_array(np.arange(8, dtype=np.int8).reshape(2, 4), "w")
    return build(graph_of(weight), created=CREATED, take_out_bytes=8, coders="none")


@pytest.fixture
def small_coded() -> Package:
    """Two coded weights, and a coded graph (a text in it is long enough)."""
    random = np.random.default_rng(0)
    whole = np.rint(random.normal(0, 2, (12, 20))).astype(np.int8)
    weights = [
        numpy_helper.from_array(whole, "w"),
        numpy_helper.from_array(whole.astype(np.float32) * np.float32(0.5) + np.float32(0), "v"),
    ]
    proto = model_of(*weights)
    proto.doc_string = "a text that says one thing again and again; " * 9
    return build(Graph.from_proto(proto), created=CREATED, take_out_bytes=8)


@pytest.fixture
def parts(small: Package) -> Parts:
    return Parts(small)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "forged.edgew"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def make_graph() -> Callable[..., Graph]:
    return graph_of


@pytest.fixture
def make_forged() -> Callable[..., bytes]:
    return forged


@pytest.fixture
def take_apart() -> Callable[[Package], Parts]:
    return Parts


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
any_json = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8
)


@pytest.fixture(scope="session")
def somewhere_else() -> Callable[[st.DataObject, Any], None]:
    """Puts anything that JSON has at one place of a manifest."""

    def put(data: st.DataObject, manifest: Any) -> None:
        here = manifest
        while keys := list(here) if isinstance(here, dict) else list(range(len(here))):
            key = data.draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and data.draw(st.integers(0, 4)):
                here = here[key]
                continue
            here[key] = data.draw(any_json)
            return

    return put
