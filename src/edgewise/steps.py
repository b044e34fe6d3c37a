"""One step of training: what it minimises, with which optimizer, on which device and in which precision."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from edgewise import devices
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.types import Inputs, Split

Batch = tuple[Inputs, np.ndarray | None]
# (network, {input name: tensor}, targets or None where the data has none) -> a scalar to minimise.
Objective = Callable[[torch.nn.Module, dict[str, torch.Tensor], torch.Tensor | None], torch.Tensor]

CHOICES = {"optimizer": ("sgd", "adamw"), "precision": ("fp32", "bf16")}


class Trainable(Protocol):
    """What training needs of a task."""

    def split(self, name: Literal["train"]) -> Split: ...

    def training_batches(self, *, batch_size: int, epoch: int, seed: int) -> Iterator[Batch]:
        """One epoch: (inputs, targets), each array with a leading batch axis; the same for the same epoch and seed."""
        ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A scalar to minimise."""
        ...


@dataclass(frozen=True)
class Descent:
    """What every step of one training uses; net and optimizer change inside."""

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    clip: float
    precision: str
    device: torch.device

    def step(self, inputs: Inputs, targets: np.ndarray | None) -> float:
        """Change the weights by one batch; returns its loss. Raises InvalidModel when that is no number."""
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
        truth = None if targets is None else torch.from_numpy(targets).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with repeatable(self.device):
            with narrow(self.device, self.precision):
                loss = self.objective(self.net, tensors, truth)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InvalidModel(f"the training loss became {value}: lower learning_rate, or check the inputs for NaN")
            torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimizer.step()
        return value


def make_optimizer(net: torch.nn.Module, name: str, rate: float, momentum: float, decay: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW (Loshchilov 2019) with `momentum` as its first beta. Vectors don't decay."""
    trained = [p for p in net.parameters() if p.requires_grad]
    if not trained:
        raise InvalidModel("the network has nothing to train: every parameter is frozen, or there is none; set requires_grad on some")
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        # Fused: one pass over the weights; on a CPU a sixth of the time, which for MiniLM, half of it a table, was a fifth of every step.
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)


def supervised(task: Trainable) -> Objective:
    """The task's own loss of the first output."""

    def objective(net: torch.nn.Module, tensors: dict[str, torch.Tensor], targets: torch.Tensor | None) -> torch.Tensor:
        return task.loss(outputs(net, tensors)[0], labelled(targets))

    return objective


def labelled(targets: torch.Tensor | None) -> torch.Tensor:
    """`targets`, where there are any. Raises InvalidData."""
    if targets is None:
        raise InvalidData("the training batches have no targets, and the task's loss needs them; label the data, or distill from a teacher")
    return targets


def outputs(net: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """All outputs of `net` in order, whether it gives a tensor, several, or a mapping; inputs go in by their order."""
    given = net(*tensors.values())
    if isinstance(given, torch.Tensor):
        return (widened(given),)
    return tuple(widened(output) for output in (given.values() if isinstance(given, Mapping) else given))


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """fp32 for what autocast made bf16: a loss is a mean of many small terms, for which 8 bits of mantissa don't do."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def place(device: str) -> torch.device:
    """The torch device of that name; "auto" is the GPU when there is one, else the CPU. Raises InvalidInput for one that isn't here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InvalidInput(f"device={device!r} is none of torch's; give 'auto', 'cpu' or 'cuda'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(f"device={device!r}: torch sees no GPU here; give 'cpu' or 'auto'")
    return found


def native_precision() -> Literal["fp32", "bf16"]:
    """bf16 where this CPU multiplies it itself, and so trains faster; fp32 elsewhere, and on a GPU."""
    return "bf16" if place("auto").type == "cpu" and devices.multiplies_bf16(devices.isa()) else "fp32"


def narrow(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Products in bf16 where that is asked for; weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def repeatable(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On a GPU: the same sums in the same order every time, and fp32 that is fp32 (by default convolutions there round to tf32)."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def draws_apart(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Whatever is drawn inside, the training's own random numbers go on as if nothing had been."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
