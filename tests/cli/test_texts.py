"""Texts from the shell: `run`, `inspect`, `compare`, `measure` and `fit` on a tiny model that counts good and bad words."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgewise import measure, package, tasks
from edgewise.cli import given
from edgewise.data.postprocess import softmax
from edgewise.graph import Graph
from edgewise.records import Peaks, Study
from edgewise.search import climb
from edgewise.search.packing import plain_package
from edgewise.testing import texts as made
from edgewise.types import from_json

pytest.importorskip("tokenizers", reason="tokenizers isn't installed: pip install 'edgewise[text]'")
Edgewise = Callable[..., Any]
TASK = ("--task", "text-classification")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder: its graph, its tokenizer, and texts to judge it by."""
    texts, labels = made.sentences(160)
    for name, first, last in (("train", 0, 100), ("dev", 100, 130), ("test", 130, 160)):
        rows = [f"{texts[i]}\t{labels[i]}" for i in range(first, last)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    (tmp_path / "tokenizer.json").write_bytes(made.tokenizer(padded=True))
    onnx.save(made.model(), tmp_path / "model.onnx")
    return tmp_path


def packed(folder: Path, name: str = "a.edgew", gives: Any = "logits", **options: Any) -> Path:
    graph = Graph.from_proto(made.model(gives))
    function = {
        "logits": partial(tasks.text_classification, labels=("bad", "good")),
        "number": partial(tasks.text_regression),
        "vector": tasks.sentence_embedding,
    }[gives]
    task = tasks.bound(function(folder, tokenizer=folder, **options), graph.signature)
    plain_package(graph, task, "tiny").save(folder / name)
    return folder / name


def answers(edgewise: Edgewise, *words: object) -> list[dict[str, Any]]:
    code, out, err = edgewise("run", *words, "--json")
    assert code == 0, err
    return list(json.loads(out))


def by_hand(*texts: str) -> np.ndarray:
    """Probabilities of bad and good."""
    from edgewise.data.text.encoder import opened

    library, table = opened(made.tokenizer()), made.embedding(8)
    return softmax(np.stack([table[library.encode(text).ids].mean(axis=0)[-2:] for text in texts]).astype(np.float64))


def test_texts_give_labels_and_scores(edgewise: Edgewise, folder: Path) -> None:
    path = packed(folder)
    one, other = answers(edgewise, path, "a good, funny film", "dull and slow")
    assert one["input"] == "a good, funny film"
    assert [prediction["label"] for prediction in one["predictions"][0]] == ["good", "bad"]
    for found, text in ((one, "a good, funny film"), (other, "dull and slow")):
        scores = sorted((prediction["score"] for prediction in found["predictions"][0]), reverse=True)
        assert scores == pytest.approx(sorted(by_hand(text)[0], reverse=True), abs=1e-5)
    code, out, err = edgewise("run", path, "a good, funny film", "--top", 1)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert "a good, funny film   good" in out and "run by" in out


def test_lines_of_a_file_and_of_standard_input(edgewise: Edgewise, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(folder)
    (folder / "some.txt").write_text("good\r\n\r\nbad\n")
    assert [found["input"] for found in answers(edgewise, path, folder / "some.txt", "fine")] == ["good", "bad", "fine"]

    class Piped:
        buffer = io.BytesIO("cold é\nwarm\n".encode())

    monkeypatch.setattr(sys, "stdin", Piped())
    assert [found["input"] for found in answers(edgewise, path, "-")] == ["cold é", "warm"]
    for data, said in ((b"\xff", "not UTF-8"), (b"\n\n", "no text in it")):
        (folder / "some.txt").write_bytes(data)
        code, _, err = edgewise("run", path, folder / "some.txt")
        assert code == 2 and said in err


def test_windows_on_the_device_are_those_of_the_split(edgewise: Edgewise, folder: Path) -> None:
    path = packed(folder, max_length=8, stride=2)
    long = "good the film is was " * 20 + "bad"
    (found,) = answers(edgewise, path, long)
    ids = long.split()
    cuts = [" ".join(ids[at : at + 6]) for at in range(0, len(ids) - 6 + 4, 4)]
    logits = np.log(by_hand(*cuts))
    logits = np.stack([made.embedding(8)[[2, *(made.VOCABULARY.index(word) for word in cut.split()), 3]].mean(axis=0)[-2:] for cut in cuts])
    wanted = softmax(logits.mean(axis=0, keepdims=True).astype(np.float64))[0]
    assert found["predictions"][0][0]["score"] == pytest.approx(max(wanted), abs=1e-5)


def test_pairs_and_their_separator(edgewise: Edgewise, folder: Path) -> None:
    rows = ["premise\thypothesis\tlabel", *(f"the film is {i}\tit was {i} old\t{i % 2}" for i in range(60))]
    pairs = folder / "pairs.tsv"
    pairs.write_text("\n".join(rows))
    graph = Graph.from_proto(made.model(types=True))
    task = tasks.bound(tasks.text_classification(pairs, tokenizer=folder, validation=0.2, test=0.2), graph.signature)
    plain_package(graph, task, "tiny").save(folder / "p.edgew")
    tab, bar = (
        answers(edgewise, folder / "p.edgew", "good film\tit is"),
        answers(edgewise, folder / "p.edgew", "good film|it is", "--separator", "|"),
    )
    assert tab == bar and tab[0]["input"] == ["good film", "it is"]
    code, _, err = edgewise("run", folder / "p.edgew", "alone")
    assert code == 2 and "takes two texts" in err
    assert "two texts, up to 512 tokens" in " ".join(edgewise("inspect", folder / "p.edgew").out.split())


def test_numbers_vectors_and_spans(edgewise: Edgewise, folder: Path) -> None:
    (folder / "scores").mkdir()
    texts, labels = made.sentences(60)
    (folder / "scores" / "d.csv").write_text("\n".join(["text,score", *(f"{t},{s}" for t, s in zip(texts, labels, strict=True))]))
    (folder / "scores" / "tokenizer.json").write_bytes(made.tokenizer())
    number = packed(folder / "scores", gives="number")
    good, bad = answers(edgewise, number, "good", "bad")
    assert good["value"] == pytest.approx(8 / 3) and bad["value"] == pytest.approx(-8 / 3)
    vector = packed(folder, "v.edgew", gives="vector")
    (found,) = answers(edgewise, vector, "good film")
    assert len(found["embedding"]) == 8 and np.linalg.norm(found["embedding"]) == pytest.approx(1)
    assert ", …" not in edgewise("run", vector, "good film").out
    graph = Graph.from_proto(made.model("span"))
    squad = [
        {"question": f"which {i} ?", "context": text, "answers": {"text": ["film"], "answer_start": [0]}} for i, text in enumerate(texts)
    ]
    (folder / "squad.json").write_text(json.dumps(squad))
    task = tasks.bound(tasks.question_answering(folder / "squad.json", tokenizer=folder, validation=0.2, test=0.2), graph.signature)
    plain_package(graph, task, "tiny").save(folder / "q.edgew")
    (found,) = answers(edgewise, folder / "q.edgew", "what ?\tit is a dull and bright town")
    assert found["answer"]["text"] == "dull and bright" and found["answer"]["start"] == 8  # bad words begin, good ones end
    assert "dull and bright" in edgewise("run", folder / "q.edgew", "what ?\tit is a dull and bright town").out


def test_arrays_still_go_in_as_they_are(edgewise: Edgewise, folder: Path) -> None:
    path = packed(folder)
    np.savez(folder / "in.npz", input_ids=np.int64([[2, 5, 3]]), attention_mask=np.ones((1, 3), np.int64))
    (found,) = answers(edgewise, path, folder / "in.npz")
    assert found["predictions"][0] == answers(edgewise, path, "good")[0]["predictions"][0]


def test_a_package_without_its_tokenizer_or_with_another(edgewise: Edgewise, folder: Path) -> None:
    found = package.open(packed(folder))
    for files, said in (({}, "has no tokenizer.json"), ({"tokenizer.json": made.tokenizer("roberta")}, "was expected")):
        package.build(found.graph(), created="", preprocess=found.preprocess, files=files).save(folder / "b.edgew")
        code, _, err = edgewise("run", folder / "b.edgew", "good")
        assert code == 2 and said in err and "pack it again" in err


def test_any_text_gives_an_answer_or_a_clear_error(edgewise: Edgewise, folder: Path) -> None:
    path = packed(folder, max_length=32)
    found = answers(edgewise, path, "", "x" * 100_000, "good " * 20_000, "\u202e\u200d\x07", "🜁" * 300, "a" * 300)
    assert len(found) == 6 and found[2]["predictions"][0][0]["label"] == "good"
    code, out, _ = edgewise("run", path, "\x1b[31mred", "good " * 300)
    assert code == 0 and "\x1b[31m" not in out


def test_inspect_says_how_to_feed_it(edgewise: Edgewise, folder: Path) -> None:
    out = " ".join(edgewise("inspect", packed(folder)).out.split())
    assert "a text, up to 512 tokens at a time; longer ones in windows that share 128" in out and "bad, good" in out


def test_compare(edgewise: Edgewise, folder: Path) -> None:
    path = packed(folder)
    said = ("--data", folder, *TASK, "--as-test", "test")
    code, out, err = edgewise("compare", folder / "model.onnx", path, *said, "--samples", 9)
    assert code == 0, err
    assert "on 9 samples" in " ".join(out.split()) and "nowhere" in out and "100" in out
    code, out, err = edgewise("compare", folder / "model.onnx", path, *said, "--metric", "matthews", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["n"] == 30 and record["agreement"]["value"] == 1.0 and record["quality_a"]["metric"] == "matthews"
    vector = packed(folder, "v.edgew", gives="vector")
    code, out, err = edgewise("compare", vector, vector, "--task", "sentence-embedding", "--data", folder)
    assert code == 0 and "Same answer" not in out, err
    code, _, err = edgewise("compare", path, path, "--data", folder)
    assert code == 2 and "by --task (text-classification" in err


def test_measure_takes_its_inputs_from_a_task(edgewise: Edgewise, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peaks", lambda device, threads: Peaks(threads, 50.0, 100.0, 10.0))
    monkeypatch.setattr(measure, "profile", partial(measure.profile, min_samples=10))
    quick = ("--threads", 1, "--backends", "onnxruntime", "--seconds", 0.05, "--json")
    code, out, err = edgewise(
        "measure", folder / "model.onnx", *TASK, "--data", folder, "--tokenizer", folder, "--tokens", 24, "--batch", 2, *quick
    )
    assert code == 0, err
    assert json.loads(out)["inputs"] == {"input_ids": [2, 24], "attention_mask": [2, 24]}
    code, out, err = edgewise("measure", packed(folder), "--tokens", 40, *quick)
    assert code == 0 and json.loads(out)["inputs"] == {"input_ids": [1, 40], "attention_mask": [1, 40]}, err
    assert edgewise("measure", folder / "model.onnx", "--tokens", 0, *quick).code == 2


def test_a_models_folder_knows_its_tokenizer_and_labels(folder: Path) -> None:
    assert given.model_options(str(folder / "model.onnx")) == {} == given.model_options("none.py:build")
    assert given.model_options(str(folder)) == {"tokenizer": folder}
    for labels, found in ((["LABEL_0", "LABEL_1"], {}), (["neg", "pos"], {"labels": ("neg", "pos")})):
        (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
        assert given.model_options(str(folder)) == {"tokenizer": folder, **found}


def test_fit_from_end_to_end(edgewise: Edgewise, folder: Path, briefly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climb, "INT8", climb.INT8[:1])
    words = ("--data", folder, *TASK, "--tokenizer", folder, "--as-test", "dev,test", "--tokens", 16, "--engines", "onnxruntime")
    budget = ("--speedup", 1000, "--max-drop", "100%", "--threads", 1, "--epochs", 0, "-o", folder / "out")
    code, out, err = edgewise("fit", folder / "model.onnx", *words, *budget)
    assert code == 3, err
    study = from_json((folder / "out" / "study" / "study.json").read_bytes(), Study)
    assert study.data.task == "text-classification" and study.data.samples["test"] == 60
    assert study.verdict is not None and study.verdict.quality.value.n == 60
    assert any("dev is the test split" in finding for finding in study.data.cleaning)
    assert "data: columns were guessed" in " ".join(out.split()) and "edgewise run" in out
    code, out, _ = edgewise("run", folder / "out" / "model.edgew", "a good film")
    assert code == 0 and "1" in out
    code, out, err = edgewise("reproduce", folder / "out" / "model.edgew", folder / "model.onnx", *words[:6], *words[6:10])
    assert code == 0, err
