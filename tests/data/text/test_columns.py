"""Which column is which, and what stands in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgewise.data.text.columns import Answer, answers, as_text, choose, classes, scores
from edgewise.data.text.tables import Table
from edgewise.errors import InvalidData


def table(*names: str) -> Table:
    return Table("d.tsv", {name: ["x"] for name in names})


@pytest.mark.parametrize(
    ("names", "texts", "label"),
    [
        (("sentence", "label"), ("sentence",), "label"),
        (("label", "content"), ("content",), "label"),
        (("idx", "premise", "hypothesis", "label"), ("premise", "hypothesis"), "label"),
        (("question", "sentence", "label"), ("question", "sentence"), "label"),
        (("qid1", "question1", "question2", "is_duplicate"), ("question1", "question2"), "is_duplicate"),
        (("genre", "sentence1", "sentence2", "score"), ("sentence1", "sentence2"), "score"),
        (("Review", "Sentiment"), ("Review",), "Sentiment"),
        (("text",), ("text",), ""),
    ],
)
def test_usual_names_are_found_and_told(names: tuple[str, ...], texts: tuple[str, ...], label: str) -> None:
    found = choose(table(*names), (), "")
    assert (found.texts, found.label) == (texts, label)
    assert all(repr(name) in found.guessed for name in (*texts, label) if name)


def test_names_that_are_given_come_first() -> None:
    found = choose(table("title", "text", "stars"), ["title"], "stars")
    assert (found.texts, found.label, found.guessed) == (("title",), "stars", "")
    # A publisher's files may call the same thing differently: where the named one isn't, the usual ones of as many texts are looked for.
    assert choose(table("content", "label"), ["sentence"], "label").texts == ("content",)
    with pytest.raises(InvalidData, match=r"has the columns a, b; which one holds the text\?"):
        choose(table("a", "b"), (), "")
    with pytest.raises(InvalidData, match="none is called 'story'"):
        choose(table("premise", "hypothesis"), ["story"], "")
    assert choose(table("question", "context", "answers"), (), "", answers=True).label == "answers"


@pytest.mark.parametrize(
    ("values", "known", "named", "found", "labels"),
    [
        (["1", "0", "2"], (), (), [1, 0, 2], ("0", "1", "2")),
        ([1, 0, -1, None], (), (), [1, 0, -1, -1], ("0", "1")),
        (["no", "yes", "", "-"], (), (), [0, 1, -1, -1], ("no", "yes")),
        ([0, 1], (), ("neg", "pos"), [0, 1], ("neg", "pos")),
        (["0", "1"], ("neg", "pos"), (), [0, 1], ("neg", "pos")),
        (["pos", "neg"], ("neg", "pos"), (), [1, 0], ("neg", "pos")),
        (["entailment", "Neutral"], ("NEUTRAL", "ENTAILMENT"), (), [1, 0], ("NEUTRAL", "ENTAILMENT")),
        ([True, False, 1.0, float("nan")], (), (), [1, 0, 1, -1], ("0", "1")),
        ([5, 3], ("3", "4", "5"), (), [2, 0], ("3", "4", "5")),
        ([-1, 0, 1, None], ("-1", "0", "1"), (), [0, 1, 2, -1], ("-1", "0", "1")),
        ([b"yes", b"no"], (), (), [1, 0], ("no", "yes")),
    ],
)
def test_classes(values: list[Any], known: tuple[str, ...], named: tuple[str, ...], found: list[int], labels: tuple[str, ...]) -> None:
    got, told = classes(values, known, named)
    assert got.tolist() == found and told == labels and got.dtype == np.int64


def test_a_class_that_is_none_is_told() -> None:
    with pytest.raises(InvalidData, match="'maybe' is none of the labels no, yes"):
        classes(["yes", "maybe"], ("no", "yes"), ())
    with pytest.raises(InvalidData, match="'7'"):
        classes(["0", "7"], ("no", "yes"), ())
    with pytest.raises(InvalidData, match="run up to 20260131, of 3 samples"):  # a date: not twenty million classes
        classes([20260131, 20260130, 20260129], (), ())


def test_what_a_cell_says() -> None:
    assert [as_text(value) for value in ("a", None, float("nan"), 3, 2.5, "naïve".encode())] == ["a", "", "", "3", "2.5", "naïve"]
    with pytest.raises(InvalidData, match=r"b'na\\xefve', which is not UTF-8"):
        as_text("naïve".encode("latin-1"))


def test_scores() -> None:
    np.testing.assert_array_equal(scores(["2.5", 3, "", None]), [2.5, 3, np.nan, np.nan])
    with pytest.raises(InvalidData, match="sample 2: its score is 'good'"):
        scores(["1", "good"])


def test_answers_in_every_form() -> None:
    context = "a good film is a good film"
    squad = [{"text": "good film", "answer_start": 2}, {"text": "good", "answer_start": 18}]
    cell = {"text": ["good"], "answer_start": [17]}
    found = answers([squad, cell, "film", "", [], {"text": [], "answer_start": []}, None], [context] * 7)
    assert found.tolist() == [
        (Answer("good film", 2), Answer("good", 17)),  # one off, as some of SQuAD's are: the nearest
        (Answer("good", 17),),
        (Answer("film", 7),),
        (), (), (), None,
    ]  # fmt: skip
    assert answers(["never said"], [context])[0] == (Answer("never said", -1),)
    for wrong in ([1], [{"answer_start": 3}], [{"text": ["a", "b"], "answer_start": [1]}]):
        with pytest.raises(InvalidData, match="sample 1: its answers"):
            answers(wrong, [context])
