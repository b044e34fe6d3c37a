"""How good a model is on a split, and how two models differ on the same samples.

Higher is better, and 1 is the best. "accuracy": top-1 against the labels. "agreement": the same arithmetic, where the targets are the
reference model's own top-1, for data without labels. "f1", "macro-f1", "matthews": of classes too. Numbers, embeddings and answers have
their metrics in `regression`, `vectors` and `text.squad`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgewise.data import regression, vectors
from edgewise.data.intervals import detectable, f1_interval, mcnemar, mean_of, tango, wilson
from edgewise.data.scores import correlation_interval, difference, influence_of_counts
from edgewise.data.text import squad
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.records import ClassQuality, Interval, PairedDifference, Quality

__all__ = ["METRICS", "agree", "paired", "quality", "top1", "wilson"]

_OF_CLASSES = ("accuracy", "agreement", "f1", "macro-f1", "matthews")
METRICS = (*_OF_CLASSES, *regression.METRICS, *vectors.METRICS, *squad.METRICS)


def top1(outputs: np.ndarray) -> np.ndarray:
    """outputs: (samples, classes), logits or probabilities -> (samples,) int64; ties go to the lower index.

    Raises InvalidModel for another shape, and for NaN: an argmax over NaN is a class, and nobody would notice.
    """
    values = np.asarray(outputs)
    if values.ndim != 2 or values.shape[1] == 0:
        raise InvalidModel(f"the model gave an output of shape {values.shape}; a classifier gives (samples, classes)")
    bad = int(np.isnan(values).any(axis=1).sum())
    if bad:
        raise InvalidModel(f"the model gave NaN for {bad} of {len(values)} samples; check its weights and its precision")
    return values.argmax(axis=1).astype(np.int64)


def quality(metric: str, split_name: str, outputs: np.ndarray, targets: np.ndarray | None, labels: Sequence[str]) -> Quality:
    """The metric with its interval, and a score for each sample, whose mean it is (see `scores` for those that are no means).

    outputs, targets: of classes (samples, classes) and (samples,) int64; of others as their modules say. Empty `labels` name classes by
    their number.
    Raises InvalidInput for an unknown metric, InvalidData for missing or wrong targets, InvalidModel for outputs that don't fit.
    """
    if metric in _OF_CLASSES:
        return _of_classes(metric, split_name, outputs, targets, labels)
    for module in (regression, vectors, squad):
        if metric in module.METRICS:
            return module.quality(metric, split_name, outputs, targets)
    raise InvalidInput(f"metric={metric!r}: give one of {', '.join(METRICS)}")


def agree(metric: str, first: np.ndarray, second: np.ndarray, targets: np.ndarray | None) -> np.ndarray | None:
    """(samples,) bool: on which two models' outputs are the same answer; None where answers are numbers, which nearly never are."""
    if metric in _OF_CLASSES:
        return top1(first) == top1(second)
    if metric in squad.METRICS:
        one, other = squad.answered(first, targets), squad.answered(second, targets)
        return np.array([squad.plain(a) == squad.plain(b) for a, b in zip(one, other, strict=True)])
    return vectors.nearest(first) == vectors.nearest(second) if metric == "recall@1" else None


def _of_classes(metric: str, split_name: str, outputs: np.ndarray, targets: np.ndarray | None, labels: Sequence[str]) -> Quality:
    """Precision, recall and F1 of every class that occurs beside it, and their macro means (`intervals.mean_of`).

    A class that is neither a target nor predicted is left out of `per_class` and of the means (as scikit-learn does).
    """
    predicted = top1(outputs)
    classes = np.asarray(outputs).shape[1]
    known = _checked_targets(targets, len(predicted), classes, labels, split_name)
    right = predicted == known
    per_class = _per_class(predicted, known, labels, classes)
    # Given how often each class occurs (is predicted), the classes' recalls (precisions) are independent of each other; their F1 aren't.
    precision = mean_of([c.precision for c in per_class], len(right))
    recall = mean_of([c.recall for c in per_class], len(right))
    f1 = mean_of([c.f1_interval for c in per_class if c.f1_interval], len(right), together=_f1_together(predicted, known, classes))
    share = wilson(int(right.sum()), len(right))
    if metric in ("accuracy", "agreement"):
        value, scores = share, right.astype(float)
    else:
        value, scores = _whole(metric, predicted, known, classes, f1)
    return Quality(
        metric=metric,
        split=split_name,
        value=value,
        scores=tuple(scores.tolist()),
        per_class=per_class,
        macro_precision=precision.value,
        macro_recall=recall.value,
        macro_f1=f1.value,
        macro_precision_interval=precision,
        macro_recall_interval=recall,
        macro_f1_interval=f1,
        also={} if value is share else {"accuracy": share},
    )


def _whole(metric: str, predicted: np.ndarray, known: np.ndarray, classes: int, macro: Interval) -> tuple[Interval, np.ndarray]:
    """A metric that only the whole split has, with its interval, and the scores that stand for it."""
    if metric == "macro-f1":
        return macro, influence_of_counts(lambda counts: float(np.mean(_f1s(counts)[_occurs(counts)])), known, predicted, classes)
    if metric == "matthews":
        scores = influence_of_counts(matthews, known, predicted, classes)
        return correlation_interval(matthews(_confusion(known, predicted, classes)), scores), scores
    if classes != 2:
        raise InvalidInput(f"metric='f1' is of two classes, and the model gives {classes}; take macro-f1")
    hit, said, real = int((predicted & known).sum()), int(predicted.sum()), int(known.sum())
    scores = influence_of_counts(lambda counts: float(_f1s(counts)[1]), known, predicted, 2)
    return f1_interval(hit, said - hit, real - hit), scores


