"""LeNet-300-100 and LeNet-5 in Caffe's form, the nets that papers on small models begin with."""

from __future__ import annotations

from torch import nn


def lenet_300_100() -> nn.Module:
    """784 - 300 - 100 - 10 with ReLU: 266,610 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def lenet_5() -> nn.Module:
    """Two convolutions of 5×5 (20 and 50 filters) with max pooling, 800 - 500 - 10 with one ReLU: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


NETS = {"lenet-300-100": lenet_300_100, "lenet-5": lenet_5}
