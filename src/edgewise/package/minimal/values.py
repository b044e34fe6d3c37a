"""Small pieces of the minimal profile: texts, values as JSON has them, records with fixed fields. docs/format.md shows their bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from edgewise.coding.cursor import Cursor, signed, varint
from edgewise.errors import InvalidInput
from edgewise.package.minimal.tables import RECORDS, WORDS

_NUMBER_OF = {word: number for number, word in enumerate(WORDS)}
DEPTH = 16

# The two lowest bits of a value's first number say what it is; the bits above are the number, the word's, the list's length, or a kind.
_INT, _WORD, _LIST, _OTHER = range(4)
_NULL, _FALSE, _TRUE, _NEGATIVE, _TEXT, _MAP, _DECIMAL, _FLOAT32, _FLOAT64 = range(9)


def data(content: bytes) -> bytes:
    """Bytes, usually a text: a number of `tables.WORDS`, or how many there are, and they."""
    try:
        number = _NUMBER_OF.get(content.decode("ascii"))
    except UnicodeDecodeError:
        number = None
    return varint(2 * number + 1) if number is not None else varint(2 * len(content)) + content


def read_data(cursor: Cursor) -> bytes:
    number = cursor.varint()
    if number & 1:
        return _word(number >> 1).encode()
    return bytes(cursor.bytes(number >> 1))


def text(content: str) -> bytes:
    try:
        return data(content.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the text {content[:80]!r} is no Unicode; give one that is") from error


def read_text(cursor: Cursor) -> str:
    try:
        return read_data(cursor).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("a text is no UTF-8") from error


def value(content: Any, depth: int = DEPTH) -> bytes:
    """`content`: None, bool, int, float, str, list, tuple or dict with texts as keys. Raises InvalidInput for what is none of them."""
    if depth == 0:
        raise InvalidInput(f"metadata is nested over {DEPTH} deep; make it flatter")
    if content is None or isinstance(content, bool):
        return _other(_NULL if content is None else _TRUE if content else _FALSE)
    if isinstance(content, int):
        if not -(2**63) <= content < 2**64:
            raise InvalidInput(f"metadata has the number {content}, which takes over 64 bits; give a smaller one")
        return varint(4 * content + _INT) if content >= 0 else _other(_NEGATIVE) + varint(-content - 1)
    if isinstance(content, float):
        return _float(content)
    if isinstance(content, str):
        number = _NUMBER_OF.get(content)
        return varint(4 * number + _WORD) if number is not None else _other(_TEXT) + text(content)
    if isinstance(content, list | tuple):
        return varint(4 * len(content) + _LIST) + b"".join(value(each, depth - 1) for each in content)
    if isinstance(content, Mapping) and all(isinstance(key, str) for key in content):
        pairs = (text(key) + value(each, depth - 1) for key, each in sorted(content.items()))
        return _other(_MAP) + varint(len(content)) + b"".join(pairs)
    raise InvalidInput(f"metadata has {content!r:.80}; give what JSON has")


def read_value(cursor: Cursor, depth: int = DEPTH) -> Any:
    """What `value` was given, tuples as lists."""
    if depth == 0:
        raise InvalidInput(f"metadata is nested over {DEPTH} deep")
    number = cursor.varint()
    what, number = number & 3, number >> 2
    if what == _INT:
        return number
    if what == _WORD:
        return _word(number)
    if what == _LIST:
        # A value takes a byte at least.
        _enough(cursor, number)
        return [read_value(cursor, depth - 1) for _ in range(number)]
    if number in (_NULL, _FALSE, _TRUE):
        return {_NULL: None, _FALSE: False, _TRUE: True}[number]
    if number == _NEGATIVE:
        return -1 - cursor.varint()
    if number == _TEXT:
        return read_text(cursor)
    if number == _MAP:
        return _read_map(cursor, depth)
    return _read_float(cursor, number)


def record(kind: str, fields: Mapping[str, Any]) -> bytes:
    """A mask of the fields of `tables.RECORDS[kind]` that aren't as there, their values; its highest bit: a map of other fields."""
    known = RECORDS.get(kind, {})
    told = {name: fields[name] for name in known if name in fields and not _same(fields[name], known[name])}
    # A field with a default that isn't there would come back with it. Nothing is lost, and nothing else is what a reader would assume.
    if missing := [name for name, default in known.items() if default is ... and name not in fields]:
        raise InvalidInput(f"{kind!r} lacks {', '.join(missing)}; give it")
    others = {name: each for name, each in fields.items() if name not in known}
    mask = sum(1 << bit for bit, name in enumerate(known) if name in told) | (1 << len(known) if others else 0)
    return varint(mask) + b"".join(value(each) for each in told.values()) + (value(others) if others else b"")


