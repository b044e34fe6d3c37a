"""From scores to masks: which elements stay, element by element, N of M, or in blocks; compared over the model, a layer or a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.compress.prune.targets import Target
from edgewise.errors import InvalidInput

SCOPES = ("global", "layer", "row")


@dataclass(frozen=True)
class Pattern:
    """What goes together. rows × inputs: a block, of one position of the kernel. keep: of each block of one row so many elements stay;
    0 where blocks stay or go whole."""

    rows: int = 1
    inputs: int = 1
    keep: int = 0

    def __str__(self) -> str:
        return f"{self.keep}:{self.inputs}" if self.keep else f"{self.rows}x{self.inputs}" if self.rows * self.inputs > 1 else "none"

    def refuses(self, target: Target, shape: Sequence[int]) -> str:
        """Why a weight of that matrix shape (groups, rows, columns) can't have this pattern; "" where it can."""
        inputs = shape[2] // target.kernel
        if inputs % self.inputs:
            return f"its {inputs} inputs don't divide into pieces of {self.inputs} (pattern {self})"
        return f"its {shape[1]} outputs don't divide into pieces of {self.rows} (pattern {self})" if shape[1] % self.rows else ""


def parse(text: str) -> Pattern:
    """ "none", "2:4" (two of four inputs in a row stay), "4x1", "1x4" (outputs × inputs). Raises InvalidInput."""
    if text == "none":
        return Pattern()
    found = re.fullmatch(r"(\d+)([:x])(\d+)", text) if isinstance(text, str) else None
    if found is None or not int(found[1]) or not int(found[3]) or (found[2] == ":" and int(found[1]) >= int(found[3])):
        raise InvalidInput(f"pattern={text!r}; give 'none', N:M as '2:4' with N below M, or blocks of outputs × inputs as '1x4'")
    first, second = int(found[1]), int(found[3])
    return Pattern(1, second, first) if found[2] == ":" else Pattern(first, second)


def masks(
    scores: Mapping[str, Tensor], targets: Sequence[Target], ratio: float | Mapping[str, float], pattern: Pattern, scope: str
) -> dict[str, Tensor]:
    """Weight -> (groups, rows, columns) bool, True where an element stays.

    scores: of the same shapes, higher = keep. ratio: share of the elements that go; by weight where it is a mapping. A block is worth the
    sum of its elements. Of equals the first go. With N:M the ratio follows from the pattern, and `ratio` isn't looked at.
    """
    kernels = {target.name: target.kernel for target in targets}
    if pattern.keep:
        return {name: _n_of_m(one, pattern, kernels[name]) for name, one in scores.items()}
    units = {name: _folded(one, pattern, kernels[name]).sum((2, 4)) for name, one in scores.items()}
    if scope == "global" and not isinstance(ratio, Mapping):
        flat = torch.cat([one.flatten() for one in units.values()])
        parts = _highest(flat[None], ratio)[0].split([one.numel() for one in units.values()])
        kept = {name: part.reshape(one.shape) for (name, one), part in zip(units.items(), parts, strict=True)}
    else:
        kept = {}
        for name, one in units.items():
            share = ratio[name] if isinstance(ratio, Mapping) else ratio
            rows = one.flatten(0, 1).flatten(1) if scope == "row" else one.reshape(1, -1)
            kept[name] = _highest(rows, share).reshape(one.shape)
    return {name: _spread(kept[name], one, pattern, kernels[name]) for name, one in scores.items()}


def by_input(values: Tensor, kernel: int) -> Tensor:
    """(groups, rows, columns) with the columns of one position of the kernel beside each other."""
    return values.unflatten(-1, (-1, kernel)).transpose(-1, -2).flatten(-2)


def by_kernel(values: Tensor, kernel: int) -> Tensor:
    """Undoes `by_input`."""
    return values.unflatten(-1, (kernel, -1)).transpose(-1, -2).flatten(-2)


def n_of_m(scores: Tensor, pattern: Pattern) -> Tensor:
    """Of each `pattern.inputs` neighbours along the last axis the best `pattern.keep`: bool, of the shape of `scores`."""
    pieces = scores.unflatten(-1, (-1, pattern.inputs))
    best = pieces.argsort(dim=-1, descending=True, stable=True)[..., : pattern.keep]
    return torch.zeros_like(pieces, dtype=torch.bool).scatter(-1, best, True).flatten(-2)


def _n_of_m(scores: Tensor, pattern: Pattern, kernel: int) -> Tensor:
    return by_kernel(n_of_m(by_input(scores, kernel), pattern), kernel)


def _folded(scores: Tensor, pattern: Pattern, kernel: int) -> Tensor:
    """(groups, blocks of rows, rows each, blocks of inputs, inputs each, kernel)."""
    return scores.unflatten(2, (-1, pattern.inputs, kernel)).unflatten(1, (-1, pattern.rows))


def _spread(kept: Tensor, like: Tensor, pattern: Pattern, kernel: int) -> Tensor:
    """The blocks that stay, as a mask of elements."""
    return kept[:, :, None, :, None, :].expand(_folded(like, pattern, kernel).shape).reshape(like.shape).clone()


def _highest(rows: Tensor, ratio: float) -> Tensor:
    """(rows, n) bool: False for the round(ratio · n) lowest of each row."""
    gone = round(ratio * rows.shape[1])
    mask = torch.ones_like(rows, dtype=torch.bool)
    return mask.scatter(1, rows.argsort(dim=1, stable=True)[:, :gone], False)
