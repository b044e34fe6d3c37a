"""From a graph to a form and its card: the converter is stood in for by a program that gives a flatbuffer it made before."""

from __future__ import annotations

import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgewise import registry, tflite
from edgewise.errors import InvalidInput, InvalidModel, MeasurementFailed, MissingExtra
from edgewise.export import forms
from edgewise.export.litert import INTERPRETER, convert, converting, interpreter
from edgewise.graph import Graph
from edgewise.testing import graphs
from edgewise.types import Execution, Inputs

MADE = Path(__file__).parents[2] / "backends" / "forms"
LITERT = Execution("litert")
engine = pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="ai-edge-litert isn't installed")


def stand_in(folder: Path, does: str) -> str:
    """A program that is called as the converter's Python: `-P child.py ROOT FOLDER`."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nfolder=$4\n{does}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def giving(folder: Path, name: str) -> str:
    """What the converter made of a graph of that name: without the card, which comes later."""
    made = folder / "made.tflite"
    made.write_bytes((MADE / f"{name}.tflite").read_bytes().replace(b'{"signature"', b'-"signature"', 1))
    return stand_in(folder, f"cp '{made}' \"$folder/model.tflite\"")


def mlp() -> tuple[Graph, Inputs]:
    model, inputs = graphs.mlp()
    return Graph.from_proto(model), inputs


@engine
def test_a_form_is_held_against_its_graph_and_says_so(tmp_path: Path) -> None:
    graph, inputs = mlp()
    form = convert(graph, [inputs], LITERT, python=giving(tmp_path, "float-mlp"))
    card = tflite.interface(form).card
    assert card is not None
    assert (card.rows, card.sizes, card.padded, card.samples) == ("batch", {"batch": 1}, (), 5)
    assert card.graph == graph.sha256 and card.divergence < 1e-6
    assert card.signature == graph.signature


@engine
def test_a_form_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    model, inputs = graphs.mlp()
    for tensor in model.graph.initializer:
        if tensor.name == "b1":
            tensor.raw_data = np.frombuffer(tensor.raw_data, np.float32).__add__(np.float32(0.1)).tobytes()
    graph, python = Graph.from_proto(model), giving(tmp_path, "float-mlp")
    with pytest.raises(InvalidModel, match=r"answers otherwise.*at most 0.001.*5 samples"):
        convert(graph, [inputs], LITERT, python=python)
    assert tflite.interface(convert(graph, [inputs], LITERT, python=python, most=0.5)).card.divergence > 1e-3  # type: ignore[union-attr]


@engine
def test_axes_that_zeros_fill_are_found_on_the_graph(tmp_path: Path) -> None:
    model, inputs = graphs.two_inputs()
    form = convert(
        Graph.from_proto(model), [inputs], LITERT, sizes={"batch": 1, "sequence": 9}, python=giving(tmp_path, "float-two-inputs")
    )
    assert tflite.interface(form).card.padded == ("sequence",)  # type: ignore[union-attr]


def test_an_axis_whose_end_matters_stays_fixed() -> None:
    """A mean over the axis takes zeros for values."""
    nodes: list[graphs.Node] = [("ReduceMean", ["x", "one"], ["y"], {"keepdims": 0})]
    graph = Graph.from_proto(graphs.build(nodes, {"x": ("batch", "n")}, {"y": ("batch",)}, {"one": np.array([1], np.int64)}))
    card = card_of(graph, np.ones((3, 8), np.float32), {"batch": 1, "n": 8})
    assert (card.rows, card.padded, card.sizes) == ("batch", (), {"batch": 1})
    assert card.signature.inputs[0].shape == ("batch", 8)


def test_rows_that_know_each_other_stay_together() -> None:
    """Each row less the mean of all of them."""
    nodes: list[graphs.Node] = [("ReduceMean", ["x", "zero"], ["m"]), ("Sub", ["x", "m"], ["y"])]
    graph = Graph.from_proto(graphs.build(nodes, {"x": ("batch", 4)}, {"y": ("batch", 4)}, {"zero": np.array([0], np.int64)}))
    card = card_of(graph, np.arange(12, dtype=np.float32).reshape(3, 4), {"batch": 1})
    assert (card.rows, card.sizes) == ("", {})
    assert card.signature.inputs[0].shape == (1, 4)


def card_of(graph: Graph, x: np.ndarray, sizes: dict[str, int]) -> tflite.Card:
    from edgewise import backends

    plain = backends.load(graph.to_bytes(), Execution(backends.taking()[0]))
    return converting._card(graph.signature, sizes, converting._rows(graph.signature, [{"x": x}], sizes), plain, converting.SAME)


@engine
def test_what_the_converter_makes_of_the_boundary_is_checked(tmp_path: Path) -> None:
    graph, inputs = mlp()
    with pytest.raises(InvalidModel, match=r"inputs of float32 \[1, 3, 12, 12\], where the graph has float32 \[1, 16\]"):
        convert(graph, [inputs], LITERT, python=giving(tmp_path, "float-convolution"))


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ('printf "no lowering for aten.foo in node Foo_3" > "$folder/error"', "aten.foo in node Foo_3; leave that engine out"),
        ("echo the last words >&2; exit 3", "code 3: the last words"),
        ("exit 0", "code 0: it said nothing"),
        ('printf nonsense > "$folder/model.tflite"', "not a LiteRT model"),
    ],
)
def test_a_converter_that_fails_is_told_in_its_words(tmp_path: Path, does: str, said: str) -> None:
    graph, inputs = mlp()
    with pytest.raises(InvalidModel, match=said):
        convert(graph, [inputs], LITERT, python=stand_in(tmp_path, does))


def test_the_child_takes_edgewise_from_here_and_all_else_from_its_own_environment(tmp_path: Path) -> None:
    """Where edgewise is installed, it lies among this environment's packages, which are of another Python and other pins."""
    root, own, folder = (tmp_path / name for name in ("root", "own", "folder"))
    for each in (root, own, folder):
        each.mkdir()
    (root / "edgewise").symlink_to(Path(converting.edgewise.__file__).parent)
    (root / "litert_torch.py").write_text("raise ImportError('it is of another environment')")
    (own / "litert_torch.py").write_text("import edgewise.types\nraise ImportError(f'its own, with {edgewise.types.__file__}')")
    (folder / "model.onnx").write_bytes(b"")
    (folder / "kind").write_text("float")
    child = Path(converting.__file__).with_name("child.py")
    subprocess.run([sys.executable, "-P", child, root, folder], env={"PYTHONPATH": str(own)}, capture_output=True, timeout=60, check=True)
    assert (folder / "error").read_text() == f"its own, with {root / 'edgewise' / 'types.py'}"


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    graph, inputs = mlp()
    with pytest.raises(MeasurementFailed, match=r"over 0\.2 s"):
        convert(graph, [inputs], LITERT, python=stand_in(tmp_path, "exec sleep 60"), limit_s=0.2)


