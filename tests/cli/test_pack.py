"""`edgewise pack` and `unpack`: any ONNX file to a smaller one and back, the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise import package
from edgewise.graph import Graph
from edgewise.testing import graphs

Edgewise = Callable[..., tuple[int, str, str]]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A bit of everything: a grid, noise, integers, half floats, a subgraph, a weight in a typed field."""
    random = np.random.default_rng(0)
    inner = helper.make_graph(
        [helper.make_node("Add", ["h", "c"], ["o"])], "inner", [], [helper.make_tensor_value_info("o", 1, None)],
        [numpy_helper.from_array(random.normal(size=30).astype(np.float32), "c")],
    )  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "grid"], ["g"]),
        helper.make_node("MatMul", ["g", "noise"], ["h"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
    ]
    weights = [
        numpy_helper.from_array(np.rint(random.normal(0, 4, (40, 30))).astype(np.float32) * np.float32(0.05) + np.float32(0), "grid"),
        numpy_helper.from_array(random.normal(size=(30, 30)).astype(np.float32), "noise"),
        numpy_helper.from_array(np.rint(random.normal(0, 9, (50, 20))).astype(np.int8), "int8"),
        numpy_helper.from_array(random.normal(size=(20, 20)).astype(np.float16), "half"),
        numpy_helper.from_array(np.array(True), "yes"),
        helper.make_tensor("typed", TensorProto.FLOAT, [100], random.normal(size=100)),
    ]
    x, y = helper.make_tensor_value_info("x", 1, ["batch", 40]), helper.make_tensor_value_info("y", 1, ["batch", 30])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", [x], [y], weights), opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.parametrize("coders", ["fast", "all", "none"])
def test_there_and_back(edgewise: Edgewise, net: Path, tmp_path: Path, coders: str) -> None:
    code, said, err = edgewise("pack", net, "-o", tmp_path / "net.edgew", "--coders", coders, "--labels", "a,b", "--version", 7)
    assert (code, err) == (0, ""), err
    assert max(map(len, said.splitlines())) <= 80
    assert "the same to the bit" in " ".join(said.split())
    assert ("grid" in said) == (coders != "none")
    found = package.open(tmp_path / "net.edgew")
    assert (found.labels, found.manifest.version, found.manifest.provenance.model) == (("a", "b"), 7, "net.onnx")
    code, said, err = edgewise("unpack", tmp_path / "net.edgew", "-o", tmp_path / "back.onnx")
    assert (code, err) == (0, ""), err
    before, after = onnx.load(net), onnx.load(tmp_path / "back.onnx")
    for left, right in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (left.name, left.data_type) == (right.name, right.data_type)
        assert numpy_helper.to_array(left).tobytes() == numpy_helper.to_array(right).tobytes()
    del before.graph.initializer[-1], after.graph.initializer[-1]  # the typed field has become raw data
    assert before == after


def test_an_entry_of_its_own(edgewise: Edgewise, net: Path, tmp_path: Path) -> None:
    main, other = Graph.load(net), Graph.from_proto(graphs.mlp()[0])
    package.build(main, created="", forms={"small": package.Form(other, "part")}).save(tmp_path / "two.edgew")
    assert edgewise("unpack", tmp_path / "two.edgew", "-o", tmp_path / "a.onnx", "--entry", "small")[0] == 0
    assert Graph.load(tmp_path / "a.onnx").sha256 == other.sha256
    code, _, err = edgewise("unpack", tmp_path / "two.edgew", "-o", tmp_path / "a.onnx", "--entry", "large")
    assert code == 2 and "main, small" in err
    assert Graph.load(tmp_path / "a.onnx").sha256 == other.sha256


def test_weights_beside_the_file_come_along(edgewise: Edgewise, net: Path, tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    onnx.save(onnx.load(net), tmp_path / "apart" / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=100)
    assert edgewise("pack", tmp_path / "apart" / "net.onnx", "-o", tmp_path / "net.edgew")[0] == 0
    assert edgewise("unpack", tmp_path / "net.edgew", "-o", tmp_path / "back.onnx")[0] == 0
    first, second = (numpy_helper.to_array(each.graph.initializer[1]) for each in (onnx.load(net), onnx.load(tmp_path / "back.onnx")))
    assert first.tobytes() == second.tobytes()


def test_what_is_refused(edgewise: Edgewise, net: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    packed = tmp_path / "net.edgew"
    assert edgewise("pack", net, "-o", packed)[0] == 0
    before, source = packed.read_bytes(), net.read_bytes()
    (tmp_path / "damaged.edgew").write_bytes(before[:-1])
    for arguments, message in (
        (("pack", tmp_path / "none.onnx", "-o", packed), "does not exist"),
        (("pack", tmp_path, "-o", packed), "is a folder"),
        (("pack", tmp_path / "text.onnx", "-o", packed), "not an ONNX model"),
        (("pack", net, "-o", net), "is the model itself"),
        (("pack", net, "-o", tmp_path / "no" / "net.edgew"), "does its folder exist"),
        (("pack", net, "-o", packed, "--coders", "zip"), "zip"),
        (("unpack", tmp_path / "none.edgew", "-o", net), "does not exist"),
        (("unpack", tmp_path / "damaged.edgew", "-o", net), "truncated"),
        (("unpack", net, "-o", tmp_path / "other.onnx"), "not an edgewise package"),
        (("unpack", packed, "-o", packed), "is the package itself"),
        (("unpack", packed, "-o", tmp_path / "no" / "net.onnx"), "can't write"),
    ):
        code, _, err = edgewise(*arguments)
        assert code == 2 and message in " ".join(err.split()), (arguments, err)
    assert (packed.read_bytes(), net.read_bytes()) == (before, source)
    assert not list(tmp_path.glob(".*"))


def test_the_minimal_profile(edgewise: Edgewise, tmp_path: Path, net: Path) -> None:
    graph = Graph.from_proto(graphs.mlp(hidden=4)[0])
    graph.save(tmp_path / "small.onnx")
    out = tmp_path / "small.edgew"
    code, said, err = edgewise("pack", tmp_path / "small.onnx", "-o", out, "--profile", "minimal", "--labels", "a,b,c,d")
    assert (code, err) == (0, ""), err
    assert "the same weights to the bit" in " ".join(said.split())
    assert package.open(out).profile == "minimal"
    code, said, err = edgewise("inspect", out)
    assert (code, err) == (0, ""), err
    assert max(map(len, said.splitlines())) <= 80
    text = " ".join(said.split())
    assert f"an edgewise package (minimal profile), {out.stat().st_size} B" in text
    for part in ("header 7 B", "graph and metadata", "weights", "hash 8 B", "labels 4: a, b, c, d"):
        assert part in text
    assert "What it measured" not in text
    for model, profile, wrong in (
        (net, "minimal", "no place for"),
        (tmp_path / "small.onnx", "tiny", "'tiny' is not one of 'full', 'minimal'"),
    ):
        code, _, err = edgewise("pack", model, "-o", tmp_path / "other.edgew", "--profile", profile)
        assert code == 2
        assert wrong in " ".join(err.split())
    assert not (tmp_path / "other.edgew").exists()
