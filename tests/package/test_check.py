"""Forged manifests, every hash right: refused by what they say."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewise import package
from edgewise.errors import InvalidPackage

Write = Callable[[bytes], Path]


def set_at(plain: Any, path: str, value: Any) -> None:
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        plain = plain[step]
    plain[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("members.0.name", "../../etc/passwd", "member name"),
        ("members.0.name", "/etc/passwd", "member name"),
        ("members.0.name", "a/../b", "member name"),
        ("members.0.name", "a\\..\\b", "member name"),
        ("members.0.name", "C:evil", "member name"),
        ("members.0.name", "a//b", "member name"),
        ("members.0.name", "a\x00b", "member name"),
        ("members.0.name", "a\n", "member name"),
        ("members.0.name", ".hidden", "member name"),
        ("members.0.name", "a" * 129, "member name"),
        ("members.0.name", "", "length >= 1"),
        ("members.0.name", "weights", "member name 'weights' stands there twice"),
        ("members.0.name", "else", "in the member 'graphs/0.onnx', which isn't there"),
        ("members.1.offset", 0, "without overlap or gap"),
        ("members.1.offset", 2**40, "without overlap or gap"),
        ("members.1.offset", -64, ">= 0"),
        ("members.1.offset", 2**63, r"members\[1\].offset"),
        ("members.1.offset", 10**30, r"members\[1\].offset"),
        ("members.1.length", 2**50, "its members end at"),
        ("members.1.length", 2**53 + 1, r"members\[1\].length"),
        ("members.1.length", 7, r"ends at 8 of a member of 7 bytes"),
        ("members.1.length", -1, ">= 0"),
        ("members.1.length", 8.5, "got `float`"),
        ("members.1.length", "8", "got `str`"),
        ("members.1.length", None, "got `null`"),
        ("members.1.coding", "zip", "unknown coding 'zip'; update edgewise"),
        ("members.1.coding", "lzma", "of the size None"),
        ("members.1.size", 8, "only coded ones have a size"),
        ("members.1.size", -1, ">= 0"),
        ("members.1.sha256", "00", "regex"),
        ("members.1.sha256", "0" * 64, "doesn't match its SHA-256"),
        ("members", [], "isn't there"),
        ("entries", [], '"main"'),
        ("entries.0.name", "other", '"main"'),
        ("entries.0.member", "weights2", "isn't there"),
        ("entries.0.tensors.0.dtype", "float23", "unknown dtype 'float23'"),
        ("entries.0.tensors.0.dtype", "float64", "takes '64'"),
        ("entries.0.tensors.0.coding", "rans", "unknown coding 'rans'; update edgewise"),
        ("entries.0.tensors.0.coding", "coded", "8 bytes, and raw would take '8'"),
        ("entries.0.tensors.0.shape", [2, 5], "8 bytes, and int8"),
        ("entries.0.tensors.0.shape", [2**53] * 33, "33 axes, over 32"),
        ("entries.0.tensors.0.shape", [2**53] * 32, "unfolds|takes"),
        ("entries.0.tensors.0.shape", [-2, -4], ">= 0"),
        ("entries.0.tensors.0.member", "none", "isn't there"),
        ("entries.0.tensors.0.offset", 2**53, "ends at"),
        ("entries.0.tensors.0.offset", 1, "ends at 9 of a member of 8 bytes"),
        ("entries.0.tensors.0.length", 2**53, "ends at"),
        ("version", 0, ">= 1"),
        ("version", -1, ">= 1"),
        ("created", "x" * 70_000, "length <= 65536"),
    ],
)
def test_forged_manifests_are_refused(path: str, value: Any, message: str, parts: Any, written: Write) -> None:
    data = parts.data()
    set_at(parts.manifest, path, value)
    from_parts = written(parts_file(parts, data))
    with pytest.raises(InvalidPackage, match=message):
        package.open(from_parts)


def parts_file(parts: Any, data: bytes) -> bytes:
    kept = parts.data
    parts.data = lambda: data
    try:
        return parts.file()
    finally:
        parts.data = kept


def test_doubled_names_are_refused(parts: Any, written: Write) -> None:
    entry = parts.manifest["entries"][0]
    entry["tensors"] *= 2
    with pytest.raises(InvalidPackage, match="tensor name 'w' stands there twice"):
        package.open(written(parts.file()))
    entry["tensors"][1] = {**entry["tensors"][0], "name": "w2"}
    with pytest.raises(InvalidPackage, match="'w' and 'w2' overlap"):
        package.open(written(parts.file()))
    entry["tensors"] = entry["tensors"][:1]
    parts.manifest["entries"] *= 2
    with pytest.raises(InvalidPackage, match="entry name 'main' stands there twice"):
        package.open(written(parts.file()))


def test_padding_has_to_be_zero(parts: Any, written: Write) -> None:
    data = bytearray(parts.data())
    graph, weights = parts.manifest["members"]
    assert graph["length"] < weights["offset"]
    data[weights["offset"] - 1] = 1
    with pytest.raises(InvalidPackage, match="before the member weights, where there should be zeros"):
        package.open(written(parts_file(parts, bytes(data))))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"", "can't be read"),
        (b"{}", "missing required field"),
        (b"[]", "Expected `object`"),
        (b"\xff\xfe", "can't be read"),
        (b'{"a":"\xff"}', "can't be read"),
        (b'{"a":NaN}', "can't be read"),
        (b'{"a":1}{}', "can't be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"preprocess":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b"1" * 1_000_000, "can't be read|Expected"),
        (b'{"a":1e999}', "can't be read"),
    ],
)
def test_json_that_is_no_manifest(manifest: bytes, message: str, make_forged: Callable[..., bytes], written: Write) -> None:
    with pytest.raises(InvalidPackage, match=message):
        package.open(written(make_forged(manifest, b"")))


def test_a_doubled_key_is_refused(small: package.Package, parts: Any, make_forged: Callable[..., bytes], written: Write) -> None:
    for encoded in (
        small.encoded.replace(b'"version":1', b'"version":1,"version":2'),
        small.encoded.replace(b'"version":1', b'"version": 1'),
        small.encoded + b"\n",
    ):
        with pytest.raises(InvalidPackage, match="canonical"):
            package.open(written(make_forged(encoded, parts.data())))


@pytest.mark.parametrize(
    "manifest",
    [
        b'{"preprocess":[' + b"[]," * (4 * 2**20 // 3 - 20) + b"[]]}",
        b'{"created":"' + b"x" * (4 * 2**20 - 20) + b'"}',
        b'{"members":[' + b"{}," * (4 * 2**20 // 3 - 20) + b"{}]}",
        b"[" * (4 * 2**20 - 1),
        b"1" * (4 * 2**20 - 1),
    ],
)
def test_the_largest_manifests_take_bounded_memory_and_time(manifest: bytes, make_forged: Callable[..., bytes], written: Write) -> None:
    path = written(make_forged(manifest, b""))
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(InvalidPackage):
        package.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20
    assert time.process_time() - started < 10


def test_many_doubled_names_take_bounded_time(parts: Any, written: Write) -> None:
    row = parts.manifest["entries"][0]["tensors"][0]
    parts.manifest["entries"][0]["tensors"] = [{**row, "name": f"{i}"} for i in range(25_000)] + [{**row, "name": "24999"}]
    started = time.process_time()
    with pytest.raises(InvalidPackage, match="'24999' stands there twice"):
        package.open(written(parts.file()))
    assert time.process_time() - started < 10


@pytest.mark.parametrize("claim", [0, 1, 2**20, 2**31, 2**32 - 1])
def test_a_claimed_manifest_length_allocates_nothing(claim: int, parts: Any, make_forged: Callable[..., bytes], written: Write) -> None:
    path = written(make_forged(parts.manifest, parts.data(), manifest_bytes=claim))
    tracemalloc.start()
    with pytest.raises(InvalidPackage):
        package.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
