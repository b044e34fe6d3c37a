from __future__ import annotations

import pytest
import torch

from edgewise.models.resnet import ResNet, resnet8, resnet14, resnet20


@pytest.mark.parametrize(("build", "parameters"), [(resnet20, 272_186), (resnet14, 174_970), (resnet8, 77_754)])
def test_size_and_shape(build: object, parameters: int) -> None:
    module = build().eval()
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert module(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    assert build(classes=7, channels=3).eval()(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_resnet20_is_that_of_the_paper() -> None:
    """Table 6: 20 weighted layers, 0.27 million parameters; 6n + 2 layers with n = 3 blocks a stage."""
    module = resnet20(channels=3)
    weighted = [
        name for name, part in module.named_modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear) and "shortcut" not in name
    ]
    assert len(weighted) == 20
    assert round(sum(p.numel() for p in module.parameters()) / 1e6, 2) == 0.27


def test_a_block_adds_its_input() -> None:
    """With the last normalisation of every block at zero, an identity block passes its (non-negative) input on."""
    module = ResNet(blocks=1, classes=3, channels=1).eval()
    block = module.stages[0]
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(block(x), x)
