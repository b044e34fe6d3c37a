"""What pruning has to reach, and what predicts bytes."""

from dataclasses import replace

import pytest

from edgewise.graph import Graph, parts, shrink
from edgewise.search.limits import Form, Limits, bytes_predictor
from edgewise.testing import graphs
from edgewise.types import Execution


@pytest.fixture(scope="module")
def form():
    graph = Graph.from_proto(graphs.mlp()[0])
    return Form("", Execution("onnxruntime"), graph, (1.5,), graph.size_bytes, 3e6)


def test_the_limit_that_is_missed_most_counts(form):
    assert not Limits()
    assert Limits(3.0).left(form) == pytest.approx(2.0)
    assert Limits(3.0, form.size_bytes / 4).left(form) == pytest.approx(4.0)
    assert Limits(None, None, 1e6).left(form) == pytest.approx(3.0)
    assert Limits(1.0, form.size_bytes, 3e6).left(form) == pytest.approx(1.0)
    assert Limits(None, None, 1e6).left(replace(form, memory_bytes=None)) == 0.0  # wasn't measured


def test_halfway_is_the_geometric_middle(form):
    half = Limits(6.0, form.size_bytes / 4, None).halfway(form, 1.5)
    assert half.speedup == pytest.approx(3.0) and half.size_bytes == pytest.approx(form.size_bytes / 2) and half.memory_bytes is None
    assert Limits(None, form.size_bytes * 2).halfway(form, 1.5).size_bytes == form.size_bytes * 2  # never less than what is asked


def test_only_time_has_a_margin():
    assert Limits(2.0, 100.0, 200.0).tightened(1.02) == Limits(2.04, 100.0, 200.0)
    assert str(Limits(2.0, 150_000, 5e6)) == "2x, 150 kB, 5 MB of memory"


def test_bytes_go_through_what_was_measured(form):
    coupling = parts(form.graph)
    narrow = {part.name: 0 if part.removable else 1 for part in coupling.parts}

    def measured(widths):
        return shrink(form.graph, {name: range(width) for name, width in widths.items()}).size_bytes

    predict = bytes_predictor(form, form.size_bytes, narrow, measured(narrow))
    assert predict({}) == form.size_bytes
    assert predict(narrow) == pytest.approx(measured(narrow))
    half = {part.name: max(1, part.units // 2) for part in coupling.parts}
    assert predict(half) == pytest.approx(measured(half), rel=0.1)  # of so small a file, what holds the weights is half
    assert predict.corrected(half, 123.0)(half) == 123.0
    coded = bytes_predictor(form, form.size_bytes / 2, narrow, measured(narrow), {"w1": 0.25})
    assert coded({}) == form.size_bytes / 2
    assert coded.weights({}) == predict.weights({}) - 0.75 * 16 * 32 * 4  # bytes of w1 that a package doesn't hold
