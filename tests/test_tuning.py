"""Fine-tuning: what is learned, what is written, and that an interruption changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import nn

from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.export import export
from edgewise.models import intake
from edgewise.models.encoder import Encoder
from edgewise.records import DataSummary
from edgewise.search.origin import dense_of
from edgewise.testing import encoders
from edgewise.tuning import RECORD, tune
from edgewise.types import Signature

QUICK = {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "precision": "fp32"}
FAST = {**QUICK, "learning_rate": 0.1}


@dataclass(frozen=True)
class Words:
    """Rows of tokens of several lengths, and whether the token 7 is among them. A `tasks.TrainingTask`, and its own split."""

    name: str = "text-classification"
    samples: int = 160
    labelled: bool = True
    metric: str = "accuracy"
    labels: tuple[str, ...] = ("without", "with")
    part: str = "train"
    drawn: list[tuple[int, int]] = field(default_factory=list)

    @property
    def axes(self) -> dict[int, str]:
        return {1: "tokens"}

    def split(self, name: str) -> Words:
        return replace(self, part=name, samples=self.samples if name == "train" else 64)

    def __len__(self) -> int:
        return self.samples

    def _rows(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        inputs = dict(encoders.tokens(self.samples, 8, seed=["train", "validation", "calibration", "test"].index(self.part)))
        half = np.arange(self.samples) % 2 == 0
        ids = np.where(inputs["input_ids"] == 7, 8, inputs["input_ids"])
        ids[half, 0] = 7
        return {**inputs, "input_ids": ids}, half.astype(np.int64)

    @property
    def targets(self) -> np.ndarray | None:
        return self._rows()[1] if self.labelled else None

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        inputs, targets = self._rows()
        for start in range(0, self.samples, size):
            yield {name: array[start : start + size] for name, array in inputs.items()}, targets[start : start + size]

    def training_batches(self, *, batch_size: int, epoch: int, seed: int = 0) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        inputs, targets = self._rows()
        self.drawn.append((epoch, seed))
        order = np.random.default_rng((seed, epoch)).permutation(self.samples)
        for start in range(0, self.samples, batch_size):
            chosen = order[start : start + batch_size]
            yield {name: array[chosen] for name, array in inputs.items()}, targets[chosen]

    def example_inputs(self, n: int = 1) -> dict[str, np.ndarray]:
        return {name: array[:n] for name, array in self._rows()[0].items()}

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def fingerprint(self) -> str:
        return f"{self.samples} {self.labelled}"

    def summary(self) -> DataSummary:
        return DataSummary(self.name, self.metric, "words", self.fingerprint(), {}, self.labels, ())

    def with_input(self, name: str) -> Words:
        return self

    def for_model(self, signature: Signature) -> Words:
        assert signature.outputs[0].shape == ("batch", 2)
        return self


class Bag(nn.Module):
    """input_ids, attention_mask (batch, tokens) -> logits (batch, 2), by the mean of the tokens' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(encoders.WORDS, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask[:, :, None].to(self.table.weight.dtype)
        found: torch.Tensor = self.head((self.table(input_ids) * mask).sum(1) / mask.sum(1))
        return found


