"""Files of rows as columns by name: TSV, CSV, JSON Lines, JSON, plain lines; gzip or not. What pyarrow reads is in `arrow`."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgewise.errors import InvalidData

_LINES = {".tsv": "\t", ".tab": "\t", ".csv": ","}
_LONGEST_CELL = 2**31 - 1  # bytes; a C long, which has 32 bits on Windows


@dataclass(frozen=True, eq=False)
class Table:
    """columns: name -> one value per row, as the file has them. names: column -> what its numbers stand for, where the file says so.

    split: what the publisher calls it, "" where nothing says. findings: what reading it found to say.
    """

    name: str
    columns: Mapping[str, Sequence[Any]]
    split: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def suffix(path: Path) -> str:
    """Of a file's name, in small letters, without .gz: ".tsv" of train.TSV.gz."""
    names = [part.lower() for part in path.suffixes]
    return next((part for part in reversed(names) if part != ".gz"), "")


def read(path: Path) -> Table:
    """The rows of a .tsv, .csv, .jsonl, .json or .txt file. Raises InvalidData for what can't be read, and names the line."""
    kind = suffix(path)
    text = _text(path)
    if kind in _LINES:
        columns, findings = _cells(text, _LINES[kind], path)
    elif kind in (".jsonl", ".ndjson"):
        columns, findings = _records(_lines_of_json(text, path), path), ()
    elif kind == ".json":
        columns, findings = _json(text, path), ()
    else:
        columns, findings = {"text": [line for line in text.split("\n") if line.strip()]}, ()
    return Table(str(path), columns, findings=findings)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidData(f"can't read {path}: {error}") from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidData(f"{path}: line {line} is not UTF-8 (byte {error.start}); save the file as UTF-8") from error


def _cells(text: str, delimiter: str, path: Path) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Tab-separated cells stand as they are, quotes and all, as GLUE's files have them; comma-separated ones may be quoted (RFC 4180)."""
    if delimiter == "\t":
        rows = [line.split("\t") for line in text.split("\n") if line]
    else:
        # A field of Python's own 128 kB at most would be too short; the limit is the module's, so it is put back.
        before = csv.field_size_limit(_LONGEST_CELL)
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True) if row]
        except csv.Error as error:
            raise InvalidData(
                f"{path} is no CSV that we can read ({error}); quote cells with commas, quotes or line breaks in them"
            ) from error
        finally:
            csv.field_size_limit(before)
    if len(rows) < 2:
        raise InvalidData(f"{path} has {len(rows)} line(s); expected a header with the columns' names, and a row for each sample")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) != len(header):
        raise InvalidData(f"{path}: its header names a column twice ({', '.join(header)}); give each a name of its own")
    odd = [number for number, row in enumerate(rows[1:], 2) if len(row) != len(header)]
    findings: tuple[str, ...] = ()
    if odd:
        some = ", ".join(map(str, odd[:5])) + (" …" if len(odd) > 5 else "")
        findings = (f"{len(odd)} rows of {path.name} have another number of cells than its header, and were left out: rows {some}",)
    whole = [row for row in rows[1:] if len(row) == len(header)]
    if not whole:
        raise InvalidData(
            f"{path}: its header names {len(header)} columns, and none of its rows has so many; the second has {len(rows[1])}"
        )
    return {name: [row[i] for row in whole] for i, name in enumerate(header)}, findings


def _delimiter(text: str) -> str:
    """Spreadsheets write semicolons where the comma is the decimal sign."""
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def _lines_of_json(text: str, path: Path) -> list[Any]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line))
            except msgspec.DecodeError as error:
                raise InvalidData(f"{path}: line {number} is no JSON ({error}); give one object a line") from error
    return found


def _json(text: str, path: Path) -> dict[str, list[Any]]:
    """A list of objects, bare or under "data"; or SQuAD's own form."""
    try:
        whole = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidData(f"{path} is no JSON ({error}); one object a line goes into a .jsonl file") from error
    rows = whole.get("data") if isinstance(whole, dict) else whole
    if not isinstance(rows, list):
        raise InvalidData(f"{path}: give a list of objects, one for each sample, or SQuAD's form (data, paragraphs, qas)")
    if rows and isinstance(rows[0], dict) and "paragraphs" in rows[0]:
        return _records(_squad(rows, path), path)
    return _records(rows, path)


def _squad(articles: list[Any], path: Path) -> list[dict[str, Any]]:
    """A row for each question of SQuAD 1.1 or 2.0 (Rajpurkar et al. 2016, 2018): question, context, answers."""
    try:
        return [
            {
                "question": qa["question"],
                "context": paragraph["context"],
                "answers": _answers(qa),
            }
            for article in articles
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidData(f"{path} begins like a SQuAD file, but isn't one all through: {error!r} is missing or wrong") from error


def _answers(qa: dict[str, Any]) -> list[dict[str, Any]] | None:
    """None for a question of a test set, whose answers aren't told."""
    if "answers" not in qa:
        return [] if qa.get("is_impossible") else None
    return [{"text": answer["text"], "answer_start": answer["answer_start"]} for answer in qa["answers"]]


def _records(rows: list[Any], path: Path) -> dict[str, list[Any]]:
    wrong = next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if wrong is not None or not rows:
        raise InvalidData(
            f"{path}: {f'sample {wrong} is no object' if rows else 'it is empty'}; give one object with the columns' names each"
        )
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
