"""What a LiteRT file says of itself, held against the engine's own reader, and damaged in every way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise import tflite
from edgewise.errors import InvalidModel
from edgewise.graph import Graph
from edgewise.testing import graphs
from edgewise.types import Signature, TensorSpec

FORMS = {path.stem: path.read_bytes() for path in sorted(Path(__file__).with_name("backends").joinpath("forms").glob("*.tflite"))}
MLP = FORMS["float-mlp"]


@pytest.mark.parametrize("name", FORMS)
def test_the_card_says_what_the_graph_did(name: str) -> None:
    kind, _, which = name.partition("-")
    model = (graphs.FLOAT if kind == "float" else graphs.QUANTIZED)[which.replace("-", " ")]()[0]
    found = tflite.interface(FORMS[name])
    assert found.card is not None
    assert found.signature == found.card.signature == Graph.from_proto(model).signature
    assert found.card.graph == Graph.from_proto(model).sha256
    assert found.card.rows == "batch" and found.card.sizes["batch"] == 1
    assert found.card.samples > 0


@pytest.mark.parametrize("name", FORMS)
def test_tensors_are_those_that_the_engine_lists(name: str) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert isn't installed")
    loaded = interpreter.Interpreter(model_content=FORMS[name])
    found = tflite.interface(FORMS[name])
    assert {*found.inputs} == {each["index"] for each in loaded.get_input_details()}
    assert {*found.outputs} == {each["index"] for each in loaded.get_output_details()}
    types = {each["index"]: np.dtype(each["dtype"]).name for each in (*loaded.get_input_details(), *loaded.get_output_details())}
    for numbers, specs in ((found.inputs, found.signature.inputs), (found.outputs, found.signature.outputs)):
        assert [types[number] for number in numbers] == [spec.dtype for spec in specs]


@pytest.mark.parametrize("name", FORMS)
def test_constants_are_the_values_that_the_engine_has(name: str) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert isn't installed")
    kernels = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    loaded = interpreter.Interpreter(model_content=FORMS[name], experimental_op_resolver_type=kernels)
    loaded.allocate_tensors()
    held = set()
    for each in loaded.get_tensor_details():
        try:
            held.add((each["dtype"].__name__, tuple(map(int, each["shape"])), loaded.get_tensor(each["index"]).tobytes()))
        except ValueError:  # no value before the first call
            continue
    found = tflite.constants(FORMS[name], 16)
    assert found
    for each in found:
        assert (each.dtype, each.shape, FORMS[name][each.offset : each.offset + each.length]) in held


def test_another_card_takes_the_place_of_the_first() -> None:
    card = tflite.interface(MLP).card
    assert card is not None
    other = replace(card, divergence=0.5, rows="")
    assert tflite.interface(tflite.described(MLP, other)).card == other


@pytest.mark.parametrize(
    "changed", [{"sizes": {"batch": 10**12}}, {"sizes": {"batch": 0}}, {"dtype": "int64"}, {"shape": ("batch", 16, 1)}]
)
def test_a_card_of_other_sizes_than_the_file_has_is_refused(changed: dict[str, Any]) -> None:
    """By them inputs are filled up: 10^12 rows would be."""
    card = tflite.interface(MLP).card
    assert card is not None
    sizes = changed.pop("sizes", card.sizes)
    signature = Signature((replace(card.signature.inputs[0], **changed),), card.signature.outputs)
    with pytest.raises(InvalidModel, match=r"its card says 'x' is .*, and it is float32 \(1, 16\)"):
        tflite.interface(tflite.described(MLP, replace(card, sizes=sizes, signature=signature)))


def test_without_a_card_the_file_itself_is_read() -> None:
    place = tflite.root(MLP).place(3)
    assert place is not None
    start = place + int.from_bytes(MLP[place : place + 4], "little") + 4
    bare = MLP[:start] + b"x" + MLP[start + 1 :]  # a description that is no card
    found = tflite.interface(bare)
    assert found.card is None
    assert found.signature == Signature((TensorSpec("args_0", (1, 16), "float32"),), (TensorSpec("output_0", (1, 4), "float32"),))
    with pytest.raises(InvalidModel, match="card"):
        tflite.interface(MLP[:start] + b"{?" + MLP[start + 2 :])


@pytest.mark.parametrize("data", [b"", b"TFL3", b"0000TFL3", b"\xff\xff\xff\xffTFL3", MLP[:100], MLP[: len(MLP) // 2]])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidModel, match="LiteRT"):
        tflite.interface(data)
    with pytest.raises(InvalidModel, match="LiteRT"):
        tflite.constants(data, 1)


@given(st.integers(0, len(MLP) - 1), st.integers(0, 255), st.booleans())
@settings(max_examples=500, deadline=None)
def test_altered_bytes_are_read_or_refused(at: int, value: int, cut: bool) -> None:
    altered = MLP[:at] if cut else MLP[:at] + bytes([value]) + MLP[at + 1 :]
    for read in (tflite.interface, lambda data: tflite.constants(data, 1)):
        try:
            read(altered)
        except InvalidModel as error:
            assert len(str(error)) < 600
