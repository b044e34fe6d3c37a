"""A training's checkpoint: weights, optimizer and random state in one safetensors file; settings and history are its metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edgewise.errors import InvalidInput

CHECKPOINT = "training.safetensors"


@dataclass(frozen=True)
class History:
    """What a training has been through. One entry for each epoch that is over: mean loss and, where it is asked for, validation metric."""

    steps: int  # of the whole training, as decided when it began
    losses: tuple[float, ...] = ()
    metrics: tuple[float, ...] = ()
    stopped: str | None = None  # why it ended before its last epoch


def digest(net: torch.nn.Module) -> str:
    """SHA-256 over the names and the weights of a network: what a training begins with."""
    found = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        found.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save(
    folder: Path, modules: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], history: History
) -> None:
    """Write all that `resume` needs to `folder`: one file, replaced whole. settings: plain values; another training has others."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{part}.{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)}
    tensors["generator.cpu"] = torch.get_rng_state()
    if _on_gpu(modules):
        tensors["generator.cuda"] = torch.cuda.get_rng_state()
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    owned = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    temporary = folder / "checkpoint.tmp"
    save_file(owned, temporary, metadata={"settings": json.dumps(dict(settings)), "history": json.dumps(asdict(history))})
    temporary.replace(folder / CHECKPOINT)


def resume(
    folder: Path, modules: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> History | None:
    """Load what `save` wrote into `modules` and `optimizer`; None when `folder` holds no checkpoint.

    Raises InvalidInput when it is of other settings, or of another model.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    _check(path, json.loads(metadata["settings"]), json.loads(json.dumps(dict(settings))))
    for part, module in modules.items():
        _restore(module, _under(part, tensors))
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _under("optimizer", tensors).items():
        index, _, key = name.partition(".")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    torch.set_rng_state(tensors["generator.cpu"])
    if _on_gpu(modules):
        torch.cuda.set_rng_state(tensors["generator.cuda"])
    kept = json.loads(metadata["history"])
    return History(kept["steps"], tuple(kept["losses"]), tuple(kept["metrics"]), kept["stopped"])


def _check(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [f"{name}={before.get(name)} then, {now.get(name)} now" for name in {**now, **before} if before.get(name) != now.get(name)]
    if changed:
        raise InvalidInput(f"{path} is of another training ({', '.join(changed)}): use the same settings, or another checkpoint folder")


def _restore(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidInput(
            f"the checkpoint is of another model: {str(error).splitlines()[-1].strip()}; use another checkpoint folder"
        ) from error


def _under(part: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}


def _on_gpu(modules: Mapping[str, torch.nn.Module]) -> bool:
    return any(parameter.is_cuda for module in modules.values() for parameter in module.parameters())
