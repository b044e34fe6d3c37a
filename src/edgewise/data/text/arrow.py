"""Columns from Apache Arrow: Parquet files, Arrow files, and folders that Hugging Face's `datasets` wrote (`save_to_disk`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgewise import registry
from edgewise.data.text.tables import Table
from edgewise.errors import InvalidData

SUFFIXES = (".parquet", ".arrow")


def read(path: Path) -> Table:
    """A .parquet or .arrow file. Raises MissingExtra without pyarrow, InvalidData for a damaged file."""
    registry.need("pyarrow")
    import pyarrow

    try:
        whole = _parquet(path) if path.suffix.lower() == ".parquet" else _arrow(path)
        return Table(str(path), whole.to_pydict(), names=_names(whole.schema.metadata or {}))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InvalidData(f"can't read {path}: {error}") from error


def saved(folder: Path) -> list[Table] | None:
    """What `datasets` saved in `folder`: a Dataset, or a DatasetDict with a folder for each split; None for another folder.

    Raises InvalidData where a file that it lists is missing.
    """
    if (folder / "dataset_dict.json").is_file():
        listed = _object(folder / "dataset_dict.json").get("splits")
        if not isinstance(listed, list):
            raise InvalidData(f"{folder / 'dataset_dict.json'} names no splits; save the data set again")
        return [table for split in listed for table in _dataset(folder / str(split), str(split))]
    return _dataset(folder, "") if (folder / "state.json").is_file() else None


def _dataset(folder: Path, split: str) -> list[Table]:
    state = _object(folder / "state.json")
    listed = [entry.get("filename") for entry in state.get("_data_files") or () if isinstance(entry, dict)]
    files = [name for name in listed if isinstance(name, str) and Path(name).name == name]
    if not files or len(files) < len(listed):
        raise InvalidData(f"{folder / 'state.json'} names no data files in its folder; save the data set again with save_to_disk")
    named = split or str(state.get("_split") or "")
    return [Table(table.name, table.columns, named, table.names) for table in (read(folder / name) for name in files)]


def _object(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidData(f"can't read {path}: {error}; save the data set again with save_to_disk") from error
    if not isinstance(found, dict):
        raise InvalidData(f"{path} holds no object; save the data set again with save_to_disk")
    return found


def _parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


def _arrow(path: Path) -> Any:
    """`datasets` writes Arrow's stream form, others its file form."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as opened:
        try:
            return pyarrow.ipc.open_stream(opened).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(opened).read_all()


def _names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """What `datasets` notes in a schema: the classes' names of a column."""
    try:
        features = msgspec.json.decode(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: tuple(map(str, told["names"])) for name, told in features.items() if isinstance(told, dict) and "names" in told}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return {}
