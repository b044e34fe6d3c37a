"""`edgewise train` from the shell: what it says, what it writes, and that a training that is over isn't done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.cli import given
from edgewise.models import hub
from edgewise.testing import encoders

Edgewise = Callable[..., tuple[int, str, str]]
QUICK = ("--epochs", 2, "--batch-size", 16, "--learning-rate", 0.05, "--precision", "fp32")

TASK = """
import test_tuning

def words(*, tokenizer=None, labels=()):
    assert str(tokenizer).endswith("base")  # the model's own
    return test_tuning.Words()
"""


def test_a_model_is_trained_and_the_next_step_named(edgewise: Edgewise, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = edgewise("train", model, "--data", data, "--validation=0.2", *QUICK, "-o", out)
    assert code == 0
    record = json.loads((out / "training.json").read_text())
    assert (record["asked"]["epochs"], len(record["losses"])) == (2, 2)
    words = " ".join(said.split())
    assert f"accuracy {max(record['metrics']):.4f} on validation" in words
    assert "next edgewise fit" in words and "--validation=0.2 --speedup 3" in words
    assert (out / "model.onnx").exists()
    before = (out / "model.onnx").read_bytes()
    assert edgewise("train", model, "--data", data, "--validation=0.2", *QUICK, "-o", out)[0] == 0
    assert (out / "model.onnx").read_bytes() == before
    code, _, said = edgewise("train", model, "--data", data, "--validation=0.2", *QUICK[2:], "--epochs", 3, "-o", out)
    assert code == 2
    assert "another training (epochs: 2 then, 3 now)" in said


def test_a_folder_brings_its_tokenizer(edgewise: Edgewise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = encoders.folder(tmp_path / "base", "distilbert", "AutoModel")
    (base / "tokenizer.json").write_text("{}")
    (tmp_path / "mine.py").write_text(TASK)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    monkeypatch.syspath_prepend(tmp_path)
    quick = ("--epochs", 1, "--batch-size", 16, "--learning-rate", 0.003, "--precision", "fp32")
    code, said, error = edgewise("train", base, "--task", "mine:words", *quick, "-o", tmp_path / "out")
    assert code == 0, error
    assert "--task mine:words" in " ".join(said.split())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["DistilBertForSequenceClassification"]


def test_a_name_on_the_hub_brings_tokenizer_and_labels_to_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "tokenizer.json").write_text("{}")
    (tmp_path / "snapshot" / "config.json").write_text(json.dumps({"id2label": {"0": "bad", "1": "good"}}))
    monkeypatch.setattr(hub, "download", lambda name: tmp_path / "snapshot" if name == "some/bert" else pytest.fail(name))
    assert given.model_options("some/bert") == {"tokenizer": tmp_path / "snapshot", "labels": ("bad", "good")}
    assert given.model_options("some/bert.onnx") == given.model_options("some.module:build") == {}


def test_what_is_refused(edgewise: Edgewise, model: Path, data: Path, tmp_path: Path) -> None:
    assert "is a file; give a folder" in edgewise("train", model, "--data", data, "-o", data)[2]
    assert "names no model" in edgewise("train", "nothing", "--data", data, "-o", tmp_path / "out")[2]
    assert "--data is missing" in edgewise("train", model, "-o", tmp_path / "out")[2]
    code, _, said = edgewise("train", model, "--data", data, "--decay", "steps", "-o", tmp_path / "out")
    assert code == 2
    assert "linear" in said