def bag() -> Bag:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bag()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An encoder that answers nothing yet, and something that stands for its tokenizer."""
    place = encoders.folder(tmp_path / "base", "bert", "AutoModel")
    (place / "tokenizer.json").write_text("{}")
    return place


def logits(net: nn.Module) -> torch.Tensor:
    inputs = {name: torch.from_numpy(array) for name, array in encoders.tokens(5, 9).items()}
    with torch.no_grad():
        found: torch.Tensor = net(**inputs)
    return found


def test_an_encoder_learns_and_is_a_folder_again(base: Path, tmp_path: Path) -> None:
    out, task, told = tmp_path / "out", Words(), []
    found = tune(base, task, out=out, progress=lambda what, share, left: told.append((what, share)), **QUICK)
    assert found.record.metrics[found.record.best] == max(found.record.metrics) > 0.8
    assert found.record.losses[-1] < found.record.losses[0]
    assert [epoch for epoch, _ in task.drawn] == [0, 1, 2]
    assert told[-1][1] == 1
    assert found.files == (out,)
    assert not (out / "checkpoint").exists()
    assert (out / "tokenizer.json").read_text() == "{}"
    config = json.loads((out / "config.json").read_text())
    assert (config["architectures"], config["id2label"]) == (["BertForSequenceClassification"], {"0": "without", "1": "with"})
    again = intake(out)
    assert again.folder == out
    torch.testing.assert_close(logits(again.module), logits(found.model), rtol=0, atol=0)
    theirs = hf.AutoModelForSequenceClassification.from_pretrained(out).eval()
    inputs = {name: torch.from_numpy(array) for name, array in encoders.tokens(5, 9).items()}
    torch.testing.assert_close(theirs(**inputs).logits, logits(found.model), rtol=1e-4, atol=1e-5)
    assert tune(base, task, out=out, **QUICK).record == found.record  # not trained again
    assert len(task.drawn) == 3
    with pytest.raises(InvalidInput, match="another training"):
        tune(base, task, out=out, **{**QUICK, "epochs": 4})
    _, graph = dense_of(str(out), task, None)
    assert [spec.shape for spec in graph.signature.inputs] == [("batch", "tokens")] * 2


def test_an_interruption_changes_nothing(base: Path, tmp_path: Path) -> None:
    """Dropout included: what is drawn goes on where it stopped."""
    whole = tune(base, Words(), out=tmp_path / "whole", **QUICK)

    def interrupt(what: str, share: float, left: float | None) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(base, Words(), out=tmp_path / "parts", progress=interrupt, **QUICK)
    assert not (tmp_path / "parts" / RECORD).exists()
    task = Words()
    parts = tune(base, task, out=tmp_path / "parts", **QUICK)
    assert [epoch for epoch, _ in task.drawn] == [1, 2]
    assert parts.record.metrics == whole.record.metrics
    theirs, ours = load_file(tmp_path / "whole" / "model.safetensors"), load_file(tmp_path / "parts" / "model.safetensors")
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_it_stops_where_nothing_gets_better(base: Path) -> None:
    found = tune(base, Words(), **{**QUICK, "epochs": 9, "learning_rate": 1e-9}, patience=1)
    assert len(found.record.losses) < 9
    assert found.record.stopped == "1 epochs without a better one"
    assert found.record.best == 0


def test_a_graph_and_a_callable_come_back_as_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = export(bag(), encoders.tokens(2, 6), axes={1: "tokens"}, output_names=["logits"])
    graph.save(tmp_path / "bag.onnx")
    found = tune(tmp_path / "bag.onnx", Words(), out=tmp_path / "graph", **FAST)
    assert max(found.record.metrics) > 0.8
    trained = intake(found.files[0]).graph
    assert trained is not None
    assert trained.signature == graph.signature
    again = tune(tmp_path / "bag.onnx", Words(), out=tmp_path / "graph", **FAST)
    torch.testing.assert_close(logits(again.model), logits(found.model), rtol=1e-5, atol=1e-6)

    (tmp_path / "bags.py").write_text("from tests_bag import bag\n")
    monkeypatch.setitem(__import__("sys").modules, "tests_bag", __import__("types").SimpleNamespace(bag=bag))
    name = f"{tmp_path / 'bags.py'}:bag"

    found = tune(name, Words(), out=tmp_path / "module", **FAST)
    assert found.files == (tmp_path / "module" / "model.safetensors",)
    built = intake(name, weights=found.files[0]).module
    torch.testing.assert_close(logits(built), logits(found.model), rtol=0, atol=0)
    again = tune(name, Words(), out=tmp_path / "module", **FAST)
    torch.testing.assert_close(logits(again.model), logits(found.model), rtol=0, atol=0)


def test_bf16_learns_too(base: Path) -> None:
    found = tune(base, Words(), **{**QUICK, "precision": "bf16"})
    assert max(found.record.metrics) > 0.8
    assert all(parameter.dtype == torch.float32 for parameter in found.model.parameters())


def test_the_average_of_the_weights_is_what_is_kept(base: Path) -> None:
    plain, averaged = (tune(base, Words(), **{**QUICK, "epochs": 1, "average": average}) for average in (0.0, 0.9))
    assert plain.record.losses == averaged.record.losses  # the way is the same
    assert not torch.equal(logits(plain.model), logits(averaged.model))
    assert averaged.record.asked["average"] == 0.9


def test_what_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the model's own folder"):
        tune(base, Words(), out=base)
    (tmp_path / "file").write_text("")
    task = Words()
    with pytest.raises(InvalidInput, match="file: can't write there"):
        tune(base, task, out=tmp_path / "file", **QUICK)
    assert not task.drawn  # told before it trained
    with pytest.raises(InvalidInput, match="patience=0"):
        tune(base, Words(), patience=0)
    with pytest.raises(InvalidData, match="has no labels"):
        tune(base, Words(labelled=False))
    for model in (base, bag()):
        with pytest.raises(InvalidInput, match=r"other\.safetensors' was given with .*, which brings its own"):
            tune(model, Words(), weights="other.safetensors")
    program = torch.export.export(bag().eval(), tuple(torch.from_numpy(a) for a in encoders.tokens(2, 6).values()))
    torch.export.save(program, tmp_path / "bag.pt2")
    with pytest.raises(InvalidInput, match="exported program"):
        tune(tmp_path / "bag.pt2", Words())
    with pytest.raises(InvalidModel, match="answers nothing yet"):
        dense_of(str(base), Words(), None)
    assert isinstance(dense_of(str(base), Words(name="sentence-embedding"), None)[0].module, Encoder)
