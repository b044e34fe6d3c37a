"""What is particular to LiteRT: its own form, what stays open in it, and files of other makers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise import backends, tflite
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.testing import graphs
from edgewise.testing.conformance import reference
from edgewise.types import Execution

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert isn't installed")

FORMS = Path(__file__).with_name("forms")
LITERT = Execution("litert")
MLP, TWO = ((FORMS / f"float-{name}.tflite").read_bytes() for name in ("mlp", "two-inputs"))


def test_it_says_which_form_it_loads() -> None:
    assert backends.form("litert") == "tflite"
    assert backends.form("onnxruntime") == backends.form("edgewise.backends.onnxruntime:OnnxRuntime") == "onnx"
    assert "litert" in backends.taking("tflite") and "litert" not in backends.taking()
    assert backends.plain(LITERT).backend == backends.taking()[0]
    assert backends.plain(Execution("onnxruntime", threads=2)) == Execution("onnxruntime", threads=2)


def test_a_graph_is_refused_with_the_way_to_a_form() -> None:
    with pytest.raises(InvalidModel, match=r"(?s)form of its own.*edgewise fit.*convert"):
        backends.load(graphs.mlp()[0].SerializeToString(), LITERT)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_batch_is_answered_row_by_row(rows: int) -> None:
    model, inputs = graphs.mlp()
    given = {"x": inputs["x"][:rows]}
    got = backends.load(MLP, LITERT).run(given)["y"]
    np.testing.assert_allclose(got, reference(model, given)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 9])
def test_what_is_shorter_is_filled_up_and_cut_again(length: int) -> None:
    model, inputs = graphs.two_inputs()
    given = {"ids": np.tile(inputs["ids"], 2)[:, :length], "scale": np.tile(inputs["scale"], 2)[:, :length]}
    got = backends.load(TWO, LITERT).run(given)
    for value, wanted in zip(got.values(), reference(model, given), strict=True):
        assert value.shape == wanted.shape and value.dtype == wanted.dtype and value.flags.c_contiguous
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


def test_a_call_goes_to_the_first_form_that_its_inputs_fit_into() -> None:
    graph = graphs.two_inputs()[0].SerializeToString()  # its axes are open: it takes what TWO was not made for
    for length, found in ((7, TWO), (9, TWO), (12, graph)):
        given = {"ids": np.zeros((3, length), np.int64), "scale": np.zeros((3, length), np.float32)}
        assert backends.first_taking((TWO, graph), given) == found
        assert backends.first_taking((MLP, TWO, graph), given) == found
    assert backends.first_taking((TWO, MLP), given) == MLP  # whose engine says why not


def test_what_is_longer_is_refused_and_the_runner_lives() -> None:
    runner = backends.load(TWO, LITERT)
    long = {"ids": np.zeros((1, 10), np.int64), "scale": np.zeros((1, 10), np.float32)}
    for _ in range(2):  # not taken for known the second time
        with pytest.raises(InvalidInput, match=r"sequence=10.*up to 9"):
            runner.run(long)
    assert runner.run({name: array[:, :9] for name, array in long.items()})["z"].shape == (1, 6)
    with pytest.raises(InvalidInput, match="sequence=10"):
        backends.load(TWO, Execution("litert", options={"axes": "sequence=10"}))


def test_fixed_axes_within_the_form() -> None:
    runner = backends.load(TWO, Execution("litert", options={"axes": "batch=3,sequence=4"}))
    assert runner.signature.outputs[0].shape == (3, 4, 6)
    assert runner.run({"ids": np.zeros((3, 4), np.int64), "scale": np.ones((3, 4), np.float32)})["y"].shape == (3, 4, 6)


def test_a_form_that_keeps_no_batch_open_says_so() -> None:
    card = tflite.interface(MLP).card
    assert card is not None
    signature = tflite.Signature((tflite.TensorSpec("x", (1, 16), "float32"),), (tflite.TensorSpec("y", (1, 4), "float32"),))
    runner = backends.load(tflite.described(MLP, tflite.Card(signature)), LITERT)
    assert runner.run({"x": np.ones((1, 16), np.float32)})["y"].shape == (1, 4)
    with pytest.raises(InvalidInput, match="shape"):
        runner.run({"x": np.ones((2, 16), np.float32)})


def test_a_file_of_another_maker_is_taken_as_it_is() -> None:
    place = tflite.root(MLP).place(3)
    assert place is not None
    start = place + int.from_bytes(MLP[place : place + 4], "little") + 4
    runner = backends.load(MLP[:start] + b"x" + MLP[start + 1 :], LITERT)
    x = graphs.mlp()[1]["x"][:1]
    assert [spec.name for spec in runner.signature.inputs] == ["args_0"]
    np.testing.assert_array_equal(runner.run({"args_0": x})["output_0"], backends.load(MLP, LITERT).run({"x": x})["y"])


def test_kernels_without_xnnpack_give_the_same() -> None:
    inputs = graphs.mlp()[1]
    got = [backends.load(MLP, Execution("litert", options={"xnnpack": value})).run(inputs)["y"] for value in "01"]
    np.testing.assert_allclose(*got, rtol=1e-5, atol=1e-5)
    with pytest.raises(InvalidInput, match="xnnpack"):
        backends.load(MLP, Execution("litert", options={"xnnpack": "2"}))


def test_two_threads() -> None:
    inputs = graphs.mlp()[1]
    np.testing.assert_allclose(
        backends.load(MLP, Execution("litert", threads=2)).run(inputs)["y"], backends.load(MLP, LITERT).run(inputs)["y"], rtol=1e-6
    )


@pytest.mark.parametrize("cut", [4, 8, 100, len(MLP) // 2, len(MLP) - 1])
def test_a_truncated_file_is_refused(cut: int) -> None:
    with pytest.raises(InvalidModel, match="litert"):
        backends.load(MLP[:cut], LITERT)


def test_an_altered_file_never_ends_the_process_that_loads_it() -> None:
    """In a process of its own, for it might. (Weights may be anything; what a package holds is protected by its hashes.)"""
    script = f"""
import random
from edgewise import backends
from edgewise.errors import InvalidInput
from edgewise.types import Execution
whole, random = open({str(FORMS / "float-mlp.tflite")!r}, "rb").read(), random.Random(0)
for _ in range(150):
    at = random.randrange(8, len(whole))
    try:
        backends.load(whole[:at] + random.randbytes(1) + whole[at + 1:], Execution("litert")).close()
    except InvalidInput:
        pass
print("lives")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "lives\n"), done.stderr
