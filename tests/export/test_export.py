"""torch to ONNX and back to torch's own answers; and what happens to models that can't go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.export import export, export_program, parity, run_torch
from edgewise.graph import Graph
from edgewise.models.resnet import resnet8
from edgewise.types import Inputs, Outputs

IMAGE = {"image": np.random.default_rng(0).normal(size=(1, 1, 28, 28)).astype(np.float32)}


class OrtRunner:
    def __init__(self, graph: Graph) -> None:
        self.signature = graph.signature
        self.session = ort.InferenceSession(graph.to_bytes())

    def run(self, inputs: Inputs) -> Outputs:
        return dict(zip([spec.name for spec in self.signature.outputs], self.session.run(None, dict(inputs)), strict=True))

    def close(self) -> None:
        pass


def trained() -> nn.Module:
    torch.manual_seed(0)
    module = resnet8()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module


@pytest.fixture(scope="module")
def exported() -> tuple[nn.Module, Graph]:
    module = trained().train()
    module.head.eval()
    return module, export(module, IMAGE, output_names=["logits"])


class Two(nn.Module):
    """Two inputs of two dtypes, two outputs, and a batch that is used in the arithmetic of shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)

    def forward(self, ids: Tensor, scale: Tensor) -> dict[str, Tensor]:
        x = self.embed(ids) * scale[:, :, None]
        return {"flat": x.reshape(x.shape[0], -1), "mean": x.mean(1)}


def test_named_axes_folded_and_small(exported: tuple[nn.Module, Graph]) -> None:
    _, graph = exported
    assert [(spec.name, spec.shape, spec.dtype) for spec in graph.signature.inputs] == [("image", ("batch", 1, 28, 28), "float32")]
    assert [(spec.name, spec.shape) for spec in graph.signature.outputs] == [("logits", ("batch", 10))]
    assert {node.op_type for node in graph.proto.graph.node} == {"Conv", "Relu", "Add", "ReduceMean", "Gemm"}
    assert {entry.domain: entry.version for entry in graph.proto.opset_import}[""] == 18
    assert str(Path(__file__).parent).encode() not in graph.to_bytes()  # no stack traces


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_parity_on_samples(exported: tuple[nn.Module, Graph], batch: int) -> None:
    module, graph = exported
    inputs = {"image": np.random.default_rng(batch).normal(size=(batch, 1, 28, 28)).astype(np.float32)}
    found = parity(module, graph, inputs, runner=OrtRunner(graph))
    assert (found.output, found.samples) == ("logits", batch)
    assert found.relative_l2 < 1e-5
    expected, got = run_torch(module, inputs)["output_0"], OrtRunner(graph).run(inputs)["logits"]
    assert found.max_abs == np.abs(got.astype(np.float64) - expected).max()
    assert found.relative_l2 == pytest.approx(
        np.linalg.norm(got.astype(np.float64) - expected) / np.linalg.norm(expected.astype(np.float64))
    )


def test_parity_loads_an_engine_of_its_own(exported: tuple[nn.Module, Graph]) -> None:
    assert parity(*exported, IMAGE).relative_l2 < 1e-5


def test_the_module_comes_back_as_it_was() -> None:
    module = trained().train()
    module.stages[1].eval()
    modes = [part.training for part in module.modules()]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    graph = export(module, IMAGE)
    parity(module, graph, IMAGE, runner=OrtRunner(graph))
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())

    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    broken = Breaks().train()
    with pytest.raises(InvalidModel):
        export(broken, {"x": np.ones((2, 3), np.float32)})
    assert broken.training


