"""Several shapes on the bench: the worst of them counts. Real engine, real processes, a tiny graph with an open axis."""

import numpy as np
import pytest
from onnx import helper

from edgewise import devices
from edgewise.graph import Graph
from edgewise.measure import Subject
from edgewise.records import Interval, Quality
from edgewise.search import Bench, Reference, Store, shapes_of
from edgewise.search.bench import least, worst
from edgewise.types import Execution

ORT = Execution("onnxruntime")


def chain(count):
    """`count` multiplications of (batch, tokens, 64) by a square matrix."""
    weight = np.eye(64, dtype=np.float32)
    nodes = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"], name=f"n{i}") for i in range(count)]
    shape = ["batch", "tokens", 64]
    given = [helper.make_tensor_value_info("x0", 1, shape)]
    made = [helper.make_tensor_value_info(f"x{count}", 1, shape)]
    stored = [helper.make_tensor("w", 1, weight.shape, weight.tobytes(), raw=True)]
    proto = helper.make_model(helper.make_graph(nodes, "chain", given, made, stored), opset_imports=[helper.make_opsetid("", 18)])
    proto.ir_version = 10
    return Graph.from_proto(proto)


def inputs(tokens):
    return {"x0": np.ones((1, tokens, 64), np.float32)}


@pytest.fixture
def bench(tmp_path):
    return Bench(Store(tmp_path, lambda: None), None, devices.local(), (inputs(4), inputs(64)), ("origin",), None, list)


def reference(*graphs):
    return Reference(tuple(Subject(graph.to_bytes(), ORT) for graph in graphs), np.zeros((1, 1)), Quality("accuracy", "v", None, ()))


def test_a_task_names_its_shapes_and_the_smallest_comes_first():
    class Several:
        def timed_inputs(self):
            return [inputs(64), inputs(4)]

    class One:
        def example_inputs(self, n):
            return inputs(n)

    assert [shape["x0"].shape[1] for shape in shapes_of(Several())] == [4, 64]
    assert [shape["x0"].shape[1] for shape in shapes_of(One())] == [1]


def test_a_side_races_at_every_shape_and_its_least_ratio_counts(bench):
    dense = chain(24)
    first, own = bench.race([reference(dense, dense), Subject(chain(4).to_bytes(), ORT)], block_ms=5, min_rounds=6, rounds=8)
    assert len(first) == len(own) == 2
    assert least(own).value == min(one.ratio.value for one in own) > 1


def test_the_reference_is_another_engine_at_each_shape(bench):
    slow, quick = chain(24), chain(2)
    options = {"max_seconds": 1.0, "block_ms": 5, "min_pairs": 6}
    small, large = bench.compare(reference(slow, quick), Subject(chain(8).to_bytes(), ORT), **options)
    assert small.ratio.value > 1 > large.ratio.value
    assert worst([small, large]) is large
    shapes = bench.told(reference(slow, quick).subjects, [small, large])
    assert [dict(one.inputs) for one in shapes] == [{"x0": (1, 4, 64)}, {"x0": (1, 64, 64)}]
    assert shapes[1].ratio == large.ratio and shapes[0].reference_ms == np.median(small.reference_ms)


def test_what_a_package_takes_is_found_out_once(tmp_path):
    made = []

    class Package:
        size_bytes = 1234

    def package(graph, forms):
        made.append(graph)
        return Package

    for _ in range(2):  # the second is of a study that goes on
        bench = Bench(Store(tmp_path, lambda: None), None, devices.local(), (inputs(4),), ("origin",), package, list)
        assert [bench.package_bytes(chain(count)) for count in (2, 2, 3)] == [1234] * 3
    assert len(made) == 2


def test_one_shape_tells_nothing_apart_and_a_side_that_fails_at_one_has_no_ratio(bench):
    class Part:
        def __init__(self, ratio):
            self.ratio = ratio

    assert least([Part(Interval(1, 1, 1, 1)), Part(None)]) is None
    alone = Bench(bench.store, None, bench.device, bench.shapes[:1], (), None, list)
    assert alone.told(reference(chain(1)).subjects, []) == ()
