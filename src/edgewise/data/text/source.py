"""All texts of a data set before anything was cleaned or split, whatever the files that they came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgewise.data.text import columns, files
from edgewise.data.text.columns import Columns
from edgewise.data.text.tables import Table
from edgewise.errors import InvalidData

Goal = Literal["class", "score", "answer", "none"]


@dataclass(frozen=True, eq=False)
class TextSource:
    """first, second: (n,) texts; second is None where a sample is one text.

    targets: (n,) int64 into `labels` (−1: none), float64 (NaN: none), or object: tuples of `columns.Answer` (None: none).
    None where nothing has any.
    given: (n,) the split that the publisher put each sample in: train, validation, test, or "" where none.
    """

    name: str
    first: Sequence[str]
    second: Sequence[str] | None
    targets: np.ndarray | None
    labels: tuple[str, ...]
    given: np.ndarray
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.first)
        if n == 0:
            raise InvalidData(f"{self.name}: no texts")
        for what, many in (("second texts", self.second), ("split names", self.given), ("targets", self.targets)):
            if many is not None and len(many) != n:
                raise InvalidData(f"{self.name}: {n} texts and {len(many)} {what}; expected one each")

    def labelled(self) -> np.ndarray:
        """(n,) bool: those with a target. A question without an answer has one: that there is none."""
        if self.targets is None:
            return np.zeros(len(self.first), dtype=bool)
        if self.targets.dtype == object:
            return np.array([target is not None for target in self.targets], dtype=bool)
        return self.targets >= 0 if self.targets.dtype.kind == "i" else np.isfinite(self.targets)


def load(
    where: str | Path | Mapping[str, Any] | TextSource,
    goal: Goal,
    *,
    text_columns: Sequence[str] = (),
    label_column: str = "",
    labels: Sequence[str] = (),
    as_test: Sequence[str] = (),
) -> TextSource:
    """The texts at `where` (see `files.find`), or a source as it is.

    goal: what the label's column holds. text_columns, label_column: names; left out, the usual ones are looked for, which is told.
    labels: of the classes, in the model's order. as_test: splits, as the publisher calls them or by the words train, validation and test,
    that make up the test split; left out, what is called test.
    Raises InvalidData for what isn't there or can't be read, and for a named column that no file has.
    """
    if isinstance(where, TextSource):
        return where
    tables = files.find(where)
    name = ", ".join(map(str, where.values())) if isinstance(where, Mapping) else str(where)
    _check_named(tables, name, text_columns, label_column)
    chosen = [columns.choose(table, text_columns, label_column, answers=goal == "answer") for table in tables]
    widths = {len(each.texts) for each in chosen}
    if len(widths) > 1:
        told = "; ".join(f"{table.name}: {', '.join(each.texts)}" for table, each in zip(tables, chosen, strict=True))
        raise InvalidData(f"some files have one text and others two ({told}); name the columns with text_columns=")
    given, called = _splits(tables, as_test)
    first, second = _column(tables, chosen, 0) or [], _column(tables, chosen, 1)
    targets, found = _targets(tables, chosen, goal, labels, second or first)
    findings = [*(finding for table in tables for finding in table.findings), *_nowhere(targets)]
    return TextSource(name, first, second, targets, found, given, (*findings, *_guessed(tables, chosen), *_called(called)))


def _column(tables: Sequence[Table], chosen: Sequence[Columns], place: int) -> list[str] | None:
    if len(chosen[0].texts) <= place:
        return None
    return [columns.as_text(value) for table, each in zip(tables, chosen, strict=True) for value in table.columns[each.texts[place]]]


def _targets(
    tables: Sequence[Table], chosen: Sequence[Columns], goal: Goal, labels: Sequence[str], contexts: Sequence[str] | None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if goal == "none" or not any(each.label for each in chosen):
        return None, ()
    values: list[Any] = []
    for table, each in zip(tables, chosen, strict=True):
        values += table.columns[each.label] if each.label else [None] * len(table)
    if goal == "score":
        return _told(columns.scores(values), tables), ()
    if goal == "answer":
        return columns.answers(values, contexts or ()), ()
    named = next((table.names[each.label] for table, each in zip(tables, chosen, strict=True) if each.label in table.names), ())
    found, names = columns.classes(values, labels, named)
    return (found, names) if names else (None, ())


def _nowhere(targets: np.ndarray | None) -> list[str]:
    """Questions whose answers were given, and aren't spans of their contexts: another column, or answers in words of their own."""
    if targets is None or targets.dtype != object:
        return []
    lost = [answers for answers in targets if answers and all(each.start < 0 for each in answers)]
    return [f"{len(lost)} answers don't stand in their contexts, as {lost[0][0].text[:40]!r}: no span is right there"] if lost else []


def _told(scores: np.ndarray, tables: Sequence[Table]) -> np.ndarray:
    """The same without those of a file that says −1 throughout, as `datasets` has it where a test's scores are held back."""
    first = 0
    for table in tables:
        own = scores[first : first + len(table)]
        if (own == -1).all():
            own[:] = np.nan
        first += len(table)
    return scores


def _check_named(tables: Sequence[Table], name: str, text_columns: Sequence[str], label_column: str) -> None:
    """A publisher's files may differ in what they call a column; one that none of them has is a slip."""
    for asked, what in ((text_columns, "text_columns"), ([label_column] if label_column else [], "label_column")):
        if asked and not any(set(asked) <= set(table.columns) for table in tables):
            have = ", ".join(dict.fromkeys(column for table in tables for column in table.columns))
            raise InvalidData(f"{name}: {what}={', '.join(asked)} names what no file has; the columns are {have}")


def _splits(tables: Sequence[Table], as_test: Sequence[str]) -> tuple[np.ndarray, dict[str, str]]:
    """(n,) our name for each sample's split; and what the publisher's names became."""
    own: list[str] = []
    for table in tables:
        own += [columns.as_text(value) for value in table.columns["split"]] if "split" in table.columns else [table.split] * len(table)
    called = {split: files.canonical(split) for split in dict.fromkeys(own)}
    for wanted in as_test:
        alike = [split for split, ours in called.items() if wanted in (split, ours) or files.canonical(wanted) == ours != ""]
        exact = [split for split in alike if split == wanted] or alike
        if not exact:
            told = ", ".join(filter(None, called)) or "none"
            raise InvalidData(f"as_test names {wanted!r}, and the data's splits are {told}; name those that are to be the test")
        called |= dict.fromkeys(exact, "test")
    return np.array([called[split] for split in own]), called


def _guessed(tables: Sequence[Table], chosen: Sequence[Columns]) -> list[str]:
    places: dict[str, list[str]] = {}
    for table, each in zip(tables, chosen, strict=True):
        if each.guessed:
            places.setdefault(each.guessed, []).append(table.split or Path(table.name).name)
    if not places:
        return []
    told = "; ".join(f"{what} in {', '.join(dict.fromkeys(where))}" for what, where in places.items())
    return [f"columns were guessed: {told} (text_columns= and label_column= choose others)"]


def _called(called: Mapping[str, str]) -> list[str]:
    """Where a split goes under another name here."""
    changed = [f"{split} is the {ours} split" for split, ours in called.items() if ours not in ("", split)]
    return [f"of the data's own splits, {', '.join(changed)}"] if changed else []
