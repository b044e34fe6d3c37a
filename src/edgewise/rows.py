"""Tables of which a batch picks some rows, embeddings above all: in training their gradients can be kept by row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

# Set on a parameter while it trains so.
_MARK = "gradient_by_row"


@contextlib.contextmanager
def gradients_by_row(net: nn.Module) -> Iterator[None]:
    """Inside, the gradient of a table whose rows are picked comes as a sparse tensor of these rows, in training mode.

    A table of 30,000 words is half of a small encoder, and a batch names some hundred of them: a gradient of zeros needn't be filled,
    measured and applied. Where a table is used otherwise too (tied weights), torch adds both, and it is dense.
    """
    inner = [module for module in net.modules() if isinstance(module, nn.Embedding) and not module.sparse and module.max_norm is None]
    marked = [parameter for parameter in net.parameters() if parameter.ndim == 2 and parameter.requires_grad]
    for module in inner:
        module.sparse = True
    for parameter in marked:
        setattr(parameter, _MARK, True)
    try:
        yield
    finally:
        for module in inner:
            module.sparse = False
        for parameter in marked:
            delattr(parameter, _MARK)


def picked(table: Tensor, rows: Tensor) -> Tensor | None:
    """table[rows], differentiable by row; None where its gradient isn't to be kept so. rows: integers from 0, of any shape."""
    return F.embedding(rows, table, sparse=True) if getattr(table, _MARK, False) else None
