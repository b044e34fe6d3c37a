"""A tiny model, data for it, and the command line run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from edgewise import cli
from edgewise.testing import graphs


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def edgewise(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: object) -> Ran:
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Ran(int(end.value.code or 0), shown.out, shown.err)

    return run


def network(seed: int = 0) -> onnx.ModelProto:
    """image (batch, 1, 8, 8) -> convolution, mean over the picture -> logits (batch, 2), which tell bright from dark."""
    random = np.random.default_rng(seed)
    weights = {
        "w": (random.standard_normal((8, 1, 3, 3)) / 9 + 0.1).astype(np.float32),
        "b": np.zeros(8, np.float32),
        "head": np.stack([-np.ones(8), np.ones(8)], 1).astype(np.float32),
    }
    nodes: list[graphs.Node] = [
        ("Conv", ["image", "w", "b"], ["c"], {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
        ("GlobalAveragePool", ["c"], ["p"]),
        ("Flatten", ["p"], ["f"]),
        ("MatMul", ["f", "head"], ["logits"]),
    ]
    return graphs.build(nodes, {"image": ("batch", 1, 8, 8)}, {"logits": ("batch", 2)}, weights)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(network(), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """120 pictures of 8×8: dark ones and bright ones."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = random.integers(0, 100, (120, 8, 8), dtype=np.uint8) + (150 * labels[:, None, None]).astype(np.uint8)
    path = tmp_path / "pictures.npz"
    np.savez(path, images=images, labels=labels, names=np.array(["dark", "bright"]))
    return path
