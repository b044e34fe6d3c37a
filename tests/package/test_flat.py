"""A LiteRT file in a package: to the bit, its weights stored once with the graph's, and damaged in every way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise import package, tflite
from edgewise.errors import InvalidInput, InvalidModel, InvalidPackage
from edgewise.graph import Graph
from edgewise.package import OwnForm, flat
from edgewise.package.manifest import Entry, Tensor
from edgewise.package.weights import Weight, take_out
from edgewise.testing import graphs

FORMS = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "backends" / "forms").glob("*.tflite"))}
NAMES = {"float-mlp": graphs.mlp, "float-convolution": graphs.convolution, "quantized-matmul": graphs.quantized_matmul}
MLP = FORMS["float-mlp"]


def graph_of(name: str) -> Graph:
    return Graph.from_proto(NAMES[name]()[0])


@pytest.mark.parametrize("coders", ["fast", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_to_the_bit_through_a_file(tmp_path: Path, name: str, coders: package.Coders) -> None:
    built = package.build(graph_of(name), created="", forms={"own": OwnForm(FORMS[name], "engine")}, coders=coders)
    built.save(tmp_path / "x.edgew")
    opened = package.open(tmp_path / "x.edgew")
    assert opened.model_bytes("own") == FORMS[name]
    assert opened.graph().to_bytes() == graph_of(name).to_bytes()
    assert opened.forms("engine") == ("own",) and opened.forms("another") == ()
    entry = opened.manifest.entry("own")
    assert (entry.kind, entry.format, entry.engine) == ("engine", "tflite", "engine")
    assert entry.signature == tflite.interface(FORMS[name]).signature
    assert package.recode(opened, coders="all").model_bytes("own") == FORMS[name]
    with pytest.raises(InvalidPackage, match="not an ONNX graph"):
        opened.graph("own")


def test_beside_files_and_what_is_known_of_rows(tmp_path: Path) -> None:
    graph, forms = graph_of("float-mlp"), {"own": OwnForm(MLP, "engine"), "own-1": OwnForm(MLP, "engine")}
    package.build(graph, created="", forms=forms, files={"words.txt": b"one\ntwo\n"}, rows="independent").save(tmp_path / "x.edgew")
    opened = package.open(tmp_path / "x.edgew")
    assert (opened.files, opened.rows) == ({"words.txt": b"one\ntwo\n"}, "independent")
    assert opened.forms("engine") == ("own", "own-1")
    assert opened.model_bytes("own") == opened.model_bytes("own-1") == MLP


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_the_graph_has_too_are_stored_once(name: str) -> None:
    built = package.build(graph_of(name), created="", forms={"own": OwnForm(FORMS[name], "engine")})
    main, own = (built.manifest.entry(which) for which in ("main", "own"))
    places = {(row.offset, row.length) for row in main.tensors}
    assert own.tensors and all((row.offset, row.length) in places for row in own.tensors if ":" in row.name or row.shape[1:])
    alone = package.build(graph_of(name), created="")
    assert sum(row.length for row in main.tensors) == sum(row.length for row in alone.manifest.entry("main").tensors)


@pytest.mark.parametrize("axes", [(1, 0, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)])
def test_axes_in_any_order_are_found(axes: tuple[int, ...]) -> None:
    constant = next(each for each in tflite.constants(FORMS["float-convolution"], 1000) if len(each.shape) == 4)
    data = FORMS["float-convolution"][constant.offset : constant.offset + constant.length]
    turned = np.ascontiguousarray(np.frombuffer(data, np.float32).reshape(constant.shape).transpose(axes))
    known = Weight("w", "float32", turned.shape, turned.tobytes())
    left, taken = flat.take_out(FORMS["float-convolution"], 1000, [known])
    (found,) = [weight for weight in taken if weight.data == known.data]
    assert found.shape == known.shape and found.name.startswith(f"{constant.offset}:")
    entry = entry_of(taken, FORMS["float-convolution"])
    assert flat.model_bytes(left, entry, read(taken), "it") == FORMS["float-convolution"]


def entry_of(taken: list[Weight], model: bytes) -> Entry:
    rows = tuple(Tensor(weight.name, weight.dtype, weight.shape, "weights", 0, len(weight.data)) for weight in taken)
    return Entry("own", "engine", "tflite", "graphs/1.tflite", flat.signature_of(model), rows, "engine")


def read(taken: list[Weight]):  # by the row's name, which an altered row keeps its data under
    by_shape = {(weight.dtype, weight.shape): weight.data for weight in taken}
    return lambda tensor: by_shape[tensor.dtype, tensor.shape]


LEFT, TAKEN = flat.take_out(MLP, 256, take_out(graph_of("float-mlp").proto, 256)[1])
ENTRY = entry_of(TAKEN, MLP)


def test_as_it_was() -> None:
    assert len(LEFT) + sum(len(weight.data) for weight in TAKEN) == len(MLP)
    assert flat.model_bytes(LEFT, ENTRY, read(TAKEN), "it") == MLP


@pytest.mark.parametrize(
    "name", ["", ":", "x", "-1", "1e3", "99999999", "0", "12:", "12:0", "12:0,0", "12:0,2", "12:1,0,", "１２", "9" * 17, "12:1,0:1"]
)
def test_a_row_that_says_no_place_is_refused(name: str) -> None:
    rows = (replace(ENTRY.tensors[0], name=name), *ENTRY.tensors[1:])
    with pytest.raises(InvalidPackage, match="entry 'own'"):
        flat.model_bytes(LEFT, replace(ENTRY, tensors=rows), read(TAKEN), "it")


def test_places_that_overlap_or_lie_outside_are_refused() -> None:
    first, second = sorted(ENTRY.tensors, key=lambda row: int(row.name.partition(":")[0]))
    start = int(first.name.partition(":")[0])
    for name in (str(start + 4), str(len(MLP))):
        with pytest.raises(InvalidPackage, match="no place"):
            flat.model_bytes(LEFT, replace(ENTRY, tensors=(first, replace(second, name=name))), read(TAKEN), "it")


def test_another_signature_than_the_manifest_says_is_refused() -> None:
    signature = replace(ENTRY.signature, outputs=ENTRY.signature.inputs)
    with pytest.raises(InvalidPackage, match="something else"):
        flat.model_bytes(LEFT, replace(ENTRY, signature=signature), read(TAKEN), "it")


@given(st.integers(0, len(LEFT) - 1), st.integers(0, 255), st.booleans())
@settings(max_examples=300, deadline=None)
def test_an_altered_file_is_read_or_refused(at: int, value: int, cut: bool) -> None:
    altered = LEFT[:at] if cut else LEFT[:at] + bytes([value]) + LEFT[at + 1 :]
    try:
        flat.model_bytes(altered, ENTRY, read(TAKEN), "it")
    except InvalidPackage as error:
        assert "entry 'own'" in str(error)


def test_what_is_no_such_file_is_refused_when_it_is_packed() -> None:
    for data in (b"", b"0000TFL3", MLP[:200]):
        with pytest.raises(InvalidModel, match="LiteRT"):
            package.build(graph_of("float-mlp"), created="", forms={"own": OwnForm(data, "engine")})
    with pytest.raises(InvalidInput, match="main"):
        package.build(graph_of("float-mlp"), created="", forms={"main": OwnForm(MLP, "engine")})


def test_the_minimal_profile_holds_no_form() -> None:
    built = package.build(graph_of("float-mlp"), created="", forms={"own": OwnForm(MLP, "engine")})
    with pytest.raises(InvalidInput, match="own"):
        package.compacted(built)


def test_an_update_carries_it(tmp_path: Path) -> None:
    for number, forms in enumerate(({}, {"own": OwnForm(MLP, "engine")})):
        package.build(graph_of("float-mlp"), created="", version=number + 1, forms=forms).save(tmp_path / f"{number}.edgew")
    from edgewise.package import update

    update.save(package.diff(tmp_path / "0.edgew", tmp_path / "1.edgew"), tmp_path / "u.edgewd")
    assert package.patch(tmp_path / "0.edgew", tmp_path / "u.edgewd", tmp_path / "new.edgew").model_bytes("own") == MLP