def test_several_inputs_and_outputs() -> None:
    module = Two()
    example = {"ids": np.array([[1, 2, 3]]), "scale": np.ones((1, 3), np.float32)}
    graph = export(module, example, output_names=["flat", "mean"])
    assert [(spec.name, spec.shape, spec.dtype) for spec in graph.signature.inputs] == [
        ("ids", ("batch", 3), "int64"),
        ("scale", ("batch", 3), "float32"),
    ]
    assert [spec.shape for spec in graph.signature.outputs] == [("batch", 12), ("batch", 4)]
    inputs = {"ids": np.arange(12).reshape(4, 3) % 11, "scale": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)}
    assert parity(module, graph, inputs, runner=OrtRunner(graph)).max_abs < 1e-6
    assert list(run_torch(module, inputs)) == ["flat", "mean"]


def test_other_names_go_by_position_and_stay() -> None:
    graph = export(nn.Linear(3, 2), {"pixels": np.ones((4, 3), np.float32)})
    assert graph.signature.inputs[0].name == "pixels"
    sequential = export(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), {"pixels": np.ones((4, 3), np.float32)})
    assert sequential.signature.inputs[0].name == "pixels"

    class Variadic(nn.Module):
        def forward(self, *args: Tensor) -> Tensor:
            return args[0] + args[1]

    graph = export(Variadic(), {"a": np.ones((4, 3), np.float32), "b": np.ones((4, 3), np.float32)})
    assert [spec.name for spec in graph.signature.inputs] == ["a", "b"]
    assert graph.signature.batched


def test_a_fixed_batch() -> None:
    graph = export(nn.Linear(3, 2), {"x": np.ones((4, 3), np.float32)}, batch_axis=None)
    assert graph.signature.inputs[0].shape == (4, 3)
    assert export(nn.Linear(3, 2), {"x": np.ones((4, 3), np.float32)}, batch_axis="n").signature.outputs[0].shape == ("n", 2)


def test_programs(tmp_path: Path) -> None:
    module = trained().eval()
    image = torch.from_numpy(IMAGE["image"]).repeat(2, 1, 1, 1)
    program = torch.export.export(module, (image,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "net.pt2")
    for given in (program, tmp_path / "net.pt2"):
        graph = export_program(given)
        assert graph.signature.inputs[0].shape == ("batch", 1, 28, 28)
        assert graph.signature.batched
        assert parity(module, graph, IMAGE, runner=OrtRunner(graph)).relative_l2 < 1e-5
    assert parity(program, graph, IMAGE, runner=OrtRunner(graph)).relative_l2 < 1e-5
    assert export_program(torch.export.export(module, (image,))).signature.inputs[0].shape == (2, 1, 28, 28)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class FixesTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 3) + 1