def read_record(cursor: Cursor, kind: str) -> dict[str, Any]:
    known = RECORDS.get(kind, {})
    mask = cursor.varint(2 ** (len(known) + 1) - 1)
    fields = {}
    for bit, (name, default) in enumerate(known.items()):
        if mask >> bit & 1:
            fields[name] = read_value(cursor)
        elif default is ...:
            raise InvalidInput(f"{kind!r} lacks its {name}")
        else:
            fields[name] = default if not isinstance(default, dict) else dict(default)
    if mask >> len(known):
        others = read_value(cursor)
        if not isinstance(others, dict) or others.keys() & known.keys():
            raise InvalidInput(f"{kind!r} has fields that are none")
        fields |= others
    return fields


def _other(kind: int) -> bytes:
    return varint(4 * kind + _OTHER)


def _float(content: float) -> bytes:
    """The shortest of: a decimal, a float32, a float64; each only where it gives back the same bits."""
    if not math.isfinite(content):
        raise InvalidInput(f"metadata has the number {content}; give a finite one")
    ways = [_other(_FLOAT64) + struct.pack("<d", content)]
    if abs(content) < 3e38 and struct.unpack("<f", single := struct.pack("<f", content))[0] == content:
        ways.append(_other(_FLOAT32) + single)
    if content != 0 or math.copysign(1, content) == 1:
        sign, digits, exponent = Decimal(repr(content)).normalize().as_tuple()
        mantissa = int("".join(map(str, digits))) * (-1 if sign else 1)
        ways.append(_other(_DECIMAL) + signed(mantissa) + signed(int(exponent)))
    return min(ways, key=len)


def _read_float(cursor: Cursor, kind: int) -> float:
    if kind == _DECIMAL:
        mantissa, exponent = cursor.signed(), cursor.signed()
        if not -400 <= exponent <= 400:
            raise InvalidInput(f"a decimal number has the exponent {exponent}")
        found = float(f"{mantissa}e{exponent}")
    elif kind == _FLOAT32:
        found = struct.unpack("<f", cursor.bytes(4))[0]
    elif kind == _FLOAT64:
        found = struct.unpack("<d", cursor.bytes(8))[0]
    else:
        raise InvalidInput(f"a value is of the unknown kind {kind}")
    if not math.isfinite(found):
        raise InvalidInput("a number isn't finite")
    return found


def _read_map(cursor: Cursor, depth: int) -> dict[str, Any]:
    many = cursor.varint()
    _enough(cursor, 2 * many)
    found: dict[str, Any] = {}
    for _ in range(many):
        key = read_text(cursor)
        if key in found:
            raise InvalidInput(f"the key {key[:80]!r} stands there twice")
        found[key] = read_value(cursor, depth - 1)
    return found


def _word(number: int) -> str:
    if number >= len(WORDS):
        raise InvalidInput(f"word {number} isn't known to this edgewise")
    return WORDS[number]


def _enough(cursor: Cursor, least: int) -> None:
    if least > len(cursor.data):
        raise InvalidInput(f"{least:,} bytes at least should follow, and {len(cursor.data):,} do")


def _same(one: Any, other: Any) -> bool:
    """Equal, and of one type: 1 is not 1.0 nor True, as they are written."""
    return type(one) is type(other) and one == other
