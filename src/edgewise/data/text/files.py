"""Where texts come from: files with a row for each sample, one or several, as tables with the split that their publisher put them in.

data.tsv   data.csv   data.jsonl   data.json   data.parquet   data.txt     one file, split here (or by its column "split"); .gz as well
data/train.tsv  data/dev.tsv  data/test.tsv.gz …                          a folder whose files' names say the split
data/train-00000-of-00002.parquet …                                       the same in pieces
data/dataset_dict.json  data/train/…                                       what `datasets` saved (save_to_disk)
"my_module:texts"                                                          your own function: columns by name, as a dict of lists
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise import registry
from edgewise.data.text import arrow, tables
from edgewise.data.text.tables import Table
from edgewise.errors import InvalidData

SUFFIXES = (".tsv", ".tab", ".csv", ".jsonl", ".ndjson", ".json", ".txt", *arrow.SUFFIXES)
# What a split may be called -> what it is called here.
SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "validation",
    "development": "validation",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
}
_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])((?:_[a-z]+)*)", re.IGNORECASE)
# Of `datasets`' own folders; a text file beside them is a description.
_NOTES = ("dataset_info.json", "dataset_infos.json", "state.json", "config.json", "tokenizer.json", "tokenizer_config.json")


def find(where: str | Path | Mapping[str, Any]) -> list[Table]:
    """The tables at `where`; a mapping is split -> path. Raises InvalidData where there is nothing that we read."""
    if isinstance(where, Mapping):
        found = [replace(table, split=split) for split, path in where.items() for table in _at(Path(path))]
        # Of several, each is what it was given as, whatever a column of it says.
        return [_without(table, "split") for table in found] if len(where) > 1 else found
    path = Path(where)
    if path.exists():
        return _at(path)
    if ":" in str(where):
        return [_own(str(where))]
    raise InvalidData(f"{path}: there is no such file or folder; give {', '.join(SUFFIXES)}, a folder of such, or 'module:function'")


def canonical(split: str) -> str:
    """train, validation or test for what a publisher calls it ("dev_matched": validation); "" for another word."""
    found = _SPLIT.search(split)
    return SPLITS[found[1].lower()] if found else ""


def _without(table: Table, column: str) -> Table:
    return replace(table, columns={name: cells for name, cells in table.columns.items() if name != column})


def _at(path: Path) -> list[Table]:
    if path.is_dir():
        return _folder(path)
    if not _read_here(path):
        raise InvalidData(f"{path}: give a file of texts ({', '.join(SUFFIXES)}, or one of them with .gz), or a folder of such")
    return [_file(path)]


def _folder(folder: Path) -> list[Table]:
    found = arrow.saved(folder)
    if found is not None:
        return found
    files = sorted(path for path in folder.iterdir() if path.is_file() and _read_here(path) and path.name not in _NOTES)
    named = [path for path in files if canonical(_stem(path))]
    if named or len(files) == 1:
        return [_file(path) for path in named or files]
    if not files and (folder / "data").is_dir():
        return _folder(folder / "data")
    told = f"{len(files)} files, none named after a split" if files else "no file that we read"
    raise InvalidData(f"{folder} holds {told}; call them train, dev and test ({', '.join(SUFFIXES)}), or name the one file that you mean")


def _file(path: Path) -> Table:
    table = arrow.read(path) if path.suffix.lower() in arrow.SUFFIXES else tables.read(path)
    found = _SPLIT.search(_stem(path))
    return replace(table, split=(found[1] + found[2]).lower() if found else "")


def _read_here(path: Path) -> bool:
    """By its name. What pyarrow reads is compressed inside, never as a whole."""
    kind = tables.suffix(path)
    return kind in SUFFIXES and not (kind in arrow.SUFFIXES and path.suffix.lower() != kind)


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _own(spec: str) -> Table:
    """A function without arguments that returns columns by name: {"text": […], "label": […], "split": […]}, what there is of them."""
    made = registry.load("task", spec)
    result = made() if callable(made) else made
    if not isinstance(result, Mapping) or not result or len({len(column) for column in result.values()}) != 1:
        raise InvalidData(f'{spec} gave a {type(result).__name__}; give columns of one length by name: {{"text": [...], "label": [...]}}')
    return Table(spec, {str(name): list(column) for name, column in result.items()})
