"""The teacher as a function of a batch: asked, or remembered."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from edgewise.compress.distill.answers import Answers, Kept, Layout, sample_key
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.models.network import Network
from edgewise.steps import outputs, widened
from edgewise.types import Inputs

Answering = Callable[[Inputs], Mapping[str, np.ndarray]]
# {input name: tensor} -> outputs in order, and inner tensors by name.
Ask = Callable[[Mapping[str, Tensor]], tuple[tuple[Tensor, ...], Mapping[str, Tensor]]]

REMEMBERED = 256 << 20  # bytes of a teacher's answers


@runtime_checkable
class Tapped(Protocol):
    """A teacher that runs on an engine and can be looked into. It answers as any function of inputs does."""

    def graph(self) -> Graph:
        """Its structure and weights; names are as the student's where the student was made from it."""
        ...

    def tapped(self, names: Sequence[str]) -> Answering:
        """What gives the outputs, and these inner tensors of `graph` behind them."""
        ...

    def __call__(self, inputs: Inputs) -> Mapping[str, np.ndarray]: ...


# A network, or what runs one: inputs by name -> outputs by name, in the student's order (an engine's `Runner.run` is several times faster).
Teacher = nn.Module | Tapped | Answering


def graph_of(teacher: Teacher) -> Graph | None:
    """What is known of the teacher's inside."""
    if isinstance(teacher, Network):
        return teacher.structure
    return teacher.graph() if isinstance(teacher, Tapped) and not isinstance(teacher, nn.Module) else None


def fingerprint(teacher: Teacher) -> str | None:
    """SHA-256 of the teacher's structure and weights, in hexadecimal; None where it is just a function."""
    if isinstance(teacher, Network):
        return teacher.to_graph().sha256
    if isinstance(teacher, nn.Module):
        digest = hashlib.sha256(repr(teacher).encode())
        for name, value in teacher.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data if value.ndim else repr(value.item()).encode())
        return digest.hexdigest()
    graph = graph_of(teacher)
    return None if graph is None else graph.sha256


