"""Folders of transformers: the same numbers as transformers', in torch and in the engines, in a graph that trains and can be pruned."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewise import backends
from edgewise.errors import InvalidInput, InvalidModel, MissingExtra
from edgewise.export import export, parity
from edgewise.graph import Graph, parts
from edgewise.models import hub, intake
from edgewise.models.encoder import Encoder, Head
from edgewise.models.huggingface import layout, load_folder, save_folder
from edgewise.models.network import Network
from edgewise.testing import encoders
from edgewise.types import Execution, Inputs

SHAPES = encoders.SHAPES
LAYERS, HEADS, UNITS = 2, 4, 48
CALLS = ((1, 2), (1, 7), (3, 12), (5, 40))
KINDS: dict[Head, str] = {
    "classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "embedding": "AutoModel",
}


@cache
def encoder(shape: str, head: Head = "classification") -> Encoder:
    more = {"num_labels": 3} if head == "classification" else {}
    return Encoder(encoders.model(shape, KINDS[head], **more), head).eval()


@cache
def exported(shape: str, head: Head = "classification", *, pairs: bool = False, norms: bool = False) -> Graph:
    module = encoder(shape, head)
    return export(module, encoders.tokens(2, 6, pairs=pairs), axes=module.axes, output_names=module.outputs, norms=norms)


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def transformed(shape: str, inputs: Inputs, head: Head = "classification") -> Any:
    """What transformers itself gives: masks and positions as it makes them."""
    with torch.no_grad():
        return encoder(shape, head).model(**tensors(inputs))


def run(graph: Graph, inputs: Inputs, engine: str) -> np.ndarray:
    runner = backends.load(graph.to_bytes(), Execution(engine))
    try:
        return next(iter(runner.run(inputs).values()))
    finally:
        runner.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_answers_as_transformers_does(shape: str) -> None:
    for batch, length in CALLS:
        inputs = encoders.tokens(batch, length)
        with torch.no_grad():
            got = encoder(shape)(**tensors(inputs))
        torch.testing.assert_close(got, transformed(shape, inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("engine", backends.taking())
def test_the_engines_give_the_same_at_every_length(shape: str, engine: str) -> None:
    graph = exported(shape)
    assert [spec.name for spec in graph.signature.inputs] == ["input_ids", "attention_mask"]
    assert all((spec.shape, spec.dtype) == (("batch", "tokens"), "int64") for spec in graph.signature.inputs)
    assert [(spec.name, spec.shape) for spec in graph.signature.outputs] == [("logits", ("batch", 3))]
    runner = backends.load(graph.to_bytes(), Execution(engine))
    for batch, length in CALLS:
        inputs = encoders.tokens(batch, length)
        expected = transformed(shape, inputs).logits.numpy()
        np.testing.assert_allclose(runner.run(inputs)["logits"], expected, rtol=1e-4, atol=2e-5)
        for row, count in enumerate(inputs["attention_mask"].sum(1)):
            alone = {name: array[row : row + 1, :count] for name, array in inputs.items()}
            np.testing.assert_allclose(runner.run(alone)["logits"], expected[row : row + 1], rtol=1e-4, atol=2e-5)
    runner.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_graph_is_tidy(shape: str) -> None:
    """Masks and positions are made once, and a layer is its products, norms and sums: 36 nodes, GELU's five included."""
    for norms in (False, True):
        counts = Counter(node.op_type for node in exported(shape, norms=norms).proto.graph.node)
        assert sum(counts.values()) <= 36 * LAYERS + 24
        assert counts["Shape"] <= 1
        assert counts["Concat"] <= 1
        assert not {"Where", "GatherND", "GatherElements", "ConstantOfShape", "Range", "If"} & set(counts)
    fixed = export(encoder(shape), encoders.tokens(2, 6), batch_axis=None, output_names=["logits"])
    assert not {"Shape", "Concat", "CumSum", "Expand"} & {node.op_type for node in fixed.proto.graph.node} - (
        {"CumSum"} if shape == "roberta" else set()
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_heads_units_and_branches_are_found(shape: str) -> None:
    for norms in (False, True):
        found = parts(exported(shape, norms=norms)).parts
        assert [part.units for part in found if part.kind == "heads" and part.removable] == [HEADS] * LAYERS
        assert [part.units for part in found if part.kind == "neurons" and part.removable] == [UNITS] * LAYERS


@pytest.mark.parametrize("shape", SHAPES)
def test_it_trains_as_a_network(shape: str) -> None:
    """The same loss and the same gradients as the module's, dropout off."""
    module, network, inputs = encoder(shape), Network(exported(shape, norms=True)).train(), tensors(encoders.tokens(4, 9))
    targets = torch.tensor([0, 1, 2, 1])
    module.zero_grad()
    torch.nn.functional.cross_entropy(module(**inputs), targets).backward()
    torch.nn.functional.cross_entropy(network(**inputs), targets).backward()
    theirs = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    ours = {name: weight.grad for name, weight in network.weights().items()}
    # Rows of the table of sentences that a single sentence doesn't read aren't part of the graph; the one it reads stands alone.
    types = next((name for name in theirs if "token_type" in name), None)
    row = next((name for name in ours if name not in theirs), None)
    assert (types is None) == (row is None)
    for name in theirs.keys() - {types}:
        grad = ours[name] if torch.equal(network.weight(name), module.get_parameter(name)) else ours[name].T  # as the weight lies
        torch.testing.assert_close(grad, theirs[name], rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    if types is not None and row is not None:
        torch.testing.assert_close(ours[row].reshape(-1), theirs[types][0], rtol=1e-3, atol=1e-6)
    module.zero_grad()


def test_bfloat16_trains_as_a_network() -> None:
    """Attention, GELU and dense layers under autocast: as near to fp32 as the module is."""
    module, network, inputs = encoder("bert"), Network(exported("bert", norms=True)), tensors(encoders.tokens(4, 9))
    with torch.no_grad():
        exact = module(**inputs)
        with torch.autocast("cpu", torch.bfloat16):
            theirs, ours = module(**inputs).float(), network(**inputs).float()
    assert (ours - exact).norm() <= 2 * (theirs - exact).norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_are_called_alike_in_the_form_that_serves(shape: str) -> None:
    plain, training = (parts(exported(shape, norms=norms)).parts for norms in (False, True))
    assert [(part.name, part.kind, part.units) for part in plain] == [(part.name, part.kind, part.units) for part in training]
    assert {part.kind for part in plain} >= {"heads", "neurons", "hidden"}


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_are_told_apart_where_the_model_does(shape: str) -> None:
    inputs = encoders.tokens(4, 11, pairs=True)
    module = encoder(shape)
    fed = module.fed(inputs)
    assert module.takes == tuple(fed)
    assert ("token_type_ids" in fed) == (shape in ("bert", "minilm", "electra"))
    expected = transformed(shape, fed).logits.numpy()
    graph = export(module, module.fed(encoders.tokens(2, 6, pairs=True)), axes=module.axes, output_names=module.outputs)
    assert [spec.name for spec in graph.signature.inputs] == list(fed)
    np.testing.assert_allclose(run(graph, fed, next(iter(backends.installed()))), expected, rtol=1e-4, atol=2e-5)
    if "token_type_ids" in fed:
        assert not np.allclose(transformed(shape, {name: fed[name] for name in list(fed)[:2]}).logits.numpy(), expected, atol=1e-2)


@pytest.mark.parametrize("shape", ["bert", "distilbert"])
def test_question_answering_gives_starts_and_ends_side_by_side(shape: str) -> None:
    graph, inputs = exported(shape, "question-answering"), encoders.tokens(3, 9)
    assert [(spec.name, spec.shape) for spec in graph.signature.outputs] == [("logits", ("batch", "tokens", 2))]
    expected = transformed(shape, inputs, "question-answering")
    got = run(graph, inputs, next(iter(backends.installed())))
    np.testing.assert_allclose(got[..., 0], expected.start_logits.numpy(), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(got[..., 1], expected.end_logits.numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_embeddings_are_pooled_over_the_tokens_that_count(pooling: str) -> None:
    inputs = encoders.tokens(3, 9)
    module = Encoder(encoder("minilm", "embedding").model, "embedding", pooling=pooling, normalise=True)
    hidden = transformed("minilm", inputs, "embedding").last_hidden_state
    rows = [states[:count] for states, count in zip(hidden, inputs["attention_mask"].sum(1), strict=True)]
    pooled = {"mean": lambda row: row.mean(0), "cls": lambda row: row[0], "max": lambda row: row.max(0).values}[pooling]
    expected = torch.nn.functional.normalize(torch.stack([pooled(row) for row in rows]))
    with torch.no_grad():
        torch.testing.assert_close(module(**tensors(inputs)), expected, rtol=1e-4, atol=1e-5)
    assert module.outputs == ("embedding",)
    assert module.signature.outputs[0].shape == ("batch", 32)


def test_a_layout_of_sentence_transformers(tmp_path: Path) -> None:
    place = encoders.folder(tmp_path / "minilm", "minilm", "AutoModel")
    found = layout(place)
    assert (found.head, found.pooling, found.normalise) == ("embedding", "mean", True)
    taken = intake(place)
    assert (taken.kind, taken.name, taken.folder) == ("module", "minilm", place)
    with torch.no_grad():
        vectors = taken.module(**tensors(encoders.tokens(3, 9)))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    # An older layout has its weights in a folder of their own, a newer one says its pooling in a word.
    older = tmp_path / "older"
    older.mkdir()
    modules = json.loads((place / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    shutil.copytree(place, older / "0_Transformer", ignore=shutil.ignore_patterns("modules.json", "1_Pooling"))
    shutil.copytree(place / "1_Pooling", older / "1_Pooling")
    (older / "modules.json").write_text(json.dumps(modules))
    (older / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    assert layout(older).pooling == "cls"
    trained = load_folder(older)
    save_folder(trained, tmp_path / "saved", older)
    assert load_folder(tmp_path / "saved").pooling == "cls"
    dense = {"idx": 3, "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    (place / "modules.json").write_text(json.dumps([*modules[1:], dense]))
    with pytest.raises(InvalidModel, match="a module 'Dense', which isn't supported"):
        layout(place)


@pytest.mark.parametrize(
    ("config", "head", "labels"),
    [
        ({"num_labels": 3}, "classification", ()),
        ({"id2label": {0: "bad", 1: "good"}}, "classification", ("bad", "good")),
        ({"num_labels": 1}, "regression", ()),
    ],
)
def test_what_a_folder_answers(tmp_path: Path, config: dict[str, Any], head: str, labels: tuple[str, ...]) -> None:
    place = encoders.folder(tmp_path / "bert", "bert", **config)
    found = layout(place)
    assert (found.head, found.labels) == (head, labels)
    module = intake(place).module
    assert isinstance(module, Encoder)
    assert (module.head, module.signature.outputs[0].shape) == (head, ("batch", config.get("num_labels", 2)))


def test_a_head_is_made_only_to_be_trained(tmp_path: Path) -> None:
    place = encoders.folder(tmp_path / "bert", "bert", "AutoModel")
    with pytest.raises(InvalidModel, match="answers nothing yet"):
        intake(place)
    with pytest.raises(InvalidModel, match="not for classification: train it"):
        intake(place, head="classification")
    assert intake(place, head="embedding").module.pooling == "mean"
    made = [load_folder(place, head="classification", labels=("a", "b", "c"), seed=seed) for seed in (0, 0, 1)]
    weights = [net.model.classifier.weight for net in made]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert made[0].model.config.id2label == {0: "a", 1: "b", 2: "c"}
    tuned = encoders.folder(tmp_path / "tuned", "bert", num_labels=2)
    kept = load_folder(tuned, labels=("no", "yes"))
    assert torch.equal(kept.model.classifier.weight, intake(tuned).module.model.classifier.weight)
    wider = load_folder(tuned, labels=("no", "yes", "perhaps"))
    assert wider.model.classifier.weight.shape == (3, 32)
    assert torch.equal(wider.model.bert.pooler.dense.weight, kept.model.bert.pooler.dense.weight)


def test_half_precision_comes_as_fp32(tmp_path: Path) -> None:
    encoders.model("bert", num_labels=2).half().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in intake(tmp_path).module.parameters()} == {torch.float32}


def test_pickles_are_refused_with_how_to_convert_them(tmp_path: Path) -> None:
    place = encoders.folder(tmp_path / "bert", "bert")
    state = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    with pytest.raises(InvalidModel, match="has no weights"):
        intake(place)
    torch.save(state, place / "pytorch_model.bin")
    with pytest.raises(InvalidModel, match="a pickle") as caught:
        intake(place)
    line = str(caught.value).partition('python -c "')[2].rstrip('"')
    for name in ("pytorch_model.bin", "model.safetensors"):
        line = line.replace(repr(name), repr(str(place / name)))
    exec(line)
    assert intake(place).kind == "module"


def test_folders_that_are_none(tmp_path: Path) -> None:
    place = encoders.folder(tmp_path / "bert", "bert")
    whole = (place / "config.json").read_text()

    def refused(match: str) -> None:
        with pytest.raises(InvalidModel, match=match) as caught:
            intake(place)
        assert len(str(caught.value).splitlines()) == 1

    for text, match in (
        (whole[:40], "can't be read as JSON"),
        ("{}", "names no model_type"),
        (json.dumps({**json.loads(whole), "model_type": "no_such_model"}), "can't be read by transformers"),
        (json.dumps({**json.loads(whole), "hidden_size": 36, "num_attention_heads": 6}), "can't be read by transformers"),
        (json.dumps({**json.loads(whole), "problem_type": "multi_label_classification"}), "several labels at once"),
    ):
        (place / "config.json").write_text(text)
        refused(match)
    (place / "config.json").write_text(whole)
    state = load_file(place / "model.safetensors")
    save_file({name: tensor for name, tensor in state.items() if "layer.1" not in name}, place / "model.safetensors", {"format": "pt"})
    refused("has no weights for bert.encoder.layer.1")
    save_file(
        {**state, "classifier.bias": torch.full_like(state["classifier.bias"], float("nan"))}, place / "model.safetensors", {"format": "pt"}
    )
    refused("NaN")
    (place / "model.safetensors").write_bytes(b"nothing")
    refused("can't be read by transformers")
    (place / "config.json").unlink()
    refused("has no config.json")
    with pytest.raises(InvalidInput, match="brings its own"):
        intake(place, weights="w.safetensors")


def test_code_of_the_folder_does_not_run(tmp_path: Path) -> None:
    place = encoders.folder(tmp_path / "bert", "bert")
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model"}}
    (place / "config.json").write_text(json.dumps(config))
    (place / "mine.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    with pytest.raises(InvalidModel, match="can't be read by transformers"):
        intake(place)
    assert not (tmp_path / "mark").exists()


def test_names_of_the_hub_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert hub.is_name("google/electra-small-discriminator")
    for path in (
        "models/bert",
        "./models/bert",
        "bert",
        "a/b/c",
        "/models/bert",
        "../models/bert",
        "net.py:build",
        "org/",
        "elsewhere/net.onnx",
    ):
        assert not hub.is_name(path)
    place = encoders.folder(tmp_path / "cached", "bert")
    asked: list[tuple[str, dict[str, Any]]] = []

    def have(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(place)

    monkeypatch.setattr("huggingface_hub.snapshot_download", have)
    taken = intake("org/bert")
    assert (taken.name, taken.folder) == ("bert", place)
    assert not any("bin" in pattern for pattern in asked[0][1]["allow_patterns"])

    def lack(name: str, **options: Any) -> str:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", lack)
    with pytest.raises(InvalidModel, match=r"can't be had from the Hugging Face hub: no route to host; .* give its folder"):
        intake("org/bert")


def test_without_transformers_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = encoders.folder(tmp_path / "bert", "bert")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[workshop\]'"):
        intake(place)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[workshop\]'"):
        intake("org/bert")


def test_reading_a_folder_asks_no_network_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("asked the network")

    place = encoders.folder(tmp_path / "bert", "bert")
    capfd.readouterr()
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    taken = intake(place)
    save_folder(taken.module, tmp_path / "saved", place)
    assert capfd.readouterr() == ("", "")
    assert hf.utils.logging.is_progress_bar_enabled()


def test_another_encoder_goes_as_it_is(tmp_path: Path) -> None:
    """A shape that isn't prepared for: ALBERT, whose layers share their weights."""
    config = hf.AlbertConfig(
        vocab_size=encoders.WORDS, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, num_labels=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    module = intake(tmp_path).module
    inputs = encoders.tokens(3, 9)
    graph = export(module, encoders.tokens(2, 6), axes=module.axes, output_names=module.outputs)
    assert parity(module, graph, inputs).relative_l2 < 1e-4
