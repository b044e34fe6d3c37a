"""Metrics of embeddings: how close they are to a teacher's, and whether a text's nearest neighbour is the one that belongs to it."""

from __future__ import annotations

import numpy as np

from edgewise.data.intervals import wilson
from edgewise.data.scores import mean_interval
from edgewise.errors import InvalidData, InvalidModel
from edgewise.records import Quality

METRICS = ("cosine", "recall@1")
_AT_ONCE = 512  # queries; each is held against all documents


def quality(metric: str, split_name: str, outputs: np.ndarray, targets: np.ndarray | None) -> Quality:
    """cosine: outputs and targets (samples, width), the mean cosine of each to its own. recall@1: see `nearest`.

    Raises InvalidData for missing targets, InvalidModel for outputs of another shape, or with NaN.
    """
    given = np.asarray(outputs, np.float64)
    if not np.isfinite(given).all():
        raise InvalidModel("the model gave NaN or infinity; check its weights and its precision")
    if targets is None:
        raise InvalidData(f"split {split_name!r} has no targets; give pairs of texts, or a teacher's embeddings")
    if metric == "cosine":
        scores = cosines(given, np.asarray(targets, np.float64))
        return Quality(metric=metric, split=split_name, value=mean_interval(scores, -1.0, 1.0), scores=tuple(scores.tolist()))
    right = np.asarray(targets)[nearest(given)] == targets
    return Quality(metric=metric, split=split_name, value=wilson(int(right.sum()), len(right)), scores=tuple(right.astype(float).tolist()))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(samples, width) each -> (samples,); 0 where one of the two is zero. Raises InvalidModel where the shapes differ."""
    if one.shape != other.shape or one.ndim != 2:
        raise InvalidModel(f"embeddings of shape {one.shape} against targets of {other.shape}; expected (samples, width) of both")
    found: np.ndarray = (_unit(one) * _unit(other)).sum(axis=1)
    return found


def nearest(outputs: np.ndarray) -> np.ndarray:
    """(samples, 2, width), a query and its document each -> (samples,) the number of the document nearest to each query, by cosine."""
    if outputs.ndim != 3 or outputs.shape[1] != 2:
        raise InvalidModel(f"embeddings of shape {outputs.shape}; retrieval expects (samples, 2, width)")
    queries, documents = _unit(outputs[:, 0]), _unit(outputs[:, 1])
    found = [(queries[start : start + _AT_ONCE] @ documents.T).argmax(axis=1) for start in range(0, len(queries), _AT_ONCE)]
    return np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: np.ndarray = vectors / np.where(length > 0, length, 1)
    return found