def test_what_it_is_given() -> None:
    graph, inputs = mlp()
    with pytest.raises(InvalidInput, match="no samples"):
        convert(graph, [], LITERT)
    with pytest.raises(InvalidInput, match="can't be run"):
        convert(graph, [inputs], LITERT, python="/no/such/python")


def test_samples_that_are_all_longer_are_said(tmp_path: Path) -> None:
    model, inputs = graphs.two_inputs()
    with pytest.raises(InvalidInput, match="sequence=3"):
        convert(Graph.from_proto(model), [inputs], LITERT, sizes={"batch": 1, "sequence": 3}, python=giving(tmp_path, "float-two-inputs"))


def test_without_a_converter_the_lines_that_bring_one_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INTERPRETER, raising=False)
    monkeypatch.setattr(converting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"torch==.* && .*litert-torch==.*EDGEWISE_LITERT_PYTHON"):
        interpreter()
    assert "litert-torch" in forms.obstacle("litert")
    assert forms.obstacle("onnxruntime") == ""
    monkeypatch.setenv(INTERPRETER, "/no/such/python")
    with pytest.raises(InvalidInput, match="is no program"):
        interpreter()
    monkeypatch.setenv(INTERPRETER, sys.executable)
    assert interpreter() == sys.executable and forms.obstacle("litert") == ""
    monkeypatch.delenv(INTERPRETER)
    monkeypatch.setattr(converting.importlib.util, "find_spec", lambda name: object())
    assert interpreter() == sys.executable


class Strange:
    name, form = "strange", "runes"


def test_a_form_that_nobody_makes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.REGISTRY["backend"], "strange", f"{__name__}:Strange")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "Strange", Strange, raising=False)
    with pytest.raises(InvalidInput, match=r"'runes'.*tflite"):
        forms.obstacle("strange")


def test_a_graph_is_what_other_engines_load() -> None:
    graph, inputs = mlp()
    assert forms.model_for(graph, [inputs], Execution("onnxruntime")) == graph.to_bytes()
