"""The whole file: small, whole again, the same bytes each time, and refused where it is anything else."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from edgewise import backends, coding, package
from edgewise.coding.cursor import varint
from edgewise.data.preprocess import ImagePreprocess
from edgewise.errors import InvalidInput, InvalidModel, InvalidPackage
from edgewise.graph import Graph
from edgewise.package import Form, Limits, Package, build, minimal
from edgewise.package.minimal import layout
from edgewise.testing import graphs
from edgewise.types import Execution

CREATED = "2026-01-01T00:00:00Z"
SIGNATURE = bytes(range(64))


def test_all_but_the_weights_of_lenet_take_under_200_bytes(lenet: Package) -> None:
    """With the signature, and what says where one weight ends and the next begins."""
    file = minimal.with_signature(minimal.encode(lenet), SIGNATURE)
    of_weights = sum(len(coding.encode(numpy_helper.to_array(weight))) for weight in lenet.graph().proto.graph.initializer)
    assert len(file) - of_weights < 200


def test_a_file_is_opened_like_any_other(lenet: Package, tmp_path: Path) -> None:
    lenet.save(tmp_path / "full.edgew")
    lenet.save(tmp_path / "small.edgew", profile="minimal")
    full, small = package.open(tmp_path / "full.edgew"), package.open(tmp_path / "small.edgew")
    assert small.signature == full.signature
    assert small.preprocess == full.preprocess
    assert small.postprocess == full.postprocess
    assert small.labels == full.labels
    assert small.execution is None
    assert small.manifest.version == 3
    assert (small.profile, full.profile) == ("minimal", "full")
    assert small.size_bytes == (tmp_path / "small.edgew").stat().st_size < full.size_bytes / 4
    digits = np.random.default_rng(0).random((5, 1, 28, 28), dtype=np.float32)
    ours, theirs = (backends.load(each.model_bytes(), Execution("onnxruntime")).run({"image": digits}) for each in (small, full))
    np.testing.assert_array_equal(ours["linear_1"], theirs["linear_1"])


def test_a_file_is_said_to_be_what_it_is(lenet: Package) -> None:
    file = minimal.encode(lenet)
    told = minimal.decode(file).describe()
    assert (told["profile"], told["signed"], told["size_bytes"]) == ("minimal", False, len(file))
    assert told["entries"][0]["parameters"] > 0
    assert minimal.decode(minimal.with_signature(file, SIGNATURE)).describe()["signed"]
    assert lenet.describe()["profile"] == "full"


@pytest.mark.parametrize("name", [*graphs.FLOAT, *graphs.QUANTIZED])
def test_encoding_what_was_decoded_gives_the_same_bytes(name: str) -> None:
    made = {**graphs.FLOAT, **graphs.QUANTIZED}[name]()
    execution = Execution("onnxruntime", "fp32", 2, {"intra": "1"})
    first = build(Graph.from_proto(made[0]), created=CREATED, labels=("a", "é", "a b"), execution=execution)
    file = minimal.encode(first)
    found = minimal.decode(file)
    assert found.execution == execution
    assert found.labels == first.labels
    # Through a full package, which knows nothing of the bytes.
    again = build(found.graph(), created=CREATED, labels=found.labels, execution=found.execution)
    assert minimal.encode(again) == file
    assert minimal.encode(first) == file
    assert minimal.encode(found) == file
    assert {weight.raw_data for weight in found.graph().proto.graph.initializer} == {
        numpy_helper.from_array(numpy_helper.to_array(weight)).raw_data for weight in made[0].graph.initializer
    }


def test_profiles_turn_into_each_other(lenet: Package, tmp_path: Path) -> None:
    file = minimal.with_signature(minimal.encode(lenet), SIGNATURE)
    (tmp_path / "a.edgew").write_bytes(file)
    opened = package.open(tmp_path / "a.edgew")
    opened.save(tmp_path / "b.edgew")
    assert (tmp_path / "b.edgew").read_bytes() == file
    opened.save(tmp_path / "c.edgew", profile="full")
    full = package.open(tmp_path / "c.edgew")
    assert full.profile == "full"
    assert full.content_id != opened.content_id
    full.save(tmp_path / "d.edgew", profile="minimal")
    assert (tmp_path / "d.edgew").read_bytes() == minimal.with_signature(file, None)
    with pytest.raises(InvalidInput, match="profile='tiny' isn't known; give 'full' or 'minimal'"):
        opened.save(tmp_path / "e.edgew", profile="tiny")  # type: ignore[arg-type]


def test_a_signature_has_its_place_and_changes_no_content(lenet: Package) -> None:
    plain = minimal.encode(lenet)
    signed = minimal.with_signature(plain, SIGNATURE)
    assert len(signed) == len(plain) + 64
    assert (minimal.signature(plain), minimal.signature(signed)) == (None, SIGNATURE)
    assert minimal.content_id(plain) == minimal.content_id(signed) == bytes.fromhex(minimal.decode(signed).content_id)
    assert minimal.content_id(plain) == hashlib.sha256(plain[: -layout.HASH_BYTES]).digest()
    assert minimal.with_signature(signed, None) == plain
    opened = minimal.decode(signed)
    assert (opened.signature_bytes, opened.size_bytes, minimal.encode(opened)) == (SIGNATURE, len(signed), signed)
    assert minimal.encode(replace(opened, signature_bytes=b"")) == plain
    assert minimal.encode(replace(minimal.decode(plain), signature_bytes=SIGNATURE)) == signed
    assert minimal.with_signature(signed, SIGNATURE[::-1]) == minimal.with_signature(plain, SIGNATURE[::-1])
    with pytest.raises(InvalidInput, match="63 bytes was given; Ed25519's have 64"):
        minimal.with_signature(plain, SIGNATURE[1:])


@pytest.mark.parametrize("signed", [False, True])
def test_every_truncation_and_every_flipped_bit_is_refused(lenet: Package, signed: bool) -> None:
    file = minimal.with_signature(minimal.encode(lenet), SIGNATURE if signed else None)
    for length in range(len(file)):
        with pytest.raises(InvalidPackage):
            minimal.decode(file[:length])
    for at in range(len(file)):
        for bit in range(8):
            with pytest.raises(InvalidPackage):
                minimal.decode(file[:at] + bytes([file[at] ^ 1 << bit]) + file[at + 1 :])
    minimal.decode(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file[:2], "truncated"),
        (lambda file: file[:9], "9 bytes are no whole package"),
        (lambda file: file[:3] + b"\2" + file[4:], "has minimal format 2, and this edgewise reads 1: pip install -U"),
        (lambda file: file[:-1], "altered, damaged or truncated: .*; copy or download it again"),
        (lambda file: file + b"\0", "altered"),
        (lambda file: file[:40] + b"?" + file[41:], "altered"),
        (lambda file: layout.join(layout.Sections(0, b"", b"", False)), "no version"),
        (lambda file: rehashed(file, 4, 0x80), "flags 0x80.*pip install -U"),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[bytes], bytes], message: str, lenet: Package, tmp_path: Path) -> None:
    path = tmp_path / "a.edgew"
    path.write_bytes(change(minimal.encode(lenet)))
    with pytest.raises(InvalidPackage, match=message) as caught:
        package.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def rehashed(file: bytes, at: int, byte: int) -> bytes:
    body = file[:at] + bytes([byte]) + file[at + 1 : -layout.HASH_BYTES]
    return body + hashlib.sha256(body).digest()[: layout.HASH_BYTES]


def test_a_place_for_a_signature_that_is_not_there_is_refused(forge: Callable[..., bytes]) -> None:
    with pytest.raises(InvalidPackage, match="has no place for that"):
        minimal.decode(rehashed(forge(b"\0" * 8), 4, layout.SIGNED))


# An IR version and operator sets; one input "x" of float (4), one output "y" of it; then nodes.
HEAD = bytes([10, 2 * 18, 1, 1, 0x10, 6, 1, 3, 0x10, 6])
RELU = bytes([1 + 1, 1 | 1 << 6])
END = bytes([2])  # the output is what was made last
PLAIN = bytes([0])  # no metadata


def test_a_file_by_hand(forge: Callable[..., bytes]) -> None:
    found = minimal.decode(forge(HEAD + b"\1" + RELU + END + PLAIN)).graph().proto
    assert [(node.op_type, list(node.input), list(node.output)) for node in found.graph.node] == [("Relu", ["x"], ["y"])]


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (b"", "ends too early"),
        (HEAD + b"\0" + bytes([3]) + PLAIN, "2 back is meant where 1 have been made"),
        (HEAD + b"\1" + RELU + bytes([2 + 9]) + PLAIN, "10 back is meant where 2 have been made"),
        (HEAD + b"\1" + bytes([2, 1, 2 + 1]) + END + PLAIN, "2 back is meant where 1 have been made"),
        (HEAD + b"\1" + RELU + b"\0" + PLAIN, "0 outputs are made of 1"),
        (HEAD + b"\0" + END + PLAIN, "one value has the names 'x' and 'y'"),
        (HEAD + b"\1" + RELU + END + b"\x20", "unknown flags 0x20"),
        (HEAD + b"\1" + RELU + END + PLAIN + b"\0", "behind its end"),
        (HEAD + b"\1" + varint(200) + END + PLAIN, "where at most 173 can be"),
        (HEAD + varint(2**40) + RELU + END + PLAIN, "where at most"),
        (HEAD + b"\1" + bytes([2, 1 | 1 << 6 | 1 << 3]) + varint(2 * 72 + 1), "attributes 145 aren't known"),
        (HEAD + b"\1" + bytes([2, 1 | 1 << 6 | 1 << 3]) + varint(2 * 80 + 2), "attribute 162 isn't known"),
        (HEAD + b"\1" + bytes([2, 1 | 1 << 6 | 1 << 3, 0, 2]) + b"a" + b"\5", "unknown type 5"),
        (HEAD + b"\1" + bytes([2, 1 | 1 << 6 | 2 << 3, 1, 1]) + END + PLAIN, "an attribute twice"),
        (HEAD + b"\1" + bytes([2, 1 | 1 << 6 | 1 << 3, 2 * 4 + 2]) + varint(2**65) + END + PLAIN, "over 64 bits"),
        (HEAD + b"\1" + bytes([2, 1 | 1 << 6 | 1 << 7, 1, 2]) + END + PLAIN, "neither there nor left out"),
        (HEAD + b"\1" + bytes([2, 2 | 1 << 6]) + END + bytes([14 << 4 | 15, 8]) + PLAIN, "unknown dtype 8"),
        (HEAD + b"\1" + bytes([2, 2 | 1 << 6]) + END + bytes([0xF0, 33]) + PLAIN, "33 axes, over 32"),
        (HEAD + b"\1" + bytes([2, 2 | 1 << 6]) + END + bytes([0x20, 0]) + varint(2**50) + PLAIN, "unfolds to over 4,194,304 bytes"),
        (
            HEAD + b"\1" + bytes([2, 2 | 1 << 6]) + END + bytes([0x10]) + varint(2**22) + PLAIN,
            "unfolds to over.*raise Limits.minimal_bytes",
        ),
        (HEAD + b"\1" + bytes([2, 7 | 1 << 6]) + varint(65_537) + END, "where at most 65,536 can be"),
        (bytes([10, 2 * 18 + 1, 1, 0, 0]), "operator set twice"),
        (bytes([10, 2 * 18, 2, 1, 0, 1, 0]) + HEAD[6:] + b"\1" + RELU + END + PLAIN, "have the same name"),
        (bytes([10, 2 * 18, 1, 1, 0x1F]) + varint(99) + b"\6" + HEAD[6:] + b"\1" + RELU + END + PLAIN, "unknown element type 99"),
        (HEAD + b"\1" + RELU + END + b"\1" + b"\0\0" + b"\0", "behind its end"),
        (HEAD + b"\1" + RELU + END + b"\4" + bytes([3]) + b"\4\0", "execution is none"),
        (HEAD + b"\1" + RELU + END + bytes([1 << 3]) + varint(70_000), "at most 65,536"),
    ],
)
def test_forged_structures_are_refused(structure: bytes, message: str, forge: Callable[..., bytes]) -> None:
    with pytest.raises(InvalidPackage, match=message):
        minimal.decode(forge(structure))


def test_a_weight_that_nothing_holds_is_refused(forge: Callable[..., bytes]) -> None:
    structure = HEAD + b"\1" + bytes([2, 2 | 1 << 6]) + END + bytes([0x10, 4]) + PLAIN
    assert minimal.decode(forge(structure, b"\1\0")).graph().proto.graph.initializer[0].raw_data == bytes(16)
    with pytest.raises(InvalidPackage, match="ends too early"):
        minimal.decode(forge(structure))
    with pytest.raises(InvalidPackage, match="behind its end"):
        minimal.decode(forge(HEAD + b"\1" + RELU + END + PLAIN, b"\1\0"))


def test_bytes_that_stand_for_much_are_counted_as_much(forge: Callable[..., bytes]) -> None:
    """A node of 60 kB and 100,000 bytes that repeat it; a structure and a weight that unfold to gigabytes."""
    large = bytes([2, 1 | 1 << 6 | 1 << 3, 0, 2]) + b"a" + b"\3" + varint(2 * 60_000) + bytes(60_000)
    many = HEAD + varint(100_001) + large + bytes(100_000) + END + PLAIN
    zeros = HEAD + b"\1" + bytes([2, 2 | 1 << 6]) + END + bytes([0x10]) + varint(2**30) + PLAIN
    tracemalloc.start()
    for file in (
        forge(many),
        forge(varint(2**40) + b"\1\0", coded=True),
        forge(varint(2**23) + b"\1\0", coded=True),
        forge(zeros, b"\1\0"),
    ):
        with pytest.raises(InvalidPackage):
            minimal.decode(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_limits_hold(lenet: Package, tmp_path: Path) -> None:
    file = minimal.encode(lenet)
    with pytest.raises(InvalidPackage, match=r"over 100; raise Limits\.minimal_bytes"):
        minimal.decode(file, limits=Limits(minimal_bytes=100))
    with pytest.raises(InvalidPackage, match=r"unfolds to over 5,000 bytes; raise Limits\.minimal_bytes"):
        minimal.decode(file, limits=Limits(minimal_bytes=5000))
    with pytest.raises(InvalidPackage, match=r"9 weights, over 8; raise Limits\.tensors"):
        minimal.decode(file, limits=Limits(tensors=8))
    with pytest.raises(InvalidInput, match=r"over 5,000 bytes, and this profile.*profile='full'"):
        minimal.encode(lenet, limits=Limits(minimal_bytes=5000))
    path = tmp_path / "long.edgew"
    path.write_bytes(layout.MAGIC + b"\1")
    os.truncate(path, 2**31)
    with pytest.raises(InvalidPackage, match="over 4,194,304"):
        package.open(path)


def test_what_the_profile_has_no_place_for_is_refused(lenet: Package) -> None:
    graph = lenet.graph()
    with pytest.raises(InvalidInput, match="holds one graph, and this package also lowered; save it with profile='full'"):
        minimal.encode(build(graph, created=CREATED, forms={"lowered": Form(graph, "engine", "onnxruntime")}))
    proto = graph.copy_proto()
    proto.functions.add(name="f", domain="d")
    with pytest.raises(InvalidModel, match="no place for functions; save it with profile='full'"):
        minimal.encode(build(Graph.from_proto(proto), created=CREATED))
    with pytest.raises(InvalidInput, match="'image' lacks mean, std"):
        minimal.encode(build(graph, created=CREATED, preprocess={"kind": "image", "size": [28, 28]}))


def test_kinds_of_a_later_release_are_kept(lenet: Package) -> None:
    preprocess: dict[str, Any] = {"kind": "spectrogram", "bins": 40, "window": [0.5, -1.0], "of": {"what": None}}
    first = build(lenet.graph(), created=CREATED, preprocess=preprocess)
    found = minimal.decode(minimal.encode(first))
    assert found.manifest.preprocess == preprocess
    with pytest.raises(InvalidPackage, match="knows image, text: update it"):
        _ = found.preprocess


def test_a_preprocessing_that_is_none_is_told_when_it_is_used(forge: Callable[..., bytes]) -> None:
    """As in a full package: the model can still be looked at."""
    record = b"\2\1" + bytes([0b1111, 0 | 2, 2, 2, 2 * 4])
    opened = minimal.decode(forge(HEAD + b"\1" + RELU + END + b"\1" + bytes([2 * 5]) + b"image" + record[2:]))
    with pytest.raises(InvalidPackage, match="its preprocessing is wrong"):
        _ = opened.preprocess


def test_defaults_are_the_formats_own(lenet: Package) -> None:
    wide = ImagePreprocess((96, 64), 3, (1.0, 2.0, 3.0), (0.1, 0.2, 0.3), 1.0, "crop", 0.875, "bicubic", "NHWC")
    found = minimal.decode(minimal.encode(build(lenet.graph(), created=CREATED, preprocess=wide)))
    assert found.preprocess == wide
