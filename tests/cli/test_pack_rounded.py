"""`edgewise pack --max-divergence`: weights rounded by samples without labels, the divergence measured again, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewise import backends, package
from edgewise.compress.rate import rdoq
from edgewise.graph import Graph
from edgewise.testing import graphs
from edgewise.types import Execution

Edgewise = Callable[..., tuple[int, str, str]]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """tokens (batch, 4) int64 and x (batch, 24) -> table, products -> y (batch, 10)."""
    weights = {"table": normal(0, 30, 24), "one": normal(1, 24, 40), "two": normal(2, 40, 10), "axis": np.array([1], np.int64)}
    nodes: list[graphs.Node] = [
        ("Gather", ["table", "tokens"], ["e"]),
        ("ReduceSum", ["e", "axis"], ["s"], {"keepdims": 0}),
        ("Add", ["s", "x"], ["a"]),
        ("MatMul", ["a", "one"], ["b"]),
        ("Relu", ["b"], ["c"]),
        ("MatMul", ["c", "two"], ["y"]),
    ]
    inputs = {"tokens": ("batch", 4), "x": ("batch", 24)}
    path = tmp_path / "net.onnx"
    onnx.save(graphs.build(nodes, inputs, {"y": ("batch", 10)}, weights, types={"tokens": onnx.TensorProto.INT64}), path)
    return path


def samples(seed: int, count: int) -> dict[str, np.ndarray]:
    return {"tokens": np.random.default_rng(seed).integers(0, 30, (count, 4)), "x": normal(seed, count, 24)}


def apart(before: Graph, after: Graph, inputs: dict[str, np.ndarray]) -> float:
    wanted, found = (backends.load(one.to_bytes(), Execution("onnxruntime")).run(inputs)["y"] for one in (before, after))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("profile", ["full", "minimal"])
def test_arrays_by_name(edgewise: Edgewise, net: Path, tmp_path: Path, profile: str) -> None:
    np.savez(tmp_path / "samples.npz", **samples(3, 80))
    plain, out = tmp_path / "plain.edgew", tmp_path / "net.edgew"
    assert edgewise("pack", net, "-o", plain, "--profile", profile)[0] == 0
    asked = ("--max-divergence", 0.03, "--calibration", tmp_path / "samples.npz", "--profile", profile, "--coders", "all")
    code, said, err = edgewise("pack", net, "-o", out, *asked)
    assert code == 0, err
    assert max(map(len, said.splitlines())) <= 80
    words = " ".join(said.split())
    assert "No longer the same model to the bit" in words and "20 samples rounding did not see" in words
    assert "the 60 that rounding saw, 0.03 asked at most" in words
    assert ", the same to the bit" not in words
    assert out.stat().st_size < 0.6 * plain.stat().st_size
    found = package.open(out)
    assert 0.01 < apart(Graph.load(net), found.graph(), samples(99, 200)) < 0.045
    assert found.manifest.provenance.model == ("net.onnx" if profile == "full" else "")


def test_pictures_as_fit_reads_them(edgewise: Edgewise, model: Path, data: Path, tmp_path: Path) -> None:
    asked = ("--max-divergence", 0.05, "--calibration", data, "--mean", 0.5, "--std", 0.2)
    code, said, err = edgewise("pack", model, "-o", tmp_path / "out.edgew", *asked)
    assert code == 0, err
    assert "samples rounding did not see" in " ".join(said.split())
    assert package.open(tmp_path / "out.edgew").signature == Graph.load(model).signature


def test_without_samples_it_is_the_weights_that_diverge(edgewise: Edgewise, net: Path, tmp_path: Path) -> None:
    code, said, err = edgewise("pack", net, "-o", tmp_path / "net.edgew", "--max-divergence", 0.05)
    assert code == 0, err
    words = " ".join(said.split())
    assert "the weights moved by" in words and "not known without --calibration" in words
    before, after = ({one.name: numpy_helper.to_array(one) for one in graph.proto.graph.initializer} for graph in (
        Graph.load(net), package.open(tmp_path / "net.edgew").graph(),
    ))  # fmt: skip
    names = ("table", "one", "two")
    moved = sum(float(((after[name] - before[name]) ** 2).sum()) for name in names)
    assert 0.02 < (moved / sum(float((before[name] ** 2).sum()) for name in names)) ** 0.5 <= 0.05


def test_too_few_samples_to_hold_some_out(edgewise: Edgewise, net: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", **samples(3, 9))
    code, said, _ = edgewise("pack", net, "-o", tmp_path / "net.edgew", "--max-divergence", 0.05, "--calibration", tmp_path / "few.npz")
    assert code == 0 and "too few samples to hold any out" in " ".join(said.split())


def test_what_is_refused(edgewise: Edgewise, net: Path, model: Path, data: Path, tmp_path: Path) -> None:
    def kept(name: str, **arrays: np.ndarray) -> Path:
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    good = kept("good.npz", **samples(0, 20))
    bad = samples(0, 20)
    nan = np.where(np.arange(24) == 3, np.nan, bad["x"]).astype(np.float32)
    rounding = ("--max-divergence", 0.05, "--calibration")
    for source, arguments, message in (
        (net, ("--max-divergence", 0), "above 0 and below 1"),
        (net, ("--max-divergence", 1), "above 0 and below 1"),
        (net, ("--max-divergence", "nan"), "above 0 and below 1"),
        (net, ("--calibration", good), "nothing is rounded without --max-divergence"),
        (net, ("--max-divergence", 0.05, "--mean", 0.5, "--std", 0.2), "give it too"),
        (net, (*rounding, tmp_path / "none.npz"), "there is no such file"),
        (net, (*rounding, kept("names.npz", x=bad["x"])), "the model takes tokens, x"),
        (net, (*rounding, kept("shape.npz", tokens=bad["tokens"], x=bad["x"][:, :5])), "the model takes float32"),
        (net, (*rounding, kept("count.npz", tokens=bad["tokens"][:7], x=bad["x"])), "as many of each"),
        (net, (*rounding, kept("nan.npz", tokens=bad["tokens"], x=nan)), "NaN or infinity"),
        (net, (*rounding, kept("ids.npz", tokens=bad["tokens"] + 1000, x=bad["x"])), "can't run the model on these inputs"),
        (net, (*rounding, tmp_path), "takes no picture"),
        (net, (*rounding, good, "--mean", 0.5, "--std", 0.2), "leave out --mean, --std"),
        (model, (*rounding, tmp_path / "nowhere"), "no such file or folder"),
        (net, (*rounding, good, "--out", tmp_path / "no" / "net.edgew"), "does its folder exist"),
    ):  # fmt: skip
        code, _, err = edgewise("pack", source, "-o", tmp_path / "out.edgew", *arguments)
        assert code == 2 and message in " ".join(err.split()), (arguments, err)
    assert not list(tmp_path.glob("*.edgew")) and not list(tmp_path.glob(".*"))


def test_interrupted_it_leaves_what_was_there(edgewise: Edgewise, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.edgew"
    out.write_bytes(b"before")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rdoq, "_searched", interrupted)
    assert edgewise("pack", net, "-o", out, "--max-divergence", 0.05)[0] == 130
    assert out.read_bytes() == b"before" and not list(tmp_path.glob(".*"))


def test_without_torch(edgewise: Edgewise, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says the pip line; and lossless packing never asks for torch."""
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = edgewise("pack", net, "-o", tmp_path / "net.edgew", "--max-divergence", 0.05)
    assert code == 2 and "pip install 'edgewise[workshop]'" in " ".join(err.split())
    assert not (tmp_path / "net.edgew").exists()
    assert edgewise("pack", net, "-o", tmp_path / "net.edgew")[0] == 0
