"""`edgewise compare` and `edgewise reproduce` on tiny models whose differences are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewise import devices, package
from edgewise import recipe as recipes
from edgewise.cli.compare import first_parting
from edgewise.compress.code import code as recoded
from edgewise.graph import Graph, read
from edgewise.tasks import image_classification
from edgewise.testing import graphs
from edgewise.types import Execution

Edgewise = Callable[..., tuple[int, str, str]]


def changed(model: Path, name: str, factor: float) -> Path:
    """The same model with the weight `name` times `factor`."""
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    path = model.with_name(f"{name}.onnx")
    onnx.save(proto, path)
    return path


@pytest.fixture
def packed(model: Path, data: Path) -> Path:
    """An int8 package as `fit` writes it, with its origin."""
    dense = read(model)
    task = image_classification(data).for_model(dense.signature)
    made = recipes.apply(recipes.parse("quantize()"), dense, task=task, device=devices.local(), calibration=task.calibration)
    path = model.with_suffix(".edgew")
    package.build(
        made.model,
        created="2026-01-01T00:00:00+00:00",
        preprocess=task.preprocess,
        postprocess=task.postprocess,
        execution=Execution("onnxruntime"),
        provenance=package.Provenance(
            model="tiny", source_sha256=dense.sha256, recipe="quantize()", data=task.summary(), versions={"onnx": "1.0"}
        ),
    ).save(path)
    return path


def compare(edgewise: Edgewise, *arguments: object) -> dict[str, object]:
    code, out, err = edgewise("compare", *arguments, "--json")
    assert code == 0, err
    return dict(json.loads(out))


def test_a_model_and_itself(edgewise: Edgewise, model: Path, data: Path) -> None:
    found = compare(edgewise, model, model, "--data", data)
    assert (found["relative_l2"], found["max_abs"], found["first_parting"]) == (0.0, 0.0, None)
    assert found["names"] == ["tiny.onnx (a)", "tiny.onnx (b)"]


def test_doubled_logits_part_at_the_last_layer_and_change_no_answer(edgewise: Edgewise, model: Path, data: Path) -> None:
    found = compare(edgewise, model, changed(model, "head", 2.0), "--data", data)
    assert found["relative_l2"] == pytest.approx(1.0)
    assert found["first_parting"] == "logits"
    assert found["agreement"]["value"] == 1.0  # type: ignore[index]
    assert found["drop"]["difference"]["value"] == 0.0  # type: ignore[index]


def test_turned_logits_lose_every_answer(edgewise: Edgewise, model: Path, data: Path) -> None:
    turned = changed(model, "head", -1.0)
    found = compare(edgewise, model, turned, "--data", data, "--samples", "7", "--split", "train")
    assert (found["n"], found["agreement"]["value"]) == (7, 0.0)  # type: ignore[index]
    code, out, _ = edgewise("compare", model, turned, "--data", data)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for said in ("Same answer", "logits ← parts here", "dark", "bright", "validation split"):
        assert said in out


def test_a_package_brings_its_preprocessing(edgewise: Edgewise, model: Path, packed: Path, data: Path) -> None:
    code, out, err = edgewise("compare", model, packed, "--data", data)
    assert code == 0, err
    assert "mean and deviation computed" not in out
    assert compare(edgewise, model, packed, "--data", data)["relative_l2"] < 0.2  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "--data is missing"), (["--data", "DATA", "--split", "test"], "sealed"), (["--data", "DATA", "--split", "all"], "validation")],
)
def test_what_can_not_be_compared(edgewise: Edgewise, model: Path, data: Path, arguments: list[str], said: str) -> None:
    code, _, err = edgewise("compare", model, model, *(data if word == "DATA" else word for word in arguments))
    assert code == 2
    assert said in err


def test_a_file_that_is_no_model(edgewise: Edgewise, data: Path, model: Path) -> None:
    assert edgewise("compare", model, data, "--data", data)[0] == 2
    assert edgewise("compare", model, "missing.onnx", "--data", data)[0] == 2


def test_a_difference_that_heals_is_no_parting() -> None:
    graph = Graph.from_proto(graphs.convolution()[0])
    order = ["c1", "r1", "c2", "s", "r2", "p", "f", "y"]
    assert first_parting(graph, dict.fromkeys(order, 0.0), 0.1) is None
    assert first_parting(graph, dict.fromkeys(order, 0.5), 0.1) == "c1"
    healed = dict.fromkeys(order, 0.0) | {"c1": 0.5, "r1": 0.5}
    assert first_parting(graph, healed, 0.1) is None
    assert first_parting(graph, healed | dict.fromkeys(["s", "r2", "p", "f", "y"], 0.5), 0.1) == "c1"  # through the shortcut
    assert first_parting(graph, {"c1": 0.5, "y": 0.5}, 0.1) == "c1"  # what only one graph has says nothing
    assert first_parting(graph, healed | {"y": 0.5}, 0.1) == "y"


def test_a_package_is_made_again_to_the_bit(edgewise: Edgewise, model: Path, packed: Path, data: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.edgew"
    code, out, err = edgewise("reproduce", packed, model, "--data", data, "-o", again)
    assert code == 0, err
    assert "same to the bit" in out
    assert again.read_bytes() == packed.read_bytes()


def test_a_recipe_that_ends_in_the_package_is_followed_to_its_end(
    edgewise: Edgewise, model: Path, packed: Path, data: Path, tmp_path: Path
) -> None:
    found = package.open(packed)
    built = package.build(
        found.graph(),
        created=found.manifest.created,
        preprocess=found.preprocess,
        postprocess=found.postprocess,
        execution=found.execution,
        provenance=replace(found.manifest.provenance, recipe="quantize() > code(coders='none')"),
    )
    recoded(built, coders="none").model.save(tmp_path / "plain.edgew")
    ended, out, err = edgewise("reproduce", tmp_path / "plain.edgew", model, "--data", data, "-o", tmp_path / "again.edgew")
    assert ended == 0 and "same to the bit" in out, err
    assert (tmp_path / "again.edgew").read_bytes() == (tmp_path / "plain.edgew").read_bytes() != packed.read_bytes()


def test_another_model_or_other_data_are_refused_with_what_differs(edgewise: Edgewise, model: Path, packed: Path, data: Path) -> None:
    code, _, err = edgewise("reproduce", packed, changed(model, "head", 2.0), "--data", data)
    assert code == 2
    assert "is not what the package was made from" in err
    assert "onnx 1.0 then" in err
    code, _, err = edgewise("reproduce", packed, model, "--data", data, "--validation", "0.4")
    assert code == 2
    assert ", validation " in err and " then, " in err


def test_another_recipe_gives_another_model_and_says_how_far(edgewise: Edgewise, model: Path, packed: Path, data: Path) -> None:
    found = package.open(packed)
    other = replace(found.manifest.provenance, recipe="quantize(granularity='tensor')")
    path = packed.with_name("other.edgew")
    package.build(
        found.graph(), created="2026-01-01T00:00:00+00:00", preprocess=found.preprocess, postprocess=found.postprocess, provenance=other
    ).save(path)
    code, out, err = edgewise("reproduce", path, model, "--data", data)
    assert code == 1
    assert "not the same to the bit" in err
    assert "relative L2" in out
    assert "differ" in out


def test_a_package_without_origin(edgewise: Edgewise, model: Path, data: Path, tmp_path: Path) -> None:
    package.build(read(model), created="2026-01-01T00:00:00+00:00").save(tmp_path / "bare.edgew")
    code, _, err = edgewise("reproduce", tmp_path / "bare.edgew", model, "--data", data)
    assert code == 2
    assert "doesn't say what it was made from" in err
