import numpy as np
import pytest
from onnx import TensorProto, helper

from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.records import Trial
from edgewise.search.pace import Pace
from edgewise.search.store import Store, key, write
from edgewise.types import Execution


def graph() -> Graph:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (2, 2), np.eye(2, dtype=np.float32).ravel())
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2)) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:], [weight]), opset_imports=[helper.make_opsetid("", 18)])
    return Graph.from_proto(model)


def test_a_trial_comes_back_as_it_was(tmp_path):
    store = Store(tmp_path)
    trial = Trial("abc", "int8", "quantize()", Execution("e", options={"a": "b"}), "failed", reason="no", skipped={"n": "why"})
    assert store.trial("abc") is None
    store.keep(trial)
    assert Store(tmp_path).trial("abc") == trial


def test_a_torn_trial_counts_as_not_there(tmp_path):
    store = Store(tmp_path)
    store.keep(Trial("abc", "int8", "", Execution("e"), "failed"))
    path = tmp_path / "trials" / "abc.json"
    path.write_bytes(path.read_bytes()[:40])
    assert store.trial("abc") is None


def test_a_graph_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return graph()

    store = Store(tmp_path)
    first, path = store.graph("k", make)
    second, _ = Store(tmp_path).graph("k", make)
    assert made == [1]
    assert first.sha256 == second.sha256
    assert (tmp_path / path).exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "file"
    write(target, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="can't keep a study"):
        Store(tmp_path / "file")


def test_notes(tmp_path):
    store = Store(tmp_path)
    assert store.noted("n") is None
    store.note("n", ["a", "b"])
    assert Store(tmp_path).noted("n") == ["a", "b"]


def test_keys_tell_parts_apart():
    assert key("a", "b") != key("ab") != key("b", "a")
    assert key("a", 1) == key("a", 1)


def test_the_pace_corrects_its_estimate():
    now = [0.0]
    told = []
    pace = Pace(10, lambda what, share, left: told.append((what, share, left)), clock=lambda: now[0])
    pace.begin("first")
    now[0] = 10.0  # planned to take 5: everything takes twice as long
    pace.finish(5)
    pace.begin("second")
    assert told == [("first", 0.0, 10.0), ("second", 0.5, 10.0)]


def test_the_pace_moves_within_a_piece_and_never_back():
    now, told = [0.0], []
    pace = Pace(10, lambda what, share, left: told.append((share, left)), clock=lambda: now[0])
    with pace.piece(5) as tell:
        now[0] = 4.0
        tell("half of it", 0.5)
    assert told == [(0.25, pytest.approx(4 / 2.5 * 7.5))]
    pace.begin("next")
    assert told[-1][0] == 0.5
    pace.add(10)  # more work than was thought
    pace.begin("more")
    assert told[-1] == (0.5, pytest.approx(4 / 5 * 15))
