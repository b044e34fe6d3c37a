"""A step of training MiniLM: transformers' own module against the same as a `Network`, in turns.

    python benchmarks/minilm/steps.py

One thread; AdamW with clipping, as everything trains here; batches of random ids, of which some rows are half padding. The ratio is of
the medians of processor time, which other work on the machine disturbs least.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from model import folder

import edgewise as ew
from edgewise import steps
from edgewise.models.huggingface import load_folder
from edgewise.models.network import Network

SHAPES = ((32, 12), (32, 24), (32, 48), (16, 128))
RUNS = 9


def batch(rows: int, tokens: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng((rows, tokens))
    counts = np.where(np.arange(rows) % 4 == 1, tokens // 2, tokens)
    mask = (np.arange(tokens) < counts[:, None]).astype(np.int64)
    return {"input_ids": random.integers(1000, 30000, (rows, tokens)) * mask, "attention_mask": mask}


def descent(net: torch.nn.Module, precision: str) -> steps.Descent:
    def objective(trained: torch.nn.Module, tensors: dict[str, torch.Tensor], targets: torch.Tensor | None) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(steps.outputs(trained, tensors)[0], steps.labelled(targets))

    return steps.Descent(net.train(), steps.make_optimizer(net, "adamw", 2e-5, 0.9, 0.01), objective, 1.0, precision, torch.device("cpu"))


def main() -> None:
    torch.set_num_threads(1)
    module = load_folder(folder(), head="classification", labels=("negative", "positive"))
    network = Network(ew.export.export(module, batch(2, 7), axes=module.axes, output_names=module.outputs, norms=True))
    for precision in ("bf16", "fp32"):
        for rows, tokens in SHAPES:
            given, targets = batch(rows, tokens), np.arange(rows) % 2
            taken: list[list[float]] = [[], []]
            both = [descent(net, precision) for net in (module, network)]
            for run in range(RUNS + 1):
                for which in (0, 1) if run % 2 else (1, 0):
                    began = time.process_time()
                    both[which].step(given, targets)
                    taken[which] += [time.process_time() - began] if run else []
            first, second = map(statistics.median, taken)
            told = f"module {rows * tokens / first:,.0f} tokens/s, network {rows * tokens / second:,.0f} tokens/s: {first / second:.2f}x"
            print(f"{precision} {rows}×{tokens}: {told}", flush=True)


if __name__ == "__main__":
    main()
