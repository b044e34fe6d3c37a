"""Which column is which, and what stands in it: texts, classes, scores, answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgewise.data.text.tables import Table
from edgewise.errors import InvalidData

# What columns are usually called, the likelier first. A pair before a single text: "sentence" is half of QNLI's.
_PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "context"), ("question", "sentence"),
    ("text1", "text2"), ("text_a", "text_b"), ("query", "passage"), ("query", "document"), ("anchor", "positive"),
)  # fmt: skip
_SINGLE = ("text", "sentence", "content", "review", "document", "tweet", "comment", "utterance", "body")
_LABELS = (
    "label", "labels", "gold_label", "score", "similarity", "target", "class", "category", "sentiment", "intent", "rating",
    "is_duplicate", "similarity_score", "relatedness_score",
)  # fmt: skip
_ANSWERS = ("answers", "answer")
_NO_LABEL = ("", "-", "-1")


class Answer(NamedTuple):
    """Where it begins in the context, in characters; −1: found nowhere."""

    text: str
    start: int


@dataclass(frozen=True)
class Columns:
    """texts: one name, or two. label: "" where there is none. guessed: the same in words, as far as nobody named them."""

    texts: tuple[str, ...]
    label: str
    guessed: str


def choose(table: Table, texts: Sequence[str], label: str, *, answers: bool = False) -> Columns:
    """The columns of those names, where the table has them, else the ones that are usually called so: a publisher's files may differ.

    Raises InvalidData where it has none.
    """
    have = {name.lower(): name for name in table.columns}
    chosen = tuple(texts) if set(texts) <= set(table.columns) else ()
    chosen = chosen or _usual(have, len(texts))
    if not chosen:
        asked = f"none is called {' or '.join(map(repr, texts))}" if texts else "which one holds the text?"
        raise InvalidData(f"{table.name} has the columns {', '.join(table.columns)}; {asked} Name it with text_columns=")
    usual = next((have[name] for name in (_ANSWERS if answers else _LABELS) if name in have), "")
    found = label if label in table.columns else usual
    guessed = [] if chosen == tuple(texts) else [f"{' and '.join(map(repr, chosen))} as the text{'s' * (len(chosen) > 1)}"]
    guessed += [] if found in ("", label) else [f"{found!r} as the {'answers' if answers else 'label'}"]
    return Columns(chosen, found, " and ".join(guessed))


def _usual(have: dict[str, str], count: int) -> tuple[str, ...]:
    """Of so many texts; 0: a pair rather than one."""
    for pair in _PAIRS if count != 1 else ():
        if all(name in have for name in pair):
            return tuple(have[name] for name in pair)
    return next(((have[name],) for name in _SINGLE if name in have), ()) if count != 2 else ()


def as_text(value: Any) -> str:
    """What a cell says; "" where it is empty. Raises InvalidData for bytes that are no UTF-8, as which some write text into Parquet."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InvalidData(f"a text is {value[:40]!r}, which is not UTF-8; decode it, and write it as text") from error
    empty = value is None or (isinstance(value, float) and math.isnan(value))
    return value if isinstance(value, str) else "" if empty else str(value)


def classes(values: Sequence[Any], known: Sequence[str], named: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) int64 into the labels, −1 where there is none; and the labels.

    known: the labels that were given. named: what the file says its numbers stand for. Without either, numbers are classes 0, 1, … and
    words are sorted. "-" and -1 stand for none, unless they are among `known`.
    Raises InvalidData for a value that is no label, and for numbers that can't be classes.
    """
    raw = [_word(value) for value in values]
    none = set(_NO_LABEL) - set(known)
    there = {word for word in raw if word not in none}
    numbers = all(word.isdecimal() for word in there)
    labels = tuple(known) or tuple(named)
    if not labels:
        if numbers and (most := max(map(int, there), default=0)) >= len(raw):
            raise InvalidData(
                f"the labels run up to {most}, of {len(raw)} samples: numbers are classes 0, 1, …; name the classes (labels=)"
            )
        labels = tuple(map(str, range(max(map(int, there)) + 1))) if numbers and there else tuple(sorted(there))
    places = {label: place for place, label in enumerate(labels)}
    if numbers and not there <= places.keys():
        places = {str(place): place for place in range(len(labels))}
    if not numbers and not there <= places.keys():
        folded = {label.casefold(): place for label, place in places.items()}
        places |= {word: folded[word.casefold()] for word in there if word.casefold() in folded}
    if wrong := sorted(there - places.keys()):
        raise InvalidData(f"{', '.join(map(repr, wrong[:5]))} is none of the labels {', '.join(labels[:10])}; give all of them, in order")
    return np.array([-1 if word in none else places[word] for word in raw], np.int64), labels


def _word(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bytes):
        return as_text(value).strip()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else "" if math.isnan(value) else str(value)
    return str(value).strip()


def scores(values: Sequence[Any]) -> np.ndarray:
    """(n,) float64, NaN where there is none. Raises InvalidData for what is no number."""
    found = np.full(len(values), np.nan)
    for place, value in enumerate(values):
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            found[place] = float(value)
        except (TypeError, ValueError) as error:
            raise InvalidData(f"sample {place + 1}: its score is {value!r}; give a number") from error
    return found


def answers(values: Sequence[Any], contexts: Sequence[str]) -> np.ndarray:
    """(n,) object: for each question a tuple of `Answer`, () where it has none, None where nothing is said.

    values: SQuAD's list, `datasets`' columns in a cell, or one text.
    Raises InvalidData for anything else.
    """
    found = np.empty(len(values), dtype=object)
    for place, (value, context) in enumerate(zip(values, contexts, strict=True)):
        if value is None:
            continue
        try:
            found[place] = tuple(_located(text, start, context) for text, start in _pairs(value))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidData(f"sample {place + 1}: its answers are {str(value)[:80]!r}; give texts and where each begins") from error
    return found


def _pairs(value: Any) -> list[tuple[str, int]]:
    if isinstance(value, str) and not value:
        return []
    if isinstance(value, str):
        return [(value, -1)]
    if isinstance(value, dict):  # {"text": […], "answer_start": […]}, or one answer
        texts, starts = value["text"], value.get("answer_start")
        if isinstance(texts, str):
            return [(texts, -1 if starts is None else int(starts))]
        return [(str(text), int(start)) for text, start in zip(texts, starts if starts is not None else [-1] * len(texts), strict=True)]
    return [pair for one in value for pair in _pairs(one)]


def _located(text: str, start: int, context: str) -> Answer:
    """Where the file is a few characters off, as some of SQuAD's are, the text that is nearest counts."""
    if start >= 0 and context[start : start + len(text)] == text:
        return Answer(text, start)
    places = [place for place in range(len(context)) if context.startswith(text, place)] if text else []
    return Answer(text, min(places, key=lambda place: abs(place - max(start, 0)), default=-1))
