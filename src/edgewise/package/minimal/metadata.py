"""What the minimal profile says besides the graph: pre- and postprocessing, execution, labels (docs/format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edgewise.coding.cursor import Cursor, varint
from edgewise.errors import InvalidInput
from edgewise.package.manifest import Manifest
from edgewise.package.minimal.values import read_record, read_text, record, text
from edgewise.types import Execution

# What metadata there is, in one byte; the two bits above say how labels stand there.
_PREPROCESS, _POSTPROCESS, _EXECUTION = 1, 2, 4
_LABELS = 3
_NO_LABELS, _DIGITS, _TEXTS = range(3)
_MOST_DIGITS = 65_536


def encode(manifest: Manifest) -> bytes:
    labels, execution = manifest.labels, manifest.execution
    how = _NO_LABELS if not labels else _DIGITS if len(labels) <= _MOST_DIGITS and labels == _digits(len(labels)) else _TEXTS
    flags = (_PREPROCESS if manifest.preprocess is not None else 0) | (_POSTPROCESS if manifest.postprocess is not None else 0)
    pieces = [bytes([flags | (_EXECUTION if execution is not None else 0) | how << _LABELS])]
    pieces += [_tagged(each) for each in (manifest.preprocess, manifest.postprocess) if each is not None]
    if execution is not None:
        pieces.append(record("execution", msgspec.to_builtins(execution)))
    if labels:
        pieces.append(varint(len(labels)))
    if how == _TEXTS:
        pieces += map(text, labels)
    return b"".join(pieces)


def decode(cursor: Cursor) -> dict[str, Any]:
    """What `package.build` takes. Raises InvalidInput."""
    flags = cursor.byte()
    how = flags >> _LABELS
    if how > _TEXTS:
        raise InvalidInput(f"its metadata has unknown flags {flags:#x}")
    found: dict[str, Any] = {}
    for bit, name in ((_PREPROCESS, "preprocess"), (_POSTPROCESS, "postprocess")):
        if flags & bit:
            kind = read_text(cursor)
            found[name] = {**read_record(cursor, kind), "kind": kind}
    if flags & _EXECUTION:
        try:
            found["execution"] = msgspec.convert(read_record(cursor, "execution"), Execution)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"its execution is none ({error})") from error
    if how == _DIGITS:
        found["labels"] = _digits(cursor.varint(_MOST_DIGITS))
    if how == _TEXTS:
        found["labels"] = tuple(read_text(cursor) for _ in range(cursor.varint(len(cursor.data))))
    return found


def _tagged(fields: Mapping[str, Any]) -> bytes:
    kind = fields["kind"]
    return text(kind) + record(kind, {name: each for name, each in fields.items() if name != "kind"})


def _digits(many: int) -> tuple[str, ...]:
    """Labels "0", "1" …, as data without names has them."""
    return tuple(map(str, range(many)))