class NoOnnx(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


class LeavesTorch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 2)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Branches(), r"Branches can't be exported: .*data-dependent.*in forward.*test_export\.py:\d+.*torch\.where"),
        (FixesTheBatch(), r"FixesTheBatch can't be exported: .*batch_axis=None"),
        (NoOnnx(), r"NoOnnx can't be exported: .*svd.*operator"),
        (LeavesTorch(), r"LeavesTorch can't be exported: "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_exported_says_why_in_a_line(module: nn.Module, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidModel, match=message) as caught:
        export(module, {"x": np.ones((2, 3), np.float32)})
    assert len(str(caught.value).splitlines()) == 1
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_export_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    export(nn.Linear(3, 2), {"x": np.ones((4, 3), np.float32)})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({}, "one example array per input"),
        ({"image": np.ones((0, 1, 28, 28), np.float32)}, "at least one sample"),
        ({"image": np.ones((2, 3, 28, 28), np.float32)}, r"can't take image \(2, 3, 28, 28\) float32: .*1 channels"),
        ({"image": np.ones((2, 1, 28, 28), np.float64)}, r"can't take image \(2, 1, 28, 28\) float64"),
        ({"a": IMAGE["image"], "b": IMAGE["image"]}, "check shape, dtype and number of inputs"),
    ],
)
def test_examples_that_do_not_fit(example: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        export(resnet8(), example)
    with pytest.raises(InvalidInput, match="2 names are given"):
        export(resnet8(), IMAGE, output_names=["a", "b"])


class Wrong(OrtRunner):
    def __init__(self, graph: Graph, change: object) -> None:
        super().__init__(graph)
        self.change = change

    def run(self, inputs: Inputs) -> Outputs:
        return {name: self.change(value) for name, value in super().run(inputs).items()}


def test_failing_parity_says_which_how_far_and_what_to_do(exported: tuple[nn.Module, Graph]) -> None:
    module, graph = exported
    with pytest.raises(InvalidModel, match=r"'logits'.*off by 0\.01 \(relative L2; at most 0\.0001\).*on 1 samples.*larger tolerance"):
        parity(module, graph, IMAGE, runner=Wrong(graph, lambda value: value * 1.01))
    assert parity(module, graph, IMAGE, tolerance=0.02, runner=Wrong(graph, lambda value: value * 1.01)).relative_l2 == pytest.approx(
        0.01, rel=1e-3
    )
    with pytest.raises(InvalidModel, match="off by nan"):
        parity(module, graph, IMAGE, runner=Wrong(graph, lambda value: value * np.float32(np.nan)))
    with pytest.raises(InvalidModel, match="off by inf"):
        parity(module, graph, IMAGE, runner=Wrong(graph, lambda value: value + np.float32(np.inf)))
    with pytest.raises(InvalidModel, match=r"\(1, 10, 1\) in the graph and \(1, 10\) in torch"):
        parity(module, graph, IMAGE, runner=Wrong(graph, lambda value: value[..., None]))


def test_randomness_fails_parity() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    graph = export(Noisy(), {"x": np.ones((4, 3), np.float32)})
    with pytest.raises(InvalidModel, match="random or stateful"):
        parity(Noisy(), graph, {"x": np.ones((4, 3), np.float32)}, runner=OrtRunner(graph))


def test_infinities_that_agree_are_equal() -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x)

    graph = export(Log(), {"x": np.ones((2, 3), np.float32)})
    found = parity(Log(), graph, {"x": np.array([[0, 1, 2]], np.float32)}, runner=OrtRunner(graph))
    assert found.max_abs < 1e-6


def test_read_only_inputs_and_lazy_torch() -> None:
    frozen = IMAGE["image"].copy()
    frozen.setflags(write=False)
    assert run_torch(trained(), {"image": frozen})["output_0"].shape == (1, 10)
    import subprocess
    import sys

    code = "import sys, edgewise.export, edgewise.models, edgewise.graph; print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


class Words(nn.Module):
    """ids, mask (batch, tokens) -> the mean of the ids' vectors, (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)

    def forward(self, ids: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
        weight = mask[:, :, None].to(torch.float32)
        return (self.embed(ids) * weight).sum(1) / weight.sum(1) * scale[:, None]


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("batch_axis", ["batch", None])
def test_further_axes_are_open_by_name(norms: bool, batch_axis: str | None) -> None:
    def example(batch: int, tokens: int) -> Inputs:
        ids = np.random.default_rng(tokens).integers(0, 11, (batch, tokens))
        return {"ids": ids, "mask": (ids > 2).astype(np.int64) | (np.arange(tokens) == 0), "scale": np.ones(batch, np.float32)}

    module = Words()
    # torch calls the vectors "embedding" too.
    graph = export(module, example(2, 5), batch_axis=batch_axis, axes={1: "tokens"}, output_names=["embedding"], norms=norms)
    batch = batch_axis or 2
    assert [spec.shape for spec in graph.signature.inputs] == [(batch, "tokens"), (batch, "tokens"), (batch,)]
    assert [(spec.name, spec.shape) for spec in graph.signature.outputs] == [("embedding", (batch, 4))]
    for size, tokens in ((2, 2), (2, 9), *(((1, 1), (5, 3)) if batch_axis else ())):
        assert parity(module, graph, example(size, tokens), runner=OrtRunner(graph)).relative_l2 < 1e-5
