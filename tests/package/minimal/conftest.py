"""Small nets in the forms that exporters give them, and forged files with every hash right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgewise.data.postprocess import Classify
from edgewise.data.preprocess import ImagePreprocess
from edgewise.graph import Graph
from edgewise.package import Package, build
from edgewise.package.minimal import layout
from edgewise.testing import graphs

CREATED = "2026-01-01T00:00:00Z"


def pruned_lenet(first: int = 3, second: int = 8, hidden: int = 12) -> Graph:
    """LeNet-5 (Caffe's form) after pruning, as torch's exporter writes it: most weights zero, the others few multiples of a step."""
    random = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        whole = np.rint(random.laplace(0, 1.5, shape)) * (random.random(shape) < 0.1)
        return whole.astype(np.float32) * np.float32(0.03) + np.float32(0)

    convolution = {"dilations": [1, 1], "group": 1, "kernel_shape": [5, 5], "pads": [0, 0, 0, 0], "strides": [1, 1], "auto_pad": "NOTSET"}
    pool = {**convolution, "kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 0, "storage_order": 0}
    del pool["group"]
    dense = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    nodes: list[Any] = [
        ("Conv", ["image", "0.weight", "0.bias"], ["conv2d"], convolution),
        ("MaxPool", ["conv2d"], ["pooled"], pool),
        ("Conv", ["pooled", "2.weight", "2.bias"], ["conv2d_1"], convolution),
        ("MaxPool", ["conv2d_1"], ["pooled_1"], pool),
        ("Reshape", ["pooled_1", "target"], ["view"], {"allowzero": 1}),
        ("Gemm", ["view", "5.weight", "5.bias"], ["linear"], dense),
        ("Relu", ["linear"], ["relu"]),
        ("Gemm", ["relu", "7.weight", "7.bias"], ["linear_1"], dense),
    ]
    weights = {
        "0.weight": weight(first, 1, 5, 5), "0.bias": weight(first), "2.weight": weight(second, first, 5, 5), "2.bias": weight(second),
        "5.weight": weight(hidden, 16 * second), "5.bias": weight(hidden), "7.weight": weight(10, hidden), "7.bias": weight(10),
        "target": np.array([-1, 16 * second], np.int64),
    }  # fmt: skip
    return Graph.from_proto(graphs.build(nodes, {"image": ("batch", 1, 28, 28)}, {"linear_1": ("batch", 10)}, weights))


@pytest.fixture(scope="session")
def lenet() -> Package:
    return build(
        pruned_lenet(),
        created=CREATED,
        version=3,
        preprocess=ImagePreprocess((28, 28), 1, (0.1307,), (0.3081,)),
        postprocess=Classify(tuple("0123456789")),
    )


@pytest.fixture
def forge() -> Callable[..., bytes]:
    """A file with every hash right around any structure and weights."""

    def forged(structure: bytes, weights: bytes = b"", *, coded: bool = False) -> bytes:
        return layout.join(layout.Sections(1, structure, weights, coded))

    return forged
