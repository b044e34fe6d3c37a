import numpy as np
import pytest

from edgewise import backends
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.graph import Graph
from edgewise.measure import answers, collect, divergence, layers, quality
from edgewise.testing import FakeClock, FakeRunner, graphs
from edgewise.types import Execution, Signature, TensorSpec


class Samples:
    """A Split over arrays."""

    name = "validation"

    def __init__(self, x, targets=None):
        self.x, self.targets = x, targets

    def __len__(self):
        return len(self.x)

    def batches(self, size):
        for i in range(0, len(self.x), size):
            yield {"x": self.x[i : i + size]}, None if self.targets is None else self.targets[i : i + size]


X = np.arange(28, dtype=np.float32).reshape(7, 4)


def runner(batch, answer=None):
    signature = Signature((TensorSpec("x", (batch, 4), "float32"),), (TensorSpec("y", (batch, 4), "float32"),))
    return FakeRunner(FakeClock(), signature=signature, answer=answer)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_collect_keeps_order_whatever_the_batch(size):
    np.testing.assert_array_equal(collect(runner("batch"), Samples(X), size), X)


@pytest.mark.parametrize("fixed", [1, 2, 7, 10])
def test_collect_pads_for_a_fixed_batch(fixed):
    seen = []
    model = runner(fixed, lambda inputs: seen.append(inputs["x"].shape) or {"y": inputs["x"] * 2})
    np.testing.assert_array_equal(collect(model, Samples(X)), X * 2)
    assert set(seen) == {(fixed, 4)}


def test_collect_refuses_what_cannot_be_judged():
    with pytest.raises(InvalidData, match="empty"):
        collect(runner("batch"), Samples(X[:0]))
    with pytest.raises(InvalidModel, match="NaN"):
        collect(runner("batch", lambda inputs: {"y": inputs["x"] * np.nan}), Samples(X))
    with pytest.raises(InvalidModel, match="batch"):
        collect(runner("batch", lambda inputs: {"y": inputs["x"].sum()}), Samples(X))


def test_quality_scores_each_sample():
    targets = np.array([3, 3, 3, 0, 3, 3, 3])
    found = quality(runner("batch"), Samples(X, targets), metric="accuracy", labels="abcd", batch=2)
    assert found.scores == (1, 1, 1, 0, 1, 1, 1)
    assert found.split == "validation"
    with pytest.raises(InvalidData, match="no labels"):
        quality(runner("batch"), Samples(X), metric="accuracy", labels="abcd")


def test_divergence():
    a = np.array([3.0, 4.0])
    assert divergence(a, a) == 0
    assert divergence(a, a + np.array([0.3, 0.4])) == pytest.approx(0.1)
    assert divergence(a.astype(np.float32), (a * 2).astype(np.float16)) == pytest.approx(1)
    assert divergence(a * 0, a * 0) == 0
    assert divergence(a * 0, a) == np.inf
    assert divergence(a, a * np.nan) == np.inf
    with pytest.raises(InvalidInput, match="shape"):
        divergence(a, a[:1])


@pytest.mark.parametrize("name", backends.taking())
def test_layers_name_where_two_graphs_part(name):
    model, inputs = graphs.convolution()
    other, _ = graphs.convolution()
    other.graph.node[2].input[1] = "w2b"  # the second convolution gets other weights
    weight = other.graph.initializer.add()
    weight.CopyFrom(next(tensor for tensor in model.graph.initializer if tensor.name == "w2"))
    weight.name = "w2b"
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 1.5).tobytes()
    a, b = Graph.from_bytes(model.SerializeToString()), Graph.from_bytes(other.SerializeToString())
    found = layers(a, b, inputs, execution=Execution(name))
    assert [layer.tensor for layer in found.layers] == ["c1", "r1", "c2", "s", "r2", "p", "f", "y"]
    assert found.first.tensor == "c2"
    assert found.first.op == "Conv"
    assert found.first.divergence == pytest.approx(0.5, rel=1e-3)
    same = layers(a, a, inputs)
    assert same.first is None
    assert max(layer.divergence for layer in same.layers) == 0


@pytest.mark.parametrize("name", backends.taking())
def test_answers_of_a_dynamic_model_do_not_depend_on_the_samples_beside_it(name):
    nodes = [
        ("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        ("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graph = Graph.from_proto(graphs.build(nodes, {"x": ("batch", 4)}, {"y": ("batch", 4)}, {}))
    x = np.array([[0, 1, 2, 3], [0, 1000, 2000, 3000]], np.float32)  # one scale for both would round the first row away
    got = answers(graph, Execution(name), Samples(x))
    np.testing.assert_allclose(got, x, rtol=0.005)
