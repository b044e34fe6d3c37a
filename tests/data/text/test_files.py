"""Files of rows: every form gives the same columns, splits come from names, and what can't be read is told with its line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from edgewise.data.text import files
from edgewise.data.text.tables import read
from edgewise.errors import InvalidData, InvalidInput

ROWS = [("a good film", "1"), ('"quoted", with a comma', "0"), ("naïve\u2028one", "1")]


def written(path: Path) -> Path:
    lines = {
        ".tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS),
        ".csv": "text,label\r\n" + "".join('"{}",{}\r\n'.format(text.replace('"', '""'), label) for text, label in ROWS),
        ".jsonl": "\n\n".join(json.dumps({"text": text, "label": label}) for text, label in ROWS),
        ".json": json.dumps([{"text": text, "label": label} for text, label in ROWS]),
    }[path.suffixes[0]]
    data = lines.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["d.tsv", "d.csv", "d.jsonl", "d.json", "d.tsv.gz", "d.jsonl.gz"])
def test_every_form_gives_the_same(tmp_path: Path, name: str) -> None:
    (found,) = files.find(written(tmp_path / name))
    assert list(zip(found.columns["text"], found.columns["label"], strict=True)) == ROWS
    assert (found.split, len(found), found.findings) == ("", 3, ())


def test_lines_are_texts(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("\ufeffone\r\n\r\n two\u0085three \n", encoding="utf-8", newline="")
    assert list(files.find(tmp_path / "d.txt")[0].columns["text"]) == ["one", " two\u0085three "]


def test_the_semicolon_of_spreadsheets(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('text;score\n"a; b";2,5\n', encoding="utf-8")
    assert read(tmp_path / "d.csv").columns == {"text": ["a; b"], "score": ["2,5"]}


def test_squads_form_has_a_row_for_each_question(tmp_path: Path) -> None:
    answers = [{"text": "good", "answer_start": 2}]
    qas = [{"question": "how ?", "id": "1", "answers": answers}, {"question": "who ?", "id": "2", "is_impossible": True}]
    whole = {"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": "a good film", "qas": qas}]}]}
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(whole))
    (found,) = files.find(tmp_path / "dev-v2.0.json")
    assert found.columns == {"question": ["how ?", "who ?"], "context": ["a good film"] * 2, "answers": [answers, []]}
    assert files.canonical(found.split) == "validation"
    del whole["data"][0]["paragraphs"][0]["context"]  # type: ignore[index]
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(whole))
    with pytest.raises(InvalidData, match="context"):
        files.find(tmp_path / "dev-v2.0.json")


def test_a_folders_files_say_their_splits(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv", "my-test-00000-of-00001.tsv.gz", "README.md", "dataset_info.json"):
        if name.endswith((".tsv", ".gz")):
            written(tmp_path / name)
        else:
            (tmp_path / name).write_text("{}")
    found = {table.split: files.canonical(table.split) for table in files.find(tmp_path)}
    assert found == {"train": "train", "dev_matched": "validation", "dev_mismatched": "validation", "test": "test"}
    assert [files.canonical(word) for word in ("attestation", "latest", "trainer", "", "holdout")] == [""] * 5


def test_pieces_in_a_folder_called_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "validation-00000-of-00001.jsonl"):
        written(tmp_path / "data" / name)
    assert [table.split for table in files.find(tmp_path)] == ["train", "train", "validation"]


def test_a_mapping_says_its_splits(tmp_path: Path) -> None:
    one, other = written(tmp_path / "whatever.jsonl"), written(tmp_path / "dev.jsonl")
    assert [table.split for table in files.find({"train": one, "test": other})] == ["train", "test"]


def test_ones_own_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_texts.py").write_text('def rows():\n    return {"text": ["a", "b"], "label": [0, 1]}\ndef wrong():\n    return [1]\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert files.find("own_texts:rows")[0].columns == {"text": ["a", "b"], "label": [0, 1]}
    with pytest.raises(InvalidData, match="columns of one length"):
        files.find("own_texts:wrong")


def test_rows_of_another_length_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("text\tlabel\na\t1\nb\nc\t0\td\ne\t1\n")
    found = read(tmp_path / "d.tsv")
    assert found.columns == {"text": ["a", "e"], "label": ["1", "1"]}
    assert found.findings == ("2 rows of d.tsv have another number of cells than its header, and were left out: rows 3, 4",)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("d.tsv", b"text\tlabel\n", "1 line"),
        ("d.tsv", b"text\ttext\na\tb\n", "twice"),
        ("d.tsv", b"text\tlabel\n1\ta\t0\n2\tb\t1\n", "names 2 columns, and none of its rows has so many; the second has 3"),
        ("d.tsv", b"text\tlabel\na\t1\nb\xff\t1\n", "line 3 is not UTF-8"),
        ("d.csv", b'text,label\n"a,1\n', "quote"),
        ("d.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"),
        ("d.jsonl", b'{"text": "a"}\n[1]\n', "sample 2"),
        ("d.json", b'{"text": "a"}', "list of objects"),
        ("d.json", b"[", "no JSON"),
        ("d.json", b"[]", "empty"),
        ("d.tsv.gz", gzip.compress(b"text\tlabel\na\t1\n", mtime=0)[:-9], "can't read"),
        ("d.png", b"", "give a file of texts"),
    ],
)
def test_what_is_no_data_is_told(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidData, match=said):
        files.find(tmp_path / name)


def test_folders_without_a_way_in(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no file that we read"):
        files.find(tmp_path)
    written(tmp_path / "one.tsv")
    assert len(files.find(tmp_path)) == 1  # the only one needs no name
    written(tmp_path / "two.tsv")
    with pytest.raises(InvalidData, match="2 files, none named after a split"):
        files.find(tmp_path)
    with pytest.raises(InvalidInput, match="no such file"):
        files.find(tmp_path / "none")


def test_a_cell_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = csv.field_size_limit

    def of_32_bits(most: int) -> int:  # a C long on Windows
        if most >= 2**31:
            raise OverflowError
        return limit(most)

    monkeypatch.setattr(csv, "field_size_limit", of_32_bits)
    (tmp_path / "d.csv").write_text(f"text,label\n{'x' * 200_000},1\n")
    assert len(read(tmp_path / "d.csv").columns["text"][0]) == 200_000
