"""Families of networks in miniature: every way of coupling channels that pruning meets, each in a net that trains in a moment."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; added to its input where the shapes allow (Sandler et al. 2018, MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.norm1(self.expand(x)))
        y = F.relu6(self.norm2(self.depthwise(y)))
        y = self.norm3(self.project(y))
        return x + y if self.residual else y


class MobileNetLike(nn.Module):
    """image (batch, 3, h, w) -> logits (batch, classes)."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            InvertedResidual(width, width, expansion=3, stride=1),
            InvertedResidual(width, 2 * width, expansion=3, stride=2),
            InvertedResidual(2 * width, 2 * width, expansion=3, stride=1),
        )
        self.head = nn.Conv2d(2 * width, 4 * width, 1, bias=False)
        self.head_norm = nn.BatchNorm2d(4 * width)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(F.relu6(self.norm(self.stem(image))))
        x = F.relu6(self.head_norm(self.head(x)))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class DenseLayer(nn.Module):
    """Adds `growth` channels to what came before (Huang et al. 2017, DenseNet-BC)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


class DenseNetLike(nn.Module):
    """image (batch, 3, h, w) -> logits (batch, classes)."""

    def __init__(self, growth: int = 6, layers: int = 3, classes: int = 10) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(*(DenseLayer(width + i * growth, growth) for i in range(layers)))
        width += layers * growth
        self.transition_norm = nn.BatchNorm2d(width)
        self.transition = nn.Conv2d(width, width // 2, 1, bias=False)
        width //= 2
        self.block2 = nn.Sequential(*(DenseLayer(width + i * growth, growth) for i in range(layers)))
        width += layers * growth
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.block1(self.stem(image))
        x = F.avg_pool2d(self.transition(torch.relu(self.transition_norm(x))), 2)
        x = torch.relu(self.norm(self.block2(x)))
        return self.head(x.mean((2, 3)))


class Convolutions(nn.Sequential):
    """Two 3x3 convolutions with batch norms."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class UNetLike(nn.Module):
    """image (batch, 3, h, w), h and w multiples of 4 -> map (batch, 2, h, w). One way up is learned, the other interpolates."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.down1 = Convolutions(3, width)
        self.down2 = Convolutions(width, 2 * width)
        self.middle = Convolutions(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.merge2 = Convolutions(4 * width, 2 * width)
        self.up1 = nn.Conv2d(2 * width, width, 1)
        self.merge1 = Convolutions(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        one = self.down1(image)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.middle(F.max_pool2d(two, 2))
        x = self.merge2(torch.cat([two, self.up2(x)], 1))
        x = F.interpolate(self.up1(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.merge1(torch.cat([one, x], 1)))


class TwoInputs(nn.Module):
    """image (batch, 3, h, w) and sensors (batch, 12) -> logits (batch, classes)."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2, padding=1)
        self.sensor1 = nn.Linear(12, width)
        self.sensor2 = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(4 * width, 2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, image: Tensor, sensors: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.norm1(self.conv1(image)))))
        h = torch.tanh(self.sensor1(sensors))
        seen = x.mean((2, 3)) * torch.sigmoid(self.gate(h))
        return self.head(torch.relu(self.mix(torch.cat([seen, self.sensor2(h)], 1))))


class Attention(nn.Module):
    """Self-attention over tokens (batch, tokens, width), in matrix products or as torch's own function."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (part(x).reshape(batch, tokens, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(2, 3) / (width // self.heads) ** 0.5, -1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


class EncoderBlock(nn.Module):
    """Attention and a feed-forward network, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, fused=fused)
        self.norm2 = nn.LayerNorm(width)
        self.feed1 = nn.Linear(width, 2 * width)
        self.feed2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed2(F.gelu(self.feed1(self.norm2(x))))


class ViTLike(nn.Module):
    """image (batch, 3, 16, 16) -> logits (batch, classes), by way of 16 patches and a class token (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 24, heads: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(EncoderBlock(width, heads, fused=False), EncoderBlock(width, heads, fused=True))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class GatedFeedForward(nn.Module):
    """x + down(silu(gate(x)) * up(x)) behind a norm (Shazeer 2020, SwiGLU)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Gated(nn.Module):
    """tokens (batch, 6, width) -> logits (batch, classes)."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.blocks = nn.Sequential(GatedFeedForward(width, 2 * width), GatedFeedForward(width, 2 * width))
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(tokens).mean(1))


class Grouped(nn.Module):
    """Grouped convolutions, channels split and joined again. image (batch, 3, h, w) -> logits (batch, classes)."""

    def __init__(self, width: int = 16, groups: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.grouped1 = nn.Conv2d(width, width, 3, 2, padding=1, groups=groups, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.left = nn.Conv2d(width // 2, width // 2, 3, padding=1, groups=groups // 2)
        self.right = nn.Conv2d(width // 2, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width + width // 2)
        self.grouped2 = nn.Conv2d(width + width // 2, width, 1, groups=2)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.grouped1(torch.relu(self.stem(image)))))
        left, right = x.chunk(2, 1)
        x = torch.relu(self.norm2(torch.cat([self.left(left), self.right(right)], 1)))
        return self.head(torch.relu(self.grouped2(x)).mean((2, 3)))


class Shared(nn.Module):
    """A convolution and a linear layer that are each used twice. image (batch, 3, h, w) -> logits (batch, classes)."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, padding=1)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.norm2 = nn.BatchNorm2d(width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        x = torch.relu(self.norm1(self.conv(x)))
        x = torch.relu(self.norm2(self.conv(x)))
        x = x.flatten(2).transpose(1, 2)  # (batch, places, channels)
        x = torch.relu(self.mix(torch.relu(self.mix(x))))
        return self.head(x.mean(1))