def asking(teacher: Teacher, names: Sequence[str], device: torch.device) -> Ask:
    """The teacher as a function of a batch's tensors; `names` of inner tensors, which a callable gives among its outputs."""
    if isinstance(teacher, nn.Module):
        net = copy.deepcopy(teacher).eval().to(device)

        def ask(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
            with torch.no_grad():
                return answered(net, tensors, names)

    else:
        run: Answering = teacher.tapped(names) if names and isinstance(teacher, Tapped) else teacher

        def ask(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
            arrays = run({name: tensor.cpu().numpy() for name, tensor in tensors.items()})
            given = {name: torch.tensor(np.asarray(array), device=device) for name, array in arrays.items()}
            missing = [name for name in names if name not in given]
            if missing:
                raise InvalidInput(f"the teacher gives {', '.join(given)}, and not {', '.join(missing)}; add it to its outputs")
            return tuple(tensor for name, tensor in given.items() if name not in names), {name: given[name] for name in names}

    return ask


def answered(net: nn.Module, tensors: Mapping[str, Tensor], names: Sequence[str]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
    """All outputs of `net` in order, and the inner tensors of those names."""
    if not isinstance(net, Network):
        return outputs(net, tensors), {}
    found = net.run(tensors, names)
    order = [spec.name for spec in net.structure.signature.outputs]
    return tuple(widened(found[name]) for name in order), {name: widened(found[name]) for name in names}


def remembering(ask: Ask, most_bytes: int = REMEMBERED) -> Ask:
    """`ask` that answers a batch that it has seen from memory, up to so many bytes of answers. On a GPU it asks each time."""
    known: dict[bytes, tuple[tuple[Tensor, ...], Mapping[str, Tensor]]] = {}
    held = 0

    def answer(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
        nonlocal held
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):
            return ask(tensors)
        digest = hashlib.sha256()
        for tensor in tensors.values():
            digest.update(tensor.contiguous().numpy().data)
        key = digest.digest()
        if key not in known:
            found = ask(tensors)
            held += sum(tensor.nbytes for tensor in (*found[0], *found[1].values()))
            if held > most_bytes:
                return found
            known[key] = found
        return known[key]

    return answer


def recalling(
    ask: Ask, store: Answers, mask: str, *, by_token: Collection[int] = (), along: Mapping[str, int] | None = None, trim: bool = True
) -> Ask:
    """`ask` that asks of the samples alone that `store` doesn't hold: texts meet others in every epoch.

    mask: the input, (batch, tokens), that is 0 for padding. by_token: outputs whose axis 1 is the tokens. along: inner tensor -> its axis
    of tokens; inner tensors are kept, and handed out, in bf16's precision. trim: padding is neither asked nor kept; the model takes any
    number of tokens then.
    """
    axes = dict(along or {})

    def answer(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
        device = tensors[mask].device
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        tokens = arrays[mask].shape[1]
        lengths = _lengths(arrays[mask]) if trim else np.full(len(arrays[mask]), tokens)
        texts = {name for name, array in arrays.items() if array.ndim > 1 and array.shape[1] == tokens}
        keys = [
            sample_key([(array[row, :length] if name in texts else array[row]).tobytes() for name, array in arrays.items()])
            for row, length in enumerate(lengths)
        ]
        found = [store.get(key) for key in keys]
        if unknown := [row for row, kept in enumerate(found) if kept is None]:
            longest = int(lengths[unknown].max())
            asked = {name: tensor[unknown] for name, tensor in tensors.items()}
            given, inner = ask({name: tensor[:, :longest] if name in texts else tensor for name, tensor in asked.items()})
            # In the order of `along`, in which they are handed out again, whatever the order that they come in.
            names = [*(f"output {number}" for number in range(len(given))), *axes]
            places = [*(1 if number in by_token else 0 for number in range(len(given))), *axes.values()]
            whole = [*(tensor.cpu() for tensor in given), *(inner[name].bfloat16().cpu() for name in axes)]
            layout = [_laid_out(name, tensor, place) for name, tensor, place in zip(names, whole, places, strict=True)]
            for number, row in enumerate(unknown):
                length = int(lengths[row])
                parts = [
                    one[number].narrow(place - 1, 0, length) if place else one[number] for one, place in zip(whole, places, strict=True)
                ]
                found[row] = kept = Kept(length, tuple(parts))
                store.put(keys[row], kept, layout)
        together = _together([kept for kept in found if kept is not None], tokens, by_token, axes)
        count = len(together) - len(axes)
        return tuple(tensor.to(device) for tensor in together[:count]), {
            name: tensor.to(device).float() for name, tensor in zip(axes, together[count:], strict=True)
        }

    return answer


def _lengths(mask: np.ndarray) -> np.ndarray:
    """(batch,): tokens up to the last that is attended; all of a sample that attends to none."""
    attended = mask != 0
    return np.where(attended.any(1), mask.shape[1] - attended[:, ::-1].argmax(1), mask.shape[1])


def _laid_out(name: str, tensor: Tensor, place: int) -> Layout:
    shape = [-1 if axis == place and place else size for axis, size in enumerate(tensor.shape)][1:]
    return Layout(name, str(tensor.dtype).removeprefix("torch."), tuple(shape))


def _together(samples: Sequence[Kept], tokens: int, by_token: Collection[int], axes: Mapping[str, int]) -> list[Tensor]:
    """Each tensor of all samples in one, zeros for padding."""
    count = len(samples[0].tensors)
    places = [1 if number in by_token else 0 for number in range(count - len(axes))] + [*axes.values()]
    found = []
    for number, place in enumerate(places):
        parts = [sample.tensors[number] for sample in samples]
        if not place:
            found.append(torch.stack(parts))
            continue
        shape = list(parts[0].shape)
        shape[place - 1] = tokens
        batch = torch.zeros((len(parts), *shape), dtype=parts[0].dtype)
        for row, part in zip(batch, parts, strict=True):
            row.narrow(place - 1, 0, part.shape[place - 1]).copy_(part)
        found.append(batch)
    return found
