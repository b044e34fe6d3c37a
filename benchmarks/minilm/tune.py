"""MiniLM fine-tuned on SST-2, in stages that an update is made between.

    python benchmarks/minilm/tune.py WORK

`old` is half an epoch from the published weights; `new` is old after an epoch more with every weight trained; `alone` is old after an epoch
more of the head and the last layer. Phrases of the training file in batches of 32 of like length, AdamW at 2e-5 with weight decay 0.01,
warm-up over 6 % of the steps and linear decay (Devlin et al., arXiv:1810.04805), bf16 autocast. One core takes about 20 minutes; what is
trained is kept in WORK, and an interrupted stage goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model import Sentence, sentences, tokenized
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from edgewise import checkpoint
from edgewise.types import Inputs

BATCH, TOKENS, KEPT_EVERY = 32, 48, 250


@dataclass(frozen=True)
class Stage:
    """From the weights of `start` (None: the published ones), `epochs` of training; of weights that begin with `only`."""

    start: str | None
    epochs: float
    seed: int
    only: tuple[str, ...] = ("",)
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.06


STAGES = {
    "old": Stage(None, 0.5, 0),
    "new": Stage("old", 1.0, 1),
    "alone": Stage("old", 1.0, 2, ("head.", "encoder.encoder.layer.5.")),
}


def tuned(name: str, work: Path) -> tuple[Sentence, dict[str, Any]]:
    """The model after the stage `name`, trained unless `work` has it, and what is to be said of its training."""
    torch.set_num_threads(1)
    weights, told = work / f"{name}.safetensors", work / f"{name}.json"
    module = Sentence(classes=2)
    if not weights.exists():
        work.mkdir(parents=True, exist_ok=True)
        stage = STAGES[name]
        torch.manual_seed(stage.seed)
        torch.nn.init.normal_(module.head.weight, std=0.02)
        torch.nn.init.zeros_(module.head.bias)
        if stage.start is not None:
            tuned(stage.start, work)
            module.load_state_dict(load_file(work / f"{stage.start}.safetensors"))
        done = _trained(module, stage, work / name)
        told.write_text(json.dumps({**asdict(stage), **done, "dev_accuracy": accuracy(module)}, indent=1))
        save_file({key: value.contiguous() for key, value in module.state_dict().items()}, weights)
    module.load_state_dict(load_file(weights))
    return module.eval(), json.loads(told.read_text())


def _trained(module: Sentence, stage: Stage, folder: Path) -> dict[str, Any]:
    chosen = [value.requires_grad_(name.startswith(stage.only)) for name, value in module.named_parameters()]
    optimizer = torch.optim.AdamW(
        [value for value in chosen if value.requires_grad], lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True
    )
    batches = list(_batches(stage))
    steps = len(batches)
    settings = {**asdict(stage), "batch": BATCH, "tokens": TOKENS}
    history = checkpoint.resume(folder, {"module": module}, optimizer, settings) or checkpoint.History(steps)
    losses, began = list(history.losses), time.perf_counter()
    module.train()
    for step in range(len(losses), steps):
        texts, labels = batches[step]
        warm = step / (stage.warmup * steps)
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * min(warm, (steps - step) / (steps * (1 - stage.warmup)), 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(**_tensors(texts))
        loss = cross_entropy(logits.float(), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) % KEPT_EVERY == 0:
            checkpoint.save(folder, {"module": module}, optimizer, settings, checkpoint.History(steps, tuple(losses)))
            print(f"{folder.name}: step {len(losses)} of {steps}, loss {np.mean(losses[-KEPT_EVERY:]):.4f}", flush=True)
    return {
        "steps": steps,
        "phrases": steps * BATCH,
        "seconds": round(time.perf_counter() - began),
        "loss": round(np.mean(losses[-500:]), 4),
    }


def _batches(stage: Stage) -> Iterator[tuple[list[str], np.ndarray]]:
    """Phrases of like length together, so that little is padding; the batches in random order."""
    texts, labels = sentences("train")
    random = np.random.default_rng(stage.seed)
    order = random.permutation(len(texts))[: int(stage.epochs * len(texts))]
    order = order[np.argsort([len(texts[i].split()) for i in order], kind="stable")]
    whole = [order[at : at + BATCH] for at in range(0, len(order) - BATCH + 1, BATCH)]
    for index in random.permutation(len(whole)):
        yield [texts[i] for i in whole[index]], labels[whole[index]]


def _tensors(texts: list[str]) -> dict[str, torch.Tensor]:
    inputs: Inputs = tokenized(texts, TOKENS)
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def accuracy(module: Sentence) -> float:
    """On SST-2's 872 dev sentences, in fp32."""
    texts, labels = sentences("dev")
    module.eval()
    with torch.no_grad():
        found = [module(**_tensors(texts[at : at + BATCH])).argmax(1).numpy() for at in range(0, len(texts), BATCH)]
    return round(float(np.mean(np.concatenate(found) == labels)), 4)


if __name__ == "__main__":
    for stage_name in STAGES:
        print(stage_name, tuned(stage_name, Path(sys.argv[1]))[1], flush=True)
