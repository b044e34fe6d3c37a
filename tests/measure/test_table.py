import numpy as np
import pytest

from edgewise.errors import InvalidInput, InvalidModel, MeasurementFailed
from edgewise.graph import Graph, Index, fold, infer_shapes
from edgewise.graph.parts import parts
from edgewise.graph.shrink import shrink
from edgewise.measure.alternating import Alternating
from edgewise.measure.layermodel import features, latency_predictor
from edgewise.measure.sizes import layout
from edgewise.measure.table import alike, default_ladder, joint_widths, latency_table
from edgewise.records import LatencyTable
from edgewise.testing import FakeClock, graphs
from edgewise.types import Execution, from_json, to_json

EXECUTION = Execution("onnxruntime")
INPUTS = {"x": np.ones((1, 3, 12, 12), np.float32)}


def weight(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def staged(narrow=16, wide=32):
    """A stem with two residual blocks, one with a stride to twice the width, two blocks more, and a head."""
    same = {"pads": [1, 1, 1, 1]}
    nodes = [("Conv", ["x", "stem"], ["s"], same), ("Relu", ["s"], ["r0"])]
    weights = {"stem": weight(narrow, 3, 3, 3), "down": weight(wide, narrow, 3, 3), "head": weight(wide, 10)}
    last = "r0"
    for i in range(1, 5):
        if i == 3:
            nodes += [("Conv", [last, "down"], ["d"], same | {"strides": [2, 2]}), ("Relu", ["d"], ["e"])]
            last = "e"
        nodes += [
            ("Conv", [last, f"a{i}"], [f"p{i}"], same),
            ("Relu", [f"p{i}"], [f"q{i}"]),
            ("Conv", [f"q{i}", f"b{i}"], [f"t{i}"], same),
            ("Add", [f"t{i}", last], [f"u{i}"]),
            ("Relu", [f"u{i}"], [f"r{i}"]),
        ]
        width = narrow if i < 3 else wide
        weights |= {f"a{i}": weight(width, width, 3, 3), f"b{i}": weight(width, width, 3, 3)}
        last = f"r{i}"
    nodes += [("GlobalAveragePool", [last], ["g"]), ("Flatten", ["g"], ["f"]), ("MatMul", ["f", "head"], ["y"])]
    return fold(Graph.from_proto(graphs.build(nodes, {"x": ("batch", 3, 12, 12)}, {"y": ("batch", 10)}, weights)))


@pytest.fixture(scope="module")
def net():
    graph = staged()
    return graph, parts(graph)


def synthetic_ms(graph):
    """A cost of its own: vectors of eight channels, memory, a call's overhead; larger maps run at a better rate."""
    index = Index(infer_shapes(graph))
    ms = 0.02
    for node in index.nodes:
        if node.op_type == "Conv":
            outputs, inputs, *kernel = index.initializers[node.input[1]].dims
            area = int(np.prod(index.shape(node.output[0])[2:]))
            macs = 8 * -(-outputs // 8) * 8 * -(-inputs // 8) * int(np.prod(kernel)) * area
            ms += 0.003 + macs / (2e7 if area > 100 else 1.2e7) + outputs * area / 5e6
        elif node.op_type == "Add":
            ms += 0.001 + int(np.prod(index.shape(node.output[0])[1:])) / 8e6
    return ms


class Timer:
    """Times by `synthetic_ms` with a little noise; remembers what it was asked to time."""

    def __init__(self, dense, clock, noise=0.003, seconds=0.2):
        self.dense_ms, self.clock, self.noise, self.seconds = synthetic_ms(dense), clock, noise, seconds
        self.random = np.random.default_rng(0)
        self.timed = []

    def __call__(self, graph, pairs):
        self.clock.sleep(self.seconds)
        self.timed.append(graph)
        ms = synthetic_ms(graph)
        drift = self.random.uniform(0.8, 1.2)
        return [tuple(drift * value * np.exp(self.random.normal(0, self.noise, 2))) for value in [np.array([self.dense_ms, ms])] * pairs]


def measure(net, device, timer, **options):
    options = {"timer": timer, "clock": timer.clock} | options
    return latency_table(*net, EXECUTION, INPUTS, device, **options)


@pytest.fixture(scope="module")
def measured(net, device):
    timer = Timer(net[0], FakeClock())
    return measure(net, device, timer), timer


def test_unseen_combinations_are_predicted(net, measured):
    table, timer = measured
    predict = latency_predictor(*net, table)
    random = np.random.default_rng(9)
    errors = []
    for _ in range(40):
        share = random.uniform(0.2, 1.0)
        widths = {part.name: max(1, int(part.units * share * random.uniform(0.5, 1.0))) for part in net[1].parts}
        if random.random() < 0.3:
            widths["a3"] = 0
        real = synthetic_ms(shrink(net[0], {name: range(width) for name, width in widths.items()}, coupling=net[1]))
        errors.append(abs(predict(widths) / real - 1))
    assert np.median(errors) < 0.03
    assert max(errors) < 0.10
    assert table.model.error < 0.03
    assert table.dense_ms == pytest.approx(timer.dense_ms, rel=0.1)
    assert table.scatter.value == pytest.approx(1, abs=0.01)


def test_parts_that_are_alike_are_measured_once(net, measured):
    table, _ = measured
    names = [part.name for part in net[1].parts]
    groups = [[names[number] for number in group] for group in alike(layout(*net, batch=1))]
    assert groups == [["stem"], ["a1", "a2"], ["down"], ["a3", "a4"]]
    entries = {(entry.part, entry.width): entry for entry in table.entries}
    for width in (8, 0):
        one, other = entries["a1", width], entries["a2", width]
        assert one.ratio == other.ratio
        assert (one.measured_as, other.measured_as) == ("", "a1")
        assert one.together == 2
        alone = synthetic_ms(shrink(net[0], {"a2": range(width)}, coupling=net[1])) / synthetic_ms(net[0])
        assert other.ratio.value == pytest.approx(alone, abs=0.006)


def test_what_is_known_is_not_measured_again(net, device, measured):
    table, _ = measured
    timer = Timer(net[0], FakeClock())
    assert measure(net, device, timer, known=table) == table
    assert timer.timed == []


def test_an_interrupted_table_goes_on_where_it_stopped(net, device):
    kept = []

    class Stopped(Timer):
        def __call__(self, graph, pairs):
            if len(self.timed) == 20:
                raise KeyboardInterrupt
            return super().__call__(graph, pairs)

    with pytest.raises(KeyboardInterrupt):
        measure(net, device, Stopped(net[0], FakeClock()), keep=kept.append, seconds=5)
    begun = from_json(to_json(kept[-1]), LatencyTable)
    assert begun.entries
    assert begun.model is None
    timer = Timer(net[0], FakeClock())
    whole = Timer(net[0], FakeClock())
    done = measure(net, device, timer, known=begun, seconds=5)
    assert done.entries[: len(begun.entries)] == begun.entries
    assert done.joint[: len(begun.joint)] == begun.joint
    complete = measure(net, device, whole, seconds=5)
    assert {(entry.part, entry.width) for entry in done.entries} == {(entry.part, entry.width) for entry in complete.entries}
    assert len(timer.timed) < len(whole.timed) - 10


def test_a_ladder_of_ones_own(net, device):
    timer = Timer(net[0], FakeClock())
    table = measure(net, device, timer, ladder={"stem": [8, 4, 16]}, seconds=1)
    assert [(entry.part, entry.width) for entry in table.entries] == [("stem", 8), ("stem", 4)]
    more = measure(net, device, timer, ladder={"stem": [8, 12]}, known=table)
    assert [entry.width for entry in more.entries] == [8, 4, 12]
    for wrong, words in [({"steam": [8]}, "steam"), ({"stem": [0]}, "widths from 1 to 16"), ({"stem": [17]}, "widths from 1 to 16")]:
        with pytest.raises(InvalidInput, match=words):
            measure(net, device, timer, ladder=wrong)


def test_the_estimate_comes_first_and_slow_models_get_fewer_widths(net, device):
    told = []
    quick, slow = Timer(net[0], FakeClock(), seconds=0.1), Timer(net[0], FakeClock(), seconds=3.0)
    measure(net, device, quick, progress=lambda what, share: told.append((what, share)))
    assert told[0][1] == 0.0
    assert "about" in told[0][0]
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    measure(net, device, slow, seconds=90)
    assert len(slow.timed) < 0.6 * len(quick.timed)
    assert quick.clock.now <= 95


def test_widths_that_an_engine_refuses_are_left_out_and_told(net, device):
    class Refusing(Timer):
        def __call__(self, graph, pairs):
            if any(list(tensor.dims)[:1] == [4] for tensor in graph.proto.graph.initializer):
                raise InvalidModel("no kernel for four channels")
            return super().__call__(graph, pairs)

    table = measure(net, device, Refusing(net[0], FakeClock()), seconds=5)
    assert table.entries
    assert table.model
    assert any("stem at 4 could not be timed: no kernel" in note for note in table.notes)
    with pytest.raises(MeasurementFailed, match="no kernel"):
        measure(net, device, Refusing(net[0], FakeClock()), ladder={"stem": [4]})


def test_a_table_of_other_circumstances_is_refused(net, device, measured):
    other = Execution("onnxruntime", threads=2)
    with pytest.raises(InvalidInput, match="execution="):
        latency_table(*net, other, INPUTS, device, known=measured[0], timer=measured[1])


def test_a_model_without_parts_is_told(device):
    graph = fold(Graph.from_proto(graphs.build([("Relu", ["x"], ["y"])], {"x": ("batch", 4)}, {"y": ("batch", 4)}, {})))
    with pytest.raises(InvalidInput, match="no part of this model"):
        latency_table(graph, parts(graph), EXECUTION, {"x": np.ones((1, 4), np.float32)}, device)


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        ((3,), (2, 1)),
        ((16,), (12, 8, 4, 1)),
        ((32, True), (24, 16, 12, 8, 4, 1, 0)),
        ((64, False, 4), (40, 24, 8, 1)),
        ((1, True), (0,)),
    ],
)
def test_ladders(arguments, widths):
    assert default_ladder(*arguments) == widths


