"""Models in, and every way in which it goes wrong: an InvalidModel that says what to do, never a traceback of torch's."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx import parser as onnx_parser
from safetensors.torch import save_file
from torch import nn

from edgewise.errors import InvalidInput, InvalidModel, MissingExtra
from edgewise.graph import Graph
from edgewise.models import intake
from edgewise.models.resnet import resnet8

RESNET = "edgewise.models.resnet:resnet8"

NETS = """
import torch
from torch import nn
from sizes import WIDTH

def small():
    return nn.Linear(WIDTH, 3)

def sized(width, depth=2):
    return nn.Linear(width, depth)

def number():
    return 3

def failing():
    raise RuntimeError("no such table\\nand more lines")

def diverged():
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, float("nan"))
    return module

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 4, bias=False)
        self.decode = nn.Linear(4, 4, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.encode(x))

ready = nn.Linear(2, 2)
constant = 3.0
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "sizes.py").write_text("WIDTH = 5\n")
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


def program(folder: Path) -> Path:
    path = folder / "net.pt2"
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},)), path)
    return path


def test_a_callable_with_weights(tmp_path: Path) -> None:
    trained = resnet8()
    nn.init.normal_(trained.norm.running_mean)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    taken = intake(RESNET, weights=tmp_path / "w.safetensors")
    assert (taken.kind, taken.name) == ("module", "resnet8")
    assert not any(part.training for part in taken.module.modules())
    for name, tensor in taken.module.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])


def test_a_file_with_its_neighbours(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert intake(f"{nets}:small").module.in_features == 5
    assert intake(f"{nets}:ready").kind == "module"
    monkeypatch.chdir(nets.parent)
    assert intake("nets.py:small").name == "small"
    assert intake("nets:small").module.in_features == 5  # the working directory is importable, as with `python -m`


def test_an_onnx_file(tmp_path: Path) -> None:
    proto = onnx_parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[n, 4] x) => (float[n, 4] y) { a = Identity(x)  y = Relu(a) }'
    )
    onnx.save_model(proto, str(tmp_path / "tiny.onnx"))
    taken = intake(tmp_path / "tiny.onnx")
    assert (taken.kind, taken.name) == ("graph", "tiny")
    assert isinstance(taken.graph, Graph)
    assert len(taken.graph.proto.graph.node) == 1
    with pytest.raises(InvalidInput, match="holds its own weights"):
        intake(tmp_path / "tiny.onnx", weights="w.safetensors")


