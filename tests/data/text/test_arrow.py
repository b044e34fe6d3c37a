"""Parquet and what `datasets` saves: made with pyarrow alone, laid out as `datasets` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewise.data.text import files, source
from edgewise.errors import InvalidData, MissingExtra

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow isn't installed: pip install 'edgewise[parquet]'")

FEATURES = {"sentence": {"dtype": "string", "_type": "Value"}, "label": {"names": ["negative", "positive"], "_type": "ClassLabel"}}


def table(rows: int = 3) -> Any:
    made = pyarrow.table({"sentence": [f"text {i}" for i in range(rows)], "label": [i % 2 for i in range(rows)]})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})


def saved(folder: Path, rows: int = 3, pieces: int = 1) -> None:
    folder.mkdir()
    names = [f"data-{i:05}-of-{pieces:05}.arrow" for i in range(pieces)]
    for name in names:
        with pyarrow.OSFile(str(folder / name), "wb") as out, pyarrow.ipc.new_stream(out, table(rows).schema) as writer:
            writer.write_table(table(rows))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_split": "train"}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))


def test_a_parquet_file_brings_the_classes_names(tmp_path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table(), tmp_path / "train-00000-of-00001.parquet")
    (found,) = files.find(tmp_path)
    assert (found.split, found.names) == ("train", {"label": ("negative", "positive")})
    assert list(found.columns["sentence"]) == ["text 0", "text 1", "text 2"]
    assert source.load(tmp_path, "class").labels == ("negative", "positive")


def test_a_name_in_capitals_is_the_same_and_a_packed_one_is_refused(tmp_path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table(), tmp_path / "TRAIN.PARQUET")
    assert [(each.split, len(each)) for each in files.find(tmp_path)] == [("train", 3)]
    (tmp_path / "d.parquet.gz").write_bytes(b"")
    with pytest.raises(InvalidData, match="give a file of texts"):
        files.find(tmp_path / "d.parquet.gz")


def test_texts_as_bytes(tmp_path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": [b"a film", "naïve".encode()], "label": [b"yes", b"no"]}), tmp_path / "d.parquet")
    found = source.load(tmp_path / "d.parquet", "class")
    assert (list(found.first), found.labels) == (["a film", "naïve"], ("no", "yes"))


def test_a_saved_data_set_and_a_saved_dict_of_them(tmp_path: Path) -> None:
    saved(tmp_path / "one", pieces=2)
    assert [(each.split, len(each)) for each in files.find(tmp_path / "one")] == [("train", 3), ("train", 3)]
    both = tmp_path / "both"
    both.mkdir()
    saved(both / "train")
    saved(both / "validation", 2)
    (both / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    assert [(each.split, len(each)) for each in files.find(both)] == [("train", 3), ("validation", 2)]


def test_arrows_file_form(tmp_path: Path) -> None:
    with pyarrow.OSFile(str(tmp_path / "d.arrow"), "wb") as out, pyarrow.ipc.new_file(out, table().schema) as writer:
        writer.write_table(table())
    assert len(files.find(tmp_path / "d.arrow")[0]) == 3


def test_answers_in_a_cell(tmp_path: Path) -> None:
    from pyarrow import parquet

    cell = {"text": ["good"], "answer_start": [2]}
    parquet.write_table(pyarrow.table({"question": ["how ?"], "context": ["a good film"], "answers": [cell]}), tmp_path / "d.parquet")
    (answers,) = source.load(tmp_path / "d.parquet", "answer").targets or ()  # type: ignore[misc]
    assert answers == (("good", 2),)


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidData, match=r"can't read .*d\.parquet"):
        files.find(tmp_path / "d.parquet")
    saved(tmp_path / "one")
    (tmp_path / "one" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(InvalidData, match="can't read"):
        files.find(tmp_path / "one")
    for state in ("[]", "{", '{"_data_files": [{"filename": "../../secret"}]}', "{}"):
        (tmp_path / "one" / "state.json").write_text(state)
        with pytest.raises(InvalidData, match=r"state\.json"):
            files.find(tmp_path / "one")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "d.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[parquet\]'"):
        files.find(tmp_path / "d.parquet")
