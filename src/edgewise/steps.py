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
from edgewise.rows import gradients_by_row
from edgewise.types import Inputs, Split

Batch = tuple[Inputs, np.ndarray | None]
# (network, {input name: tensor}, targets or None where the data has none) -> a scalar to minimise.
Objective = Callable[[torch.nn.Module, dict[str, torch.Tensor], torch.Tensor | None], torch.Tensor]

CHOICES = {"optimizer": ("sgd", "adamw"), "precision": ("fp32", "bf16"), "decay": ("cosine", "linear")}


class Trainable(Protocol):
    """What training needs of a task."""

    def split(self, name: Literal["train"]) -> Split: ...

    def training_batches(self, *, batch_size: int, epoch: int, seed: int) -> Iterator[Batch]:
        """One epoch: (inputs, targets), each array with a leading batch axis; the same for the same epoch and seed."""
        ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A scalar to minimise."""
        ...


def training_rows(task: Trainable) -> int:
    """What an epoch goes over: samples, or the rows that they come to, where the task says how many."""
    samples = len(task.split("train"))
    found: int = getattr(task, "training_rows", samples) if samples else 0
    return found


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
        by_row = gradients_by_row(self.net) if isinstance(self.optimizer, RowwiseAdamW) else contextlib.nullcontext()
        with repeatable(self.device), by_row:
            with narrow(self.device, self.precision):
                loss = self.objective(self.net, tensors, truth)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InvalidModel(f"the training loss became {value}: lower learning_rate, or check the inputs for NaN")
            torch.autograd.backward(loss)
        clip(self.net, self.clip)
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
        # One pass over memory instead of ten: where a table of words is half of the model, a third of a step.
        return RowwiseAdamW(groups, lr=rate, betas=(momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW that leaves the rows of a table alone which no sample of the batch named: their moments don't fade, their weights don't decay.

    torch.optim.SparseAdam's rule, with decay; it goes by whether a gradient is sparse (see `edgewise.rows`).
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._step_rows(table, table.grad.coalesce(), group)
                    table.grad = None
        return super().step(closure)

    def _step_rows(self, table: torch.Tensor, gradient: torch.Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        (rows,), slope, (first, second) = gradient.indices(), gradient.values(), group["betas"]
        mean = state["exp_avg"].index_select(0, rows).lerp_(slope, 1 - first)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(second).addcmul_(slope, slope, value=1 - second)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        count = float(state["step"])
        root = square.div_(1 - second**count).sqrt_().add_(group["eps"])
        weights = table.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"])
        table.index_copy_(0, rows, weights.addcdiv_(mean, root, value=-group["lr"] / (1 - first**count)))


@torch.no_grad()
def clip(net: torch.nn.Module, most: float) -> None:
    """Scale all gradients down so that together they are no longer than `most`, those by row included."""
    lengths = []
    for parameter in net.parameters():
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            lengths.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    if lengths:
        norm = torch.nn.utils.get_total_norm(lengths)
        factor = torch.clamp(most / (norm + 1e-6), max=1.0)
        for gradient in lengths:
            gradient.mul_(factor)


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
