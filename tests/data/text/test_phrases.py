"""What stands inside what, against a plain search for words."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.data.text import phrases
from edgewise.data.text.phrases import inside, tokens


def by_hand(needles: list[str], hay: list[str]) -> list[bool]:
    return [bool(a) and any(len(b.split()) > len(a.split()) and f" {a} " in f" {b} " for b in hay) for a in needles]


TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_it_finds_what_a_search_finds(needles: list[str], hay: list[str]) -> None:
    both = tokens(needles + hay)
    left, right = both.take(np.arange(len(needles))), both.take(np.arange(len(needles), len(needles) + len(hay)))
    assert inside(left, right).tolist() == by_hand(needles, hay)


@pytest.mark.parametrize("at_once", [1 << 21, 5])
def test_long_texts_that_begin_alike(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(phrases, "_AT_ONCE", at_once)
    drawn = random.Random(0)
    for _ in range(20):
        texts = [" ".join(drawn.choice("ab") for _ in range(drawn.choice([1, 4, 17, 70, 90]))) for _ in range(20)]
        texts += [f"{texts[0]} c", texts[1][2:], texts[2][:-2], f"{'a ' * 100}b"]
        found = tokens(texts)
        assert inside(found, found).tolist() == by_hand(texts, texts)


def test_words_are_whole_and_case_does_not_count() -> None:
    found = tokens(["the art", "In THE art of.", "the article", "", "of.", "the art"])
    assert inside(found, found).tolist() == [True, False, False, False, True, True]
    assert tokens([]).lengths.tolist() == [] and not len(inside(tokens([]), tokens([])))
