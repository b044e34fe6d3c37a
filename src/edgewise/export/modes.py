"""Contexts around torch: evaluation mode that is put back, and an exporter that holds its tongue."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from torch import nn

_LOGGERS = ("torch.onnx", "torch.export", "torch._export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode (dropout off, batch statistics frozen); every submodule's own mode is put back after."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on standard output or error, no warnings: torch's exporter reports its progress and its deprecations there."""
    levels = [(logger, logger.level) for logger in map(logging.getLogger, _LOGGERS)]
    try:
        for logger, _ in levels:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
