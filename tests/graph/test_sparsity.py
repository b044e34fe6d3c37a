"""The mark that keeps zeros: it is read back, added to, and survives what a graph goes through before it trains."""

from __future__ import annotations

import numpy as np

from edgewise.graph import Graph, fold, mark_sparse, sparse_weights, trainable
from edgewise.testing.graphs import build


def graph() -> Graph:
    weights = {"w1": np.eye(4, dtype=np.float32), "w2": np.ones((4, 2), np.float32)}
    return Graph.from_proto(
        build([("MatMul", ["x", "w1"], ["h"]), ("MatMul", ["h", "w2"], ["y"])], {"x": ("b", 4)}, {"y": ("b", 2)}, weights)
    )


def test_marks_add_up_and_leave_the_graph_that_came() -> None:
    plain = graph()
    once = mark_sparse(plain, ["w2"])
    assert sparse_weights(plain.proto) == frozenset() and sparse_weights(once.proto) == {"w2"}
    assert sparse_weights(mark_sparse(once, ["w1"]).proto) == {"w1", "w2"}


def test_the_mark_survives_bytes_and_the_training_form_and_not_what_engines_get() -> None:
    marked = mark_sparse(graph(), ["w1", "gone"])
    assert sparse_weights(Graph.from_bytes(marked.to_bytes()).proto) == {"w1", "gone"}
    assert sparse_weights(trainable(marked).proto) == {"w1"}
    assert not fold(marked).proto.metadata_props
