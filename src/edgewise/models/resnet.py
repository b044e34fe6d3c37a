"""Residual networks in the CIFAR form: ResNet-20 (He et al. 2016, section 4.2) and the small ResNet-8 of MLPerf Tiny.

Three stages of 16, 32 and 64 channels over 3x3 convolutions, batch normalisation, global average pooling, one linear layer.
Shortcuts that change shape are 1x1 projections with batch normalisation ("option B"): the paper's CIFAR nets pad with zeros
("option A"), which saves 2.8 thousand parameters and turns into slices and pads that no engine runs well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut. (batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """`blocks` blocks in each of three stages, the second and third at half the resolution.

    image: (batch, channels, h, w) float32, normalised; returns logits: (batch, classes) float32.
    """

    def __init__(self, blocks: int, classes: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages = []
        inputs = width
        for stage in range(3):
            outputs = width * 2**stage
            for block in range(blocks):
                stages.append(Block(inputs, outputs, stride=2 if stage and not block else 1))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(image)))
        x = self.stages(x).mean(dim=(2, 3))
        return self.head(x)


def resnet20(classes: int = 10, channels: int = 1) -> ResNet:
    """ResNet-20: 0.27 million parameters; 31 million multiply-accumulates on one 28x28 image."""
    return ResNet(blocks=3, classes=classes, channels=channels)


def resnet14(classes: int = 10, channels: int = 1) -> ResNet:
    """Two blocks per stage: 0.17 million parameters; 20 million multiply-accumulates on one 28x28 image."""
    return ResNet(blocks=2, classes=classes, channels=channels)


def resnet8(classes: int = 10, channels: int = 1) -> ResNet:
    """The image-classification net of MLPerf Tiny (mlcommons/tiny): one block per stage, 78 thousand parameters."""
    return ResNet(blocks=1, classes=classes, channels=channels)
