"""What a user may get wrong about model and data, through the whole of `edgewise fit`: exit code 2, a message, no file left behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgewise.testing import graphs

Edgewise = Callable[..., tuple[int, str, str]]

NETS = """
import torch
from torch import nn

class Branches(nn.Module):
    def forward(self, image):
        return image.flatten(1)[:, :2] if image.sum() > 0 else image.flatten(1)[:, 2:4]

class NoOnnx(nn.Module):
    def forward(self, image):
        return torch.linalg.svd(image.flatten(1)[:, :2])[2]

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.fully = nn.Linear(100, 2)

    def forward(self, image):
        return self.fully(image.flatten(1))
"""


def saved(path: Path, shape: tuple[int | str, ...], *, classes: int = 2, weight: float = 1.0, kind: int = TensorProto.FLOAT) -> Path:
    """image `shape` -> Cast, Flatten, MatMul -> logits (batch, classes)."""
    inside = int(np.prod([side for side in shape[1:] if isinstance(side, int)]))
    nodes: list[graphs.Node] = [
        ("Cast", ["image"], ["x"], {"to": TensorProto.FLOAT}),
        ("Flatten", ["x"], ["flat"]),
        ("MatMul", ["flat", "w"], ["logits"]),
    ]
    weights = {"w": np.full((inside, classes), weight, np.float32)}
    onnx.save(graphs.build(nodes, {"image": shape}, {"logits": ("batch", classes)}, weights, types={"image": kind}), path)
    return path


@pytest.fixture
def given(tmp_path: Path, model: Path, data: Path) -> dict[str, tuple[object, object]]:
    """Name of a mistake -> (model, data)."""
    picture = ("batch", 1, 8, 8)
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    few = tmp_path / "few.npz"
    np.savez(few, images=np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8), labels=[0, 1])
    return {
        "path": (tmp_path / "missing.onnx", data),
        "no model": (tmp_path / "text.onnx", data),
        "shape": (saved(tmp_path / "flat.onnx", ("batch", 64)), data),
        "dtype": (saved(tmp_path / "bytes.onnx", picture, kind=TensorProto.UINT8), data),
        "class count": (saved(tmp_path / "seven.onnx", picture, classes=7), data),
        "NaN": (saved(tmp_path / "nan.onnx", picture, weight=float("nan")), data),
        "empty split": (model, few),
        "untraceable": (f"{tmp_path / 'nets.py'}:Branches", data),
        "unexportable": (f"{tmp_path / 'nets.py'}:NoOnnx", data),
        "another width": (f"{tmp_path / 'nets.py'}:Wide", data),
        "no data": (model, tmp_path / "nowhere"),
    }


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("path", "missing.onnx does not exist; give"),
        ("no model", "text.onnx"),
        ("shape", r"image classification feeds one float32 \(batch, channels, height, width\)"),
        ("dtype", "image: uint8 .* feeds one float32"),
        ("class count", r"gives 7 classes and the data has 2 \(dark, bright"),
        ("NaN", r"weight 'w' \[64, 2\] has 128 NaN values.*take an earlier checkpoint"),
        ("empty split", r"nothing is left for (test|validation).*give more pictures"),
        ("untraceable", "Branches can't be exported: .*data-dependent"),
        ("unexportable", "NoOnnx can't be exported: .*svd"),
        ("another width", r"can't take image \(2, 1, 8, 8\) float32: .*check shape"),
        ("no data", "no such file or folder"),
    ],
)
def test_a_mistake_ends_in_one_message_and_leaves_nothing(
    edgewise: Edgewise, given: dict[str, tuple[object, object]], tmp_path: Path, mistake: str, said: str
) -> None:
    model, data = given[mistake]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    code, out, err = edgewise("fit", model, "--data", data, "--size-mb", "5", "--threads", "1", "-o", tmp_path / "out")
    assert code == 2, err
    assert re.search(said, err), err
    assert err.startswith("edgewise: ")
    assert "Traceback" not in err + out
    assert len(err.strip().splitlines()) <= 2
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    assert after.keys() == before.keys()