def test_a_program(tmp_path: Path) -> None:
    taken = intake(program(tmp_path))
    assert (taken.kind, taken.name) == ("program", "net")
    assert taken.program.module()(torch.ones(3, 4)).shape == (3, 3)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("missing", "has no 'missing'; it defines small, sized, number"),
        ("sized", "needs width; give a callable without arguments"),
        ("number", "gave a int; expected a torch.nn.Module"),
        ("constant", "is a float; expected a callable"),
        ("failing", "RuntimeError: no such table; it has to run without arguments"),
        ("diverged", r"weight 'weight' \[2, 2\] has 4 NaN values"),
    ],
)
def test_callables_that_give_no_model(nets: Path, attribute: str, message: str) -> None:
    with pytest.raises(InvalidModel, match=message) as caught:
        intake(f"{nets}:{attribute}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(:\n", "line 1"),
        ("import no_such_library_at_all\n", "No module named 'no_such_library_at_all'; install"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import sys\nsys.exit(2)\n", "__main__"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(InvalidModel, match=message):
        intake(f"{path}:build")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_package.nets:build", "no module 'no_such_package'"),
        ("edgewise.models.no_such_module:build", "no module 'edgewise.models.no_such_module'"),
        ("edgewise.models.resnet:resnet1000", "has no 'resnet1000'; it defines Block, ResNet, resnet20, resnet14, resnet8"),
        ("resnet", "names no model"),
        ("net.pth", "names no model"),
        ("net.py", "names no model"),
        ("net.py:", "names no model"),
        ("no_such_file.py:build", "does not exist"),
        ("no_such_file.onnx", "does not exist"),
        ("no_such_file.pt2", "does not exist"),
    ],
)
def test_names_of_nothing(spec: str, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        intake(spec)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = resnet8().state_dict()
    path = tmp_path / "w.safetensors"

    def refused(tensors: dict[str, torch.Tensor]) -> str:
        save_file(tensors, path)
        with pytest.raises(InvalidModel) as caught:
            intake(RESNET, weights=path)
        return str(caught.value)

    missing = refused({name: tensor for name, tensor in state.items() if not name.startswith("head")})
    assert "missing: head.weight, head.bias" in missing
    assert "unexpected" not in missing
    assert "unexpected: extra" in refused({**state, "extra": torch.ones(1)})
    shapes = refused({**state, "head.weight": torch.ones(7, 64), "head.bias": torch.ones(7)})
    assert "head.weight [7, 64] in the file, [10, 64] in the model" in shapes
    assert "number of classes" in shapes
    assert "prefix 'module.'" in refused({f"module.{name}": tensor for name, tensor in state.items()})
    assert "and 46 more" in refused({"other": torch.ones(1)}) or "more" in refused({"other": torch.ones(1)})
    diverged = {**state, "conv.weight": torch.full_like(state["conv.weight"], float("nan"))}
    assert "'conv.weight' [16, 1, 3, 3] has 144 NaN values" in refused(diverged)


def test_counters_may_be_missing_and_tied_weights_stand_once(tmp_path: Path, nets: Path) -> None:
    state = {name: tensor for name, tensor in resnet8().state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    assert intake(RESNET, weights=tmp_path / "w.safetensors").kind == "module"
    save_file({"encode.weight": torch.full((4, 4), 2.0)}, tmp_path / "tied.safetensors")
    tied = intake(f"{nets}:Tied", weights=tmp_path / "tied.safetensors").module
    assert torch.equal(tied.decode.weight, torch.full((4, 4), 2.0))


@pytest.mark.parametrize("length", [0, 4, 100, 5000])
def test_truncated_weights(tmp_path: Path, length: int) -> None:
    save_file(resnet8().state_dict(), tmp_path / "whole.safetensors")
    path = tmp_path / "w.safetensors"
    path.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:length])
    with pytest.raises(InvalidModel, match="truncated"):
        intake(RESNET, weights=path)


def test_weights_of_another_kind(tmp_path: Path) -> None:
    torch.save(resnet8().state_dict(), tmp_path / "w.pth")
    with pytest.raises(InvalidModel, match=r"pickled checkpoints.*save_file"):
        intake(RESNET, weights=tmp_path / "w.pth")
    with pytest.raises(InvalidModel, match="does not exist"):
        intake(RESNET, weights=tmp_path / "none.safetensors")


class Opens:
    """What a hostile file would do when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_program_that_holds_a_pickle_runs_nothing(tmp_path: Path) -> None:
    import io

    good, bad, mark = program(tmp_path), tmp_path / "bad.pt2", tmp_path / "mark"
    buffer = io.BytesIO()
    torch.save({"x": Opens(mark)}, buffer)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            target.writestr(name, buffer.getvalue() if name.endswith(".pt") else source.read(name))
    with pytest.raises(InvalidModel, match="pickled objects"):
        intake(bad)
    pickled = tmp_path / "pickled.pt2"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(pickled, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'"use_pickle": false', b'"use_pickle": true'))
    with pytest.raises(InvalidModel, match="as a pickle"):
        intake(pickled)
    assert not mark.exists()


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    whole = program(tmp_path).read_bytes()
    path = tmp_path / "broken.pt2"
    for content in (b"", b"hello", whole[: len(whole) // 2], numpy_helper.from_array(np.ones(3)).SerializeToString()):
        path.write_bytes(content)
        with pytest.raises(InvalidModel, match=r"not a \.pt2 program"):
            intake(path)
    torch.save({"weights": torch.ones(3)}, path)
    with pytest.raises(InvalidModel, match=r"not a \.pt2 program"):
        intake(path)


def test_without_torch_it_says_what_to_install(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nets.parent / "plain.py"
    path.write_text("def build():\n    return 3\n")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    for spec in (f"{path}:build", f"{nets}:small"):
        with pytest.raises(MissingExtra, match=r"edgewise\[workshop\]"):
            intake(spec)
