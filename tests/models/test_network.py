"""A network is held against the torch module that it was exported from, in evaluation and in training, and against ONNX Runtime."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx import parser as onnx_parser
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.export import export
from edgewise.graph import Graph, Index, fold, taps, trainable
from edgewise.models.network import Network, escaped, unescaped
from edgewise.models.resnet import resnet8
from edgewise.testing import graphs, nets


def tensors(name: str, batch: int = 4, seed: int = 0) -> dict[str, Tensor]:
    return {given: torch.from_numpy(array) for given, array in nets.example(name, batch, seed).items()}


@cache
def exported(name: str) -> Graph:
    return export(nets.NETS[name](), nets.example(name), norms=True)


def run(graph: Graph, inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.to_bytes(), options)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: x.numpy() for name, x in inputs.items()}), strict=True))


def parsed(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    proto = onnx_parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    return proto


@pytest.mark.parametrize("name", nets.NETS)
def test_evaluation_is_the_modules_and_the_engines(name: str) -> None:
    module, net, inputs = nets.NETS[name](), Network(exported(name)), tensors(name)
    assert not net.training
    with torch.no_grad():
        got, expected = net(**inputs), module(**inputs)
        assert torch.equal(net(*inputs.values()), got)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    output = net.structure.signature.outputs[0].name
    for graph in (exported(name), net.to_graph(), fold(net.to_graph())):
        np.testing.assert_allclose(run(graph, inputs)[output], got.numpy(), rtol=1e-3, atol=1e-4)
    norms = "BatchNormalization" in {node.op_type for node in fold(net.to_graph()).proto.graph.node}
    assert norms == (name in ("densenet_like", "grouped"))  # those that no convolution alone feeds


@pytest.mark.parametrize("name", nets.NETS)
def test_any_batch(name: str) -> None:
    module, net = nets.NETS[name](), Network(exported(name))
    with torch.no_grad():
        for batch in (1, 7):
            inputs = tensors(name, batch, seed=batch)
            torch.testing.assert_close(net(**inputs), module(**inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", nets.NETS)
def test_training_is_the_modules(name: str) -> None:
    """Same outputs, same gradients and same running statistics, under the module's own names."""
    module, net, inputs = nets.NETS[name]().train(), Network(exported(name)).train(), tensors(name)
    expected, got = module(**inputs), net(**inputs)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * direction).sum().backward()
    (got * direction).sum().backward()
    parameters = dict(module.named_parameters())
    assert {unescaped(key) for key, _ in net.named_parameters()} == set(parameters)
    for key, found in parameters.items():
        mine = net.weight(key)
        assert isinstance(mine, nn.Parameter)
        # A linear layer's weight may lie transposed.
        grad = mine.grad if mine.shape == found.shape else mine.grad.T
        if mine.shape == found.shape and not torch.equal(mine, found):
            grad = mine.grad.T
        torch.testing.assert_close(
            grad, found.grad, rtol=1e-3, atol=1e-4 * float(found.grad.abs().max() + 1), msg=lambda text, key=key: f"{key}: {text}"
        )
    for key, buffer in module.named_buffers():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(net.weight(key), buffer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet_like", "vit_like"])
def test_steps_of_training_lead_to_the_same_place(name: str) -> None:
    module, net = nets.NETS[name]().train(), Network(exported(name)).train()
    losses = []
    for model in (module, net):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(**tensors(name, 8)), torch.arange(8) % 10)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[:4] == pytest.approx(losses[4:], rel=1e-3)
    assert losses[-1] < losses[4]
    inputs = tensors(name)
    module.eval()
    output = run(fold(net.to_graph()), inputs)[net.structure.signature.outputs[0].name]
    np.testing.assert_allclose(output, module(**inputs).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_parameters_of_equal_values_stay_apart_and_tied_ones_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.temperature = nn.Parameter(torch.ones(()))
            self.decode = nn.Linear(6, 11, bias=False)
            self.decode.weight = self.embed.weight
            for layer in (self.one, self.two):
                nn.init.zeros_(layer.bias)

        def forward(self, ids: Tensor) -> Tensor:
            x = torch.relu(self.two(torch.relu(self.one(self.embed(ids)))))
            return self.decode(x) * self.temperature

    torch.manual_seed(0)
    module = Tied()
    ids = np.array([[1, 2, 3], [4, 5, 10]])
    net = Network(export(module, {"ids": ids}, norms=True)).train()
    assert {unescaped(key) for key, _ in net.named_parameters()} == {name for name, _ in module.named_parameters()}
    for model in (module, net):
        model(torch.from_numpy(ids)).square().sum().backward()
    torch.testing.assert_close(net.weight("embed.weight").grad, module.embed.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.weight("temperature").grad, module.temperature.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.weight("two.bias").grad, module.two.bias.grad, rtol=1e-4, atol=1e-4)


def test_buffers_and_literals_of_a_module_do_not_train() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("places", torch.randn(3, 4))
            self.norm = nn.GroupNorm(2, 4)
            self.plain = nn.BatchNorm1d(4, affine=False)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = (x + self.places).mean(1) * torch.tensor([1.0, 2.0, 0.5, 1.0])
            return self.head(self.plain(self.norm(x)))

    module = Buffered()
    net = Network(export(module, {"x": np.ones((2, 3, 4), np.float32)}, norms=True))
    assert {unescaped(key) for key, _ in net.named_parameters()} == {name for name, _ in module.named_parameters()}
    assert {*net.weights()} - {name for name, _ in module.named_parameters()} == {"plain.running_mean", "plain.running_var"}
    assert not any("places" in key for key in net.state_dict())
    x = torch.randn(5, 3, 4)
    torch.testing.assert_close(net(x), module.eval()(x))


def test_taps_are_the_tensors_of_the_graph() -> None:
    net, inputs = Network(exported("mobilenet_like")), tensors("mobilenet_like")
    names = Index(net.structure).tensors
    expected = run(taps(net.structure, names), inputs)
    with torch.no_grad():
        got = net.run(inputs, names)
    assert set(got) == set(expected)
    for name in names:
        np.testing.assert_allclose(got[name].numpy(), expected[name], rtol=1e-3, atol=1e-4)
    assert torch.equal(net.run(inputs, ["image"])["image"], inputs["image"])
    inner = net.run(inputs, names[:1])[names[0]]
    assert inner.requires_grad
    output = net.structure.signature.outputs[0].name
    assert list(net.run(inputs)) == [output]
    torch.testing.assert_close(net.run(inputs)[output], net(**inputs))


def test_copies_share_the_structure_and_not_the_weights() -> None:
    net, inputs = Network(exported("unet_like")), tensors("unet_like")
    twin = copy.deepcopy(net)
    assert twin.structure is net.structure
    assert not twin.training
    before = net(**inputs)
    assert torch.equal(twin(**inputs), before)
    with torch.no_grad():
        twin.weight("head.bias").add_(1)
    assert torch.equal(net(**inputs), before)
    torch.testing.assert_close(twin(**inputs), before + 1)
    twin.train()(**inputs)
    assert not torch.equal(twin.weight("down1.1.running_mean"), net.weight("down1.1.running_mean"))


def test_saved_without_pickle(tmp_path: Path) -> None:
    net, inputs = Network(exported("shared")), tensors("shared")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    net.train()(**inputs)
    net.eval()
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    other = Network(exported("shared"))
    assert not torch.equal(other(**inputs), net(**inputs))
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(other(**inputs), net(**inputs))
    net.to_graph().save(tmp_path / "net.onnx")
    again = Network(Graph.load(tmp_path / "net.onnx"))
    assert torch.equal(again(**inputs), net(**inputs))
    assert list(again.state_dict()) == list(net.state_dict())
    assert again.to_graph().sha256 == net.to_graph().sha256


def test_to_graph_round_trips() -> None:
    for name in nets.NETS:
        assert Network(exported(name)).to_graph().sha256 == Network(Network(exported(name)).to_graph()).to_graph().sha256
        found = {tensor.name: numpy_helper.to_array(tensor) for tensor in Network(exported(name)).to_graph().proto.graph.initializer}
        for tensor in exported(name).proto.graph.initializer:
            np.testing.assert_array_equal(found[tensor.name], numpy_helper.to_array(tensor))


@pytest.mark.parametrize("element", [np.float16, np.float64])
def test_other_precisions(element: type) -> None:
    weights = {"w": np.ones((4, 2), element) / 3, "b": np.ones(2, element)}
    kind = {np.float16: "float16", np.float64: "double"}[element]
    net = Network(trainable(parsed(f"g ({kind}[n, 4] x) => ({kind}[n, 2] y) {{ m = MatMul(x, w)  y = Add(m, b) }}", **weights)))
    assert {str(p.dtype).removeprefix("torch.") for p in net.parameters()} == {np.dtype(element).name}
    assert net.to_graph().sha256 == net.structure.sha256
    half = Network(exported("gated")).to(torch.bfloat16)
    assert half(tensors("gated")["tokens"].to(torch.bfloat16)).dtype == torch.bfloat16
    assert {tensor.data_type for tensor in half.to_graph().proto.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def computing_shapes() -> Graph:
    """Not in training form: Shape, Gather, Concat, Reshape, Expand on the way."""
    text = """g (float[n, 4, 6] x, int64[n] ids) => (float[n, a, b] y, int64[3] shape) {
        s = Shape(x)  first = Gather(s, zero)  rest = Slice(s, one, end)  two = Div(rest, halves)
        firsts = Unsqueeze(first, zeros)  whole = Concat<axis=0>(firsts, minus)  flat = Reshape(x, whole)  m = MatMul(flat, w)
        to = Concat<axis=0>(firsts, two, minus)  r = Reshape(m, to)
        e = Gather(table, ids)  eu = Unsqueeze(e, one)  full = Expand(eu, ones)  y = Concat<axis=1>(r, full)  shape = Shape(y)
    }"""
    random = np.random.default_rng(0)
    weights = {
        "zero": np.array(0), "zeros": np.array([0]), "one": np.array([1]), "end": np.array([2]), "minus": np.array([-1]),
        "halves": np.array([2]), "ones": np.array([1, 1, 1]), "w": random.normal(size=(24, 24)).astype(np.float32),
        "table": random.normal(size=(5, 12)).astype(np.float32),
    }  # fmt: skip
    return Graph.from_proto(parsed(text, **weights))


def test_shapes_may_be_computed() -> None:
    graph = computing_shapes()
    net = Network(graph)
    assert set(net.weights()) == {"w", "table"}
    for batch in (1, 3):
        inputs = {"x": torch.randn(batch, 4, 6), "ids": torch.arange(batch)}
        got = net(**inputs)
        for name, tensor in zip(("y", "shape"), got, strict=True):
            np.testing.assert_allclose(tensor.detach().numpy(), run(graph, inputs)[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", graphs.FLOAT)
def test_files_of_unknown_origin(name: str) -> None:
    proto, inputs = graphs.FLOAT[name]()
    net = Network(trainable(proto))
    given = {name: torch.from_numpy(x) for name, x in inputs.items()}
    for output, expected in run(Graph.from_proto(proto), given).items():
        np.testing.assert_allclose(net.run(given)[output].detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    floats = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert {unescaped(key) for key, _ in net.named_parameters()} == floats


def test_masks_and_numbers_do_not_train() -> None:
    text = """g (float[n, 4] x) => (float[n, 4] y) {
        a = Add(x, mask)  b = Mul(a, half)  c = Mul(b, gamma)  d = Div(c, one)  y = Clip(d, low, high) }"""
    mask = np.array([0, -1e9, 0, 0], np.float32)
    weights = {
        "mask": mask,
        "half": np.float32(0.5),
        "one": np.ones(1, np.float32),
        "gamma": np.ones(4, np.float32),
        "low": np.float32(-1),
        "high": np.float32(1),
    }
    assert set(Network(trainable(parsed(text, **weights))).weights()) == {"gamma"}


def test_momentum_is_the_share_of_what_was() -> None:
    text = "g (float[n, 2] x) => (float[n, 2] y) { y = BatchNormalization<momentum=0.75>(x, scale, bias, mean, variance) }"
    weights = {name: np.full(2, value, np.float32) for name, value in {"scale": 1, "bias": 0, "mean": 4, "variance": 2}.items()}
    net = Network(trainable(parsed(text, **weights))).train()
    x = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    y = net(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(net.weight("mean"), torch.tensor([3.25, 3.75]))
    torch.testing.assert_close(net.weight("variance"), 0.75 * 2 + 0.25 * x.var(0))  # the unbiased one, as torch's batch norm keeps it


def test_a_frozen_norm_and_a_statistic_that_is_a_weight_too() -> None:
    text = """g (float[n, 2] x) => (float[n, 2] y) {
        a = BatchNormalization(x, ones, zeros, zeros, ones)  y = BatchNormalization(a, ones, b, zeros, ones) }"""
    weights = {"ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32), "b": np.full(2, 3, np.float32)}
    with pytest.raises(InvalidModel, match=r"'ones' is a batch norm's running statistic.*edgewise\.graph\.trainable"):
        Network(Graph.from_proto(parsed(text, **weights)))
    net = Network(trainable(parsed(text, **weights))).train()
    assert len(net.weights()) == 8
    net(torch.randn(6, 2)).sum().backward()


def test_nothing_is_kept_that_nobody_reads() -> None:
    plan = Network(exported("densenet_like"))._plan
    outputs = {plan.slots[spec.name] for spec in exported("densenet_like").signature.outputs}
    for steps in (plan.training, plan.evaluation):
        made = [slot for step in steps for slot in step.outputs]
        spent = [slot for step in steps for slot in step.spent]
        assert len(spent) == len(set(spent))
        assert set(made) - outputs <= set(spent)
        assert not outputs & set(spent)


@pytest.mark.parametrize("build", graphs.QUANTIZED.values(), ids=graphs.QUANTIZED)
def test_quantized_graphs_are_refused(build: object) -> None:
    with pytest.raises(InvalidModel, match=r"node 'QuantizeLinear_0' \(QuantizeLinear\) is quantized.*train the float model"):
        Network(Graph.from_proto(build()[0]))


def test_what_is_asked_wrongly_says_what_is_right() -> None:
    net, inputs = Network(exported("two_inputs")), tensors("two_inputs")
    with pytest.raises(InvalidInput, match=r"got image; the network takes image \('batch', 3, 16, 16\), sensors"):
        net(inputs["image"])
    with pytest.raises(InvalidInput, match="3 inputs in order"):
        net(*inputs.values(), inputs["image"])
    with pytest.raises(InvalidInput, match="image by name"):
        net(inputs["image"], image=inputs["image"])
    with pytest.raises(InvalidInput, match="got image, other"):
        net.run({"image": inputs["image"], "other": inputs["sensors"]})
    with pytest.raises(InvalidInput, match="no tensor 'nothing'"):
        net.run(inputs, ["nothing"])
    with pytest.raises(InvalidInput, match="no weight 'nothing'"):
        net.weight("nothing")
    with pytest.raises(RuntimeError) as caught:
        net(inputs["image"][:, :2], inputs["sensors"])
    assert any("Conv" in note for note in caught.value.__notes__)


@given(st.text(alphabet=".:%25A3E_/wé", min_size=1))
def test_names_are_escaped_reversibly(name: str) -> None:
    assert unescaped(escaped(name)) == name
    assert "." not in escaped(name)
    assert not hasattr(nn.Module(), escaped(name))


def test_on_another_device() -> None:
    """What is computed about shapes stays on the CPU, and meets the data where the data is. Without a GPU, shapes alone are held."""
    device = "cuda" if torch.cuda.is_available() else "meta"
    given = {"x": torch.randn(3, 4, 6), "ids": torch.arange(3)}
    for graph, inputs in ((computing_shapes(), given), *((exported(name), tensors(name)) for name in ("vit_like", "unet_like"))):
        here, there = Network(graph), Network(graph).to(device)
        expected = here.run(inputs)
        got = there.run({name: x.to(device) for name, x in inputs.items()})
        for name, value in expected.items():
            assert got[name].shape == value.shape
            if device == "cuda" and value.is_floating_point():
                torch.testing.assert_close(got[name].cpu(), value, rtol=1e-2, atol=1e-3)
        first = next(iter(got.values()))
        assert first.device.type == device
        first.sum().backward()
        assert all(parameter.grad is not None and parameter.grad.device.type == device for parameter in there.parameters())
        if device == "cuda":
            assert there.to_graph().sha256 == here.to_graph().sha256


def test_a_network_as_others_use_modules() -> None:
    image = torch.randn(3, 1, 28, 28)
    module = resnet8().eval()
    net = Network(export(module, {"image": image.numpy()}, norms=True))
    assert f"{sum(p.numel() for p in module.parameters())} parameters" in repr(net)
    assert net.half().weight("conv.weight").dtype == torch.float16
    net.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert net(image).dtype == torch.bfloat16
    state = {key: value.detach() * 0 for key, value in net.named_parameters()}
    assert torch.equal(torch.func.functional_call(net, state, (image,)), torch.zeros(3, 10))
    torch.testing.assert_close(net(image), module(image), rtol=1e-2, atol=1e-2)
