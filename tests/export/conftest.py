from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from torch.onnx._internal.exporter import _registration


@pytest.fixture(autouse=True, scope="session")
def one_operator_table() -> Iterator[None]:
    """torch's exporter builds its table of operators anew for every export, two thirds of the time of a small one; here once for all."""
    patch = pytest.MonkeyPatch()
    build = _registration.ONNXRegistry.from_torchlib
    cached = functools.cache(lambda opset_version: build(opset_version=opset_version))
    patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(lambda opset_version=18: cached(opset_version)))
    yield
    patch.undo()
