import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from edgewise.errors import InvalidInput
from edgewise.graph import Graph, fold
from edgewise.graph.parts import parts
from edgewise.measure.layermodel import FEATURES, correct, features, fitted, latency_predictor, nonnegative, predictor
from edgewise.measure.sizes import layout
from edgewise.records import Interval, JointTime, LatencyTable, WidthTime
from edgewise.testing import graphs
from edgewise.types import Execution, from_json, to_json

WIDTH = 32


@pytest.fixture(scope="module")
def net():
    """Three convolutions in a row and a head: two parts that share a layer."""
    random = np.random.default_rng(0)
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        ("Conv", ["x", "one"], ["a"], same),
        ("Relu", ["a"], ["b"]),
        ("Conv", ["b", "two"], ["c"], same),
        ("Relu", ["c"], ["d"]),
        ("Conv", ["d", "three"], ["y"], same),
    ]
    shapes = {"one": (WIDTH, 3, 3, 3), "two": (WIDTH, WIDTH, 3, 3), "three": (4, WIDTH, 3, 3)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    graph = fold(Graph.from_proto(graphs.build(nodes, {"x": ("batch", 3, 8, 8)}, {"y": ("batch", 4, 8, 8)}, weights)))
    return graph, parts(graph)


def real(widths):
    """Time to the dense one's, where the middle layer grows with the product of both widths."""
    a, b = widths.get("one", WIDTH) / WIDTH, widths.get("two", WIDTH) / WIDTH
    return 0.1 + 0.1 * a + 0.7 * a * b + 0.1 * b


def exactly(value):
    return Interval(value, value, value, 10)


def table_of(joints=12):
    random = np.random.default_rng(1)
    entries = [WidthTime(name, width, exactly(real({name: width}))) for name in ("one", "two") for width in (24, 16, 8, 1)]
    joint = [{name: int(random.integers(1, WIDTH + 1)) for name in ("one", "two")} for _ in range(joints)]
    return LatencyTable(
        execution=Execution("engine"),
        form="",
        graph="0" * 64,
        inputs={"x": (1, 3, 8, 8)},
        device="d",
        created="2026-01-01T00:00:00+00:00",
        dense_ms=2.0,
        units={"one": WIDTH, "two": WIDTH},
        entries=tuple(entries),
        joint=tuple(JointTime(widths, exactly(real(widths))) for widths in joint),
    )


@pytest.fixture(scope="module")
def table(net):
    return fitted(table_of(), layout(*net, batch=1))


def unseen(n=20):
    random = np.random.default_rng(2)
    return [{name: int(random.integers(1, WIDTH + 1)) for name in ("one", "two")} for _ in range(n)]


def test_parts_that_share_a_layer_are_predicted_together(net, table):
    predict = latency_predictor(*net, table)
    assert predict({}) == pytest.approx(2.0)
    for widths in unseen():
        assert predict.ratio(widths) == pytest.approx(real(widths), rel=0.04)
        assert predict(widths) == pytest.approx(2.0 * predict.ratio(widths))


def test_entries_alone_tell_much_already(net):
    predict = predictor(fitted(table_of(joints=0), layout(*net, batch=1)), layout(*net, batch=1))
    for entry in table_of().entries:
        assert predict.ratio({entry.part: entry.width}) == pytest.approx(entry.ratio.value, rel=0.03)
    for widths in unseen():
        assert predict.ratio(widths) == pytest.approx(real(widths), abs=0.1)


def test_left_out_configurations_are_reported(table):
    assert 0 <= table.model.error <= table.model.worst < 0.1
    assert all(len(shares) == len(FEATURES) and min(shares) >= 0 for shares in table.model.shares.values())
    assert sum(map(sum, table.model.shares.values())) == pytest.approx(1)


def test_too_few_configurations_give_no_error(net):
    model = fitted(table_of(joints=5), layout(*net, batch=1)).model
    assert (model.error, model.worst) == (None, None)


def test_a_record_read_back_predicts_the_same(net, table):
    again = from_json(to_json(table), LatencyTable)
    assert again == table
    one, other = latency_predictor(*net, table), latency_predictor(*net, again)
    assert [one(widths) for widths in unseen()] == [other(widths) for widths in unseen()]


def test_many_predictions_at_once_are_the_same(net, table):
    predict = latency_predictor(*net, table)
    together = predict.ratios(np.stack([predict.layout.vector(widths) for widths in unseen()]))
    assert together == pytest.approx([predict.ratio(widths) for widths in unseen()], rel=1e-12)


def test_a_correction_is_followed_near_it_and_less_far_away(net, table):
    here, near, far = {"one": 8, "two": 8}, {"one": 9, "two": 8}, {"one": 32, "two": 30}
    before = latency_predictor(*net, table)
    after = latency_predictor(*net, correct(table, here, 1.2 * before.ratio(here)))
    change = [after.ratio(widths) / before.ratio(widths) for widths in (here, near, far)]
    assert change[0] == pytest.approx(1.2, rel=0.01)
    assert change[1] == pytest.approx(1.2, rel=0.02)
    assert 1.0 <= change[2] < 1.06
    twice = latency_predictor(*net, correct(correct(table, here, 1.2 * before.ratio(here)), far, before.ratio(far)))
    assert twice.ratio(here) == pytest.approx(1.2 * before.ratio(here), rel=0.01)
    assert twice.ratio(far) == pytest.approx(before.ratio(far), rel=0.01)


def test_corrections_are_written_down(table):
    widths, measured = {"one": 8}, Interval(0.5, 0.49, 0.51, 20)
    assert correct(table, widths, measured).corrections == (JointTime(widths, measured),)
    assert table.corrections == ()


def test_a_table_of_another_network_or_unfinished_is_refused(net, table):
    from dataclasses import replace

    with pytest.raises(InvalidInput, match="other parts"):
        latency_predictor(*net, replace(table, units={"one": WIDTH}))
    with pytest.raises(InvalidInput, match="known=table"):
        latency_predictor(*net, replace(table, model=None))


def test_features_of_the_dense_model_are_one(net):
    known = features(layout(*net, batch=1))
    columns = known.gathered(known.values(known.layout.vector({})[None]))[0]
    assert columns == pytest.approx((known.dense > 0).astype(float))
    assert known.expected.sum() == pytest.approx(1)


@given(seed=st.integers(0, 10**6), rows=st.integers(2, 30), columns=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_nonnegative_least_squares_agrees_with_scipy(seed, rows, columns):
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((rows, columns)), random.standard_normal(rows)
    ridge = 0.1
    wanted, _ = nnls(np.vstack([x, np.sqrt(ridge) * np.eye(columns)]), np.concatenate([y, np.zeros(columns)]))
    assert nonnegative(x.T @ x + ridge * np.eye(columns), x.T @ y) == pytest.approx(wanted, abs=1e-8)
