"""Texts and a tokenizer for tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgewise.testing.texts import sentences, tokenizer


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A folder with train, dev and test of good and bad texts, and a tokenizer beside them."""
    pytest.importorskip("tokenizers", reason="tokenizers isn't installed: pip install 'edgewise[text]'")
    texts, labels = sentences(160)
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, first, last in (("train", 0, 100), ("dev", 100, 130), ("test", 130, 160)):
        rows = [f"{texts[i]}\t{labels[i]}" for i in range(first, last)]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    (folder / "tokenizer.json").write_bytes(tokenizer(padded=True))
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """SQuAD's form: what is the good (or bad) word of a text?"""
    texts, labels = sentences(90, words=(20, 40))
    qas = []
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        word = next(
            word
            for word in text.split()
            if word in (("bad", "dull", "cold", "grim", "slow"), ("good", "fine", "warm", "bright", "funny"))[label]
        )
        question = f"which is it in the story {number} ?"
        answers = [{"text": word, "answer_start": f" {text} ".index(f" {word} ")}]
        qas.append({"context": text, "qas": [{"question": question, "answers": answers}]})
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": qas}]}))
    return path