def test_what_matrices_multiply_is_thinned_out_to_whole_tiles():
    assert default_ladder(384, False, 10, kind="hidden") == (320, 256, 192, 128, 96, 64, 40, 24, 8, 1)
    assert default_ladder(1536, True, 7, kind="neurons") == (1152, 768, 512, 320, 128, 40, 1, 0)
    assert default_ladder(384, False, 10)[0] == 312 and default_ladder(64, kind="hidden") == default_ladder(64)
    assert default_ladder(12, True, 4, kind="heads")[-1] == 0


def test_joint_configurations_cover_the_region_and_are_repeatable(net):
    plan = layout(*net, batch=1)
    known = features(plan)
    chosen = [joint_widths(known, 0, index) for index in range(24)]
    assert chosen == [joint_widths(known, 0, index) for index in range(24)]
    costs = [synthetic_ms(shrink(net[0], {name: range(width) for name, width in one.items()})) / synthetic_ms(net[0]) for one in chosen]
    assert max(costs) > 0.55
    assert min(costs) < 0.3
    assert any(0 in one.values() for one in chosen)
    assert all(plan.least[list(plan.parts).index(name)] <= width <= plan.parts[name] for one in chosen for name, width in one.items())


def test_end_to_end_on_an_engine(device):
    """No figure is asserted: it runs, in processes that end, and predicts something."""
    graph = staged(8, 8)
    coupling = parts(graph)
    table = latency_table(graph, coupling, EXECUTION, INPUTS, device, ladder={"stem": [4], "a1": [4, 0]}, seconds=1)
    assert {(entry.part, entry.width) for entry in table.entries} == {
        ("stem", 4),
        *((f"a{i}", width) for i in range(1, 3) for width in (4, 0)),
    }
    assert table.dense_ms > 0
    assert table.conditions.engine.startswith("onnxruntime")
    assert table.seconds > 0
    assert 0 < latency_predictor(graph, coupling, table)({"stem": 4, "a3": 0}) < 100


def test_a_graph_that_is_refused_leaves_whole_processes_for_the_next(net, device):
    with Alternating(net[0], EXECUTION, INPUTS, ()) as timer:
        with pytest.raises(InvalidModel):
            timer(Graph.from_proto(graphs.build([("NoSuch", ["x"], ["y"])], {"x": ("batch", 3, 12, 12)}, {"y": ("batch", 4)}, {})), 1)
        pairs = timer(net[0], 2)
    assert len(pairs) == 2
    assert min(min(pair) for pair in pairs) > 0
