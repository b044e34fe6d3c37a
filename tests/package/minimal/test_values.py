"""Texts, metadata and records: every value comes back as what it was, in few bytes."""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from edgewise.coding.cursor import Cursor, varint
from edgewise.data.postprocess import Classify
from edgewise.data.preprocess import ImagePreprocess
from edgewise.errors import InvalidInput
from edgewise.package.minimal import tables
from edgewise.package.minimal.values import data, read_data, read_record, read_text, read_value, record, text, value
from edgewise.types import Execution

leaves = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
    | st.sampled_from(tables.WORDS) | st.decimals(-1000, 1000, places=3).map(float)
)  # fmt: skip
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5), max_leaves=12
)


def bits(content: Any) -> Any:
    """`content` with each float as its bytes, for 0.0 equals -0.0, and each number with its type, for 1 equals True."""
    if isinstance(content, dict):
        return {key: bits(each) for key, each in content.items()}
    if isinstance(content, list):
        return [bits(each) for each in content]
    return (type(content), struct.pack("<d", content) if isinstance(content, float) else content)


@given(content=anything)
@settings(deadline=None)
def test_values_come_back(content: Any) -> None:
    coded = value(content)
    cursor = Cursor(coded)
    found = read_value(cursor)
    cursor.end()
    assert bits(found) == bits(content)
    assert value(found) == coded


@given(content=st.binary(max_size=40) | st.sampled_from(tables.WORDS).map(str.encode))
def test_texts_come_back(content: bytes) -> None:
    cursor = Cursor(data(content))
    assert read_data(cursor) == content
    cursor.end()


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (28, 1),
        (31, 1),
        (224, 2),
        (-1, 2),
        (0.1307, 4),
        (0.5, 3),
        (1e-5, 3),
        (127.0, 4),
        (math.pi, 9),
        ("bilinear", 2),
        ("é", 4),
        ([28, 28], 3),
    ],
)
def test_bytes_of_usual_values(content: Any, size: int) -> None:
    assert len(value(content)) == size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (math.nan, "finite"),
        (math.inf, "finite"),
        (2**64, "over 64 bits"),
        ("\ud800", "no Unicode"),
        ({1: 2}, "what JSON has"),
        (b"", "what JSON has"),
        (__import__("functools").reduce(lambda inner, _: [inner], range(16), 0), "over 16 deep"),
    ],
)
def test_what_is_no_metadata_is_refused(content: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        value(content)


@pytest.mark.parametrize(
    ("coded", "message"),
    [
        (b"", "ends too early"),
        (varint(4 * len(tables.WORDS) + 1), "isn't known"),
        (varint(4 * 4 + 3) + varint(2 * 10**6) + b"a", "ends too early"),
        (varint(4 * 2**40 + 2), "should follow"),
        (varint(4 * 5 + 3) + varint(2**40), "should follow"),
        (varint(4 * 5 + 3) + varint(2) + (text("x") + value(1)) * 2, "twice"),
        (varint(4 * 9 + 3), "unknown kind 9"),
        (varint(4 * 6 + 3) + varint(2) + varint(10**6), "exponent"),
        (varint(4 * 6 + 3) + varint(2 * 10**18) + varint(2 * 399), "isn't finite"),
        (varint(4 * 8 + 3) + struct.pack("<d", math.nan), "isn't finite"),
        (varint(4 * 4 + 3) + varint(2) + b"\xff", "no UTF-8"),
        (varint(4 * 1 + 2) * 40 + b"\0", "over 16 deep"),
        (b"\xff" * 12, "over 70 bits"),
        (b"\x80\0", "damaged"),
    ],
)
def test_damage_is_told(coded: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_value(Cursor(coded))


def test_texts_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no UTF-8"):
        read_text(Cursor(varint(2) + b"\xff"))


@pytest.mark.parametrize(
    ("kind", "fields", "size"),
    [
        ("image", {"size": [28, 28], "mean": [0.1307], "std": [0.3081]}, 14),
        ("image", {"size": [32, 32], "mean": [1.0, 2.0, 3.0], "std": [0.5, 0.5, 0.5], "channels": 3, "layout": "NHWC"}, 30),
        ("classify", {"top": 5, "output": "logits"}, 1),
        ("classify", {"top": 1, "output": "logits"}, 2),
        ("execution", {"backend": "onnxruntime"}, 3),
        ("classify", {"top": 5.0, "output": "logits", "theirs": {"a": None}}, 18),
        ("their own", {"anything": [1, 2]}, 15),
    ],
)
def test_records_say_what_differs_from_the_formats_defaults(kind: str, fields: dict[str, Any], size: int) -> None:
    coded = record(kind, fields)
    assert len(coded) == size
    cursor = Cursor(coded)
    found = read_record(cursor, kind)
    cursor.end()
    defaults = {name: each for name, each in tables.RECORDS.get(kind, {}).items() if each is not ...}
    assert bits(found) == bits({**defaults, **fields})
    assert record(kind, found) == coded


def test_a_record_that_lacks_something_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'image' lacks mean, std"):
        record("image", {"size": [1, 1]})
    with pytest.raises(InvalidInput, match="'image' lacks its mean"):
        read_record(Cursor(varint(1) + value([1, 1])), "image")
    with pytest.raises(InvalidInput, match="fields that are none"):
        read_record(Cursor(varint(4) + value({"top": 1})), "classify")
    with pytest.raises(InvalidInput, match="at most 7 can be"):
        read_record(Cursor(varint(8)), "classify")


@pytest.mark.parametrize(
    ("kind", "noun", "left_out"),
    [("image", ImagePreprocess, {"kind"}), ("classify", Classify, {"kind", "labels"}), ("execution", Execution, set())],
)
def test_the_formats_records_are_the_nouns_today(kind: str, noun: type, left_out: set[str]) -> None:
    """A field that a noun gains still goes into the file, by its name; a default that changes there changes nothing in old files."""
    assert {field.name for field in dataclasses.fields(noun)} - left_out == set(tables.RECORDS[kind])
    for field in dataclasses.fields(noun):
        default = tables.RECORDS[kind].get(field.name, ...)
        if field.default is not dataclasses.MISSING and default is not ...:
            assert field.default == default


def test_tables_name_nothing_twice() -> None:
    for table in (tables.OPERATORS, tables.WORDS, tables.NAMES, [tuple(sorted(entry.items())) for entry in tables.SETS]):
        assert len(set(table)) == len(table)


def test_tables_only_grow() -> None:
    """What stands in files already: an entry's number is its place. New ones go behind; then, and only then, may these figures change."""
    assert (len(tables.OPERATORS), len(tables.WORDS), len(tables.SETS), len(tables.NAMES)) == (173, 99, 72, 80)
    assert [tables.OPERATORS.index(name) for name in ("Conv", "Gemm", "ReduceMax", "Xor")] == [0, 3, 44, 172]
    assert [tables.WORDS.index(word) for word in ("x", "logits", "fp32", "mul")] == [0, 7, 47, 98]
    assert [tables.NAMES.index(("alpha", "f")), tables.NAMES.index(("upper", "i"))] == [9, 79]
    assert tables.SETS[5] == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    assert tables.SETS[-1] == {"start": 0}