def matthews(counts: np.ndarray) -> float:
    """Matthews' correlation of a confusion matrix (classes, classes), targets along the first axis; 0 where one side has a single class.

    (c·s − Σ p_k t_k) / sqrt((s² − Σ p_k²)(s² − Σ t_k²)), for several classes by Gorodkin (2004).
    """
    table = counts.astype(np.float64)
    total, right, real, said = table.sum(), np.trace(table), table.sum(axis=1), table.sum(axis=0)
    spread = (total**2 - (said**2).sum()) * (total**2 - (real**2).sum())
    return float((right * total - (real * said).sum()) / math.sqrt(spread)) if spread > 0 else 0.0


def _confusion(known: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(known * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _f1s(counts: np.ndarray) -> np.ndarray:
    both = counts.sum(axis=0) + counts.sum(axis=1)
    found: np.ndarray = 2 * np.diag(counts) / np.maximum(both, 1)
    return found


def _occurs(counts: np.ndarray) -> np.ndarray:
    found: np.ndarray = counts.sum(axis=0) + counts.sum(axis=1) > 0
    return found


def paired(reference: Quality, candidate: Quality) -> PairedDifference:
    """Candidate minus reference on the same samples in the same order.

    Scores of 0 and 1: Tango's interval, McNemar's exact p (see `intervals`). Others: Student's interval of the differences (see `scores`).
    Raises InvalidInput when they aren't of the same metric, split and samples.
    """
    theirs, ours = (reference.metric, reference.split, len(reference.scores)), (candidate.metric, candidate.split, len(candidate.scores))
    if theirs != ours:
        raise InvalidInput(f"can't pair {theirs} with {ours}: give two qualities of one metric on the same samples of one split")
    before, after = np.asarray(reference.scores), np.asarray(candidate.scores)
    if not (np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all()):
        return difference(before, after)
    gained, lost = int(((after == 1) & (before == 0)).sum()), int(((after == 0) & (before == 1)).sum())
    n = len(before)
    return PairedDifference(
        difference=tango(gained, lost, n),
        candidate_only_right=gained,
        reference_only_right=lost,
        p_value=mcnemar(gained, lost),
        detectable=detectable(gained + lost, n),
    )


def _checked_targets(targets: np.ndarray | None, n: int, classes: int, labels: Sequence[str], split_name: str) -> np.ndarray:
    if n == 0:
        raise InvalidData(f"split {split_name!r} has no sample; nothing can be said about it")
    if targets is None:
        raise InvalidData(f"split {split_name!r} has no targets; give labelled data, or the reference's predictions (task.with_targets)")
    known = np.asarray(targets)
    if known.shape != (n,) or known.dtype.kind not in "iu":
        raise InvalidData(f"targets of split {split_name!r} are {known.dtype} {known.shape}; expected integers of shape ({n},)")
    if labels and len(labels) != classes:
        raise InvalidModel(f"the model gives {classes} classes and the task has {len(labels)} labels; they must match, in order")
    if known.min() < 0 or known.max() >= classes:
        raise InvalidData(
            f"targets of split {split_name!r} run from {known.min()} to {known.max()}; the model's classes, 0 to {classes - 1}"
        )
    return known.astype(np.int64)


def _per_class(predicted: np.ndarray, known: np.ndarray, labels: Sequence[str], classes: int) -> tuple[ClassQuality, ...]:
    actual = np.bincount(known, minlength=classes)
    claimed = np.bincount(predicted, minlength=classes)
    hits = np.bincount(known[predicted == known], minlength=classes)
    rows = []
    for index in np.flatnonzero(actual + claimed):
        hit, real, said = int(hits[index]), int(actual[index]), int(claimed[index])
        f1: Interval = f1_interval(hit, said - hit, real - hit)
        rows.append(
            ClassQuality(
                label=labels[int(index)] if labels else str(index),
                n=real,
                precision=wilson(hit, said),
                recall=wilson(hit, real),
                f1=f1.value,
                f1_interval=f1,
            )
        )
    return tuple(rows)


def _f1_together(predicted: np.ndarray, known: np.ndarray, classes: int) -> float:
    """The variance of the sum of the classes' F1 to that of independent ones, 1 to 2, by the delta method (as Takahashi et al. 2022 do).

    An error is a miss of one class and a false alarm of another, and lowers both. F1 = 2TP/D with D = 2TP + FP + FN changes by 2(1 − F1)/D
    with a hit, by −F1/D with a miss or a false alarm. Without any error nothing can be read off: 2 is what few of them give.
    """
    hits = np.bincount(known[predicted == known], minlength=classes)
    whole = np.maximum(1, np.bincount(known, minlength=classes) + np.bincount(predicted, minlength=classes))
    f1 = 2 * hits / whole
    by_hit, by_error = 2 * (1 - f1) / whole, -f1 / whole
    right = predicted == known
    one = np.where(right, by_hit[known], by_error[known])
    other = np.where(right, 0.0, by_error[predicted])
    apart = float((one**2 + other**2).sum())
    return float(((one + other) ** 2).sum()) / apart if apart else 2.0
