"""Small torch nets for tests: one of each family, seeded, in evaluation mode, with batch-norm statistics as training leaves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn


def mobilenet_like() -> nn.Module:
    """Inverted residuals, depthwise convolutions, ReLU6."""
    from edgewise.models.miniatures import MobileNetLike

    return _made(MobileNetLike)


def densenet_like() -> nn.Module:
    """Concatenation, batch norms before convolutions."""
    from edgewise.models.miniatures import DenseNetLike

    return _made(DenseNetLike)


def unet_like() -> nn.Module:
    """Skips, a transposed convolution, bilinear interpolation; gives a map."""
    from edgewise.models.miniatures import UNetLike

    return _made(UNetLike)


def two_inputs() -> nn.Module:
    """A picture and a vector, one gating the other, then joined."""
    from edgewise.models.miniatures import TwoInputs

    return _made(TwoInputs)


def vit_like() -> nn.Module:
    """Patches, a class token, two encoder blocks: attention in matrix products, and as torch's own function."""
    from edgewise.models.miniatures import ViTLike

    return _made(ViTLike)


def gated() -> nn.Module:
    """Gated feed-forward networks."""
    from edgewise.models.miniatures import Gated

    return _made(Gated)


def grouped() -> nn.Module:
    """Grouped convolutions, channels split and joined."""
    from edgewise.models.miniatures import Grouped

    return _made(Grouped)


def shared() -> nn.Module:
    """Weights that are used twice."""
    from edgewise.models.miniatures import Shared

    return _made(Shared)


NETS: dict[str, Callable[[], nn.Module]] = {
    net.__name__: net for net in (mobilenet_like, densenet_like, unet_like, two_inputs, vit_like, gated, grouped, shared)
}
_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {"two_inputs": {"image": (3, 16, 16), "sensors": (12,)}, "gated": {"tokens": (6, 16)}}


def example(name: str, batch: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name for the net of that name, `batch` samples of standard normal numbers, float32."""
    random = np.random.default_rng(seed)
    shapes = _SHAPES.get(name, {"image": (3, 16, 16)})
    return {given: random.standard_normal((batch, *shape), dtype=np.float32) for given, shape in shapes.items()}


def _made(build: Callable[[], nn.Module]) -> nn.Module:
    """Seeded without touching the caller's random state."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.get_buffer("running_mean"), std=0.5)
                nn.init.uniform_(part.get_buffer("running_var"), 0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.3)
            elif isinstance(part, nn.LayerNorm):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.3)
    return module.eval()
