"""Weights from a .safetensors file into a torch module: all of them, exactly, or an error that lists what differs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgewise import registry
from edgewise.errors import InvalidModel

try:
    import torch
    from safetensors import SafetensorError, safe_open
except ImportError as error:
    raise registry.missing(error) from error

_SHOWN = 5


def load_weights(module: torch.nn.Module, path: str | os.PathLike[str], what: str) -> None:
    """Load the file's tensors into `module`, in place; nothing is loaded unless names and shapes are those of its state, all of them.

    A tied weight may stand in the file under one of its names. Raises InvalidModel; `what` names the module in it.
    """
    file = Path(path)
    state = _read(file)
    own = module.state_dict()
    tied = {id_: [name for name, tensor in own.items() if _storage(tensor) == id_] for id_ in {_storage(tensor) for tensor in own.values()}}
    missing = [name for name, tensor in own.items() if not any(other in state for other in tied[_storage(tensor)])]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {list(state[name].shape)} in the file, {list(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    # num_batches_tracked only counts training steps; converters often leave it out.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    problems = []
    if shapes:
        problems.append(f"other shapes: {_listed(shapes)}")
    if missing:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected:
        problems.append(f"unexpected: {_listed(unexpected)}")
    if problems:
        raise InvalidModel(f"{file.name} does not fit {what}; " + "; ".join(problems) + _hint(missing, unexpected, shapes))
    module.load_state_dict(state, strict=False)


def _read(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise InvalidModel(f"{file} does not exist; give the path of a .safetensors file")
    if file.suffix.lower() != ".safetensors":
        raise InvalidModel(
            f"{file.name} is not a .safetensors file; pickled checkpoints can run code and are not read: "
            "convert it once with safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InvalidModel(f"{file} can't be read as safetensors ({error}); it may be truncated: copy or save it again") from error


def _storage(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _hint(missing: Sequence[str], unexpected: Sequence[str], shapes: Sequence[str]) -> str:
    for prefix in ("module.", "model.", "_orig_mod."):
        if (
            unexpected
            and all(name.startswith(prefix) for name in unexpected)
            and {name.removeprefix(prefix) for name in unexpected} & {*missing}
        ):
            return f"; the file's names carry the prefix {prefix!r}: save the inner module's state_dict"
    if shapes and not missing and not unexpected:
        return "; build the model with the sizes it was trained with (its number of classes and channels)"
    return "; save the state_dict of this very model"
