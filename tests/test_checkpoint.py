import pytest
import torch

from edgewise.checkpoint import History, resume, save
from edgewise.errors import InvalidInput

HISTORY = History(steps=7, losses=(0.1 + 0.2, 1 / 3), metrics=(0.5,), stopped="no use")


def trained(optimizer):
    """A net with a tied weight and an optimizer after two steps."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    net[2].weight = net[0].weight
    updates = optimizer(net.parameters())
    for _ in range(2):
        updates.zero_grad()
        net(torch.rand(4, 3)).square().sum().backward()
        updates.step()
    return net, updates


@pytest.mark.parametrize(
    "optimizer", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1), lambda p: torch.optim.AdamW(p)]
)
def test_round_trip(tmp_path, optimizer):
    net, updates = trained(optimizer)
    save(tmp_path / "new", {"net": net}, updates, {"rate": 0.1, "names": ("a", "b")}, HISTORY)
    drawn = torch.rand(3)
    other = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    other[2].weight = other[0].weight
    theirs = optimizer(other.parameters())
    assert resume(tmp_path / "new", {"net": other}, theirs, {"rate": 0.1, "names": ("a", "b")}) == HISTORY
    torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert other[2].weight is other[0].weight
    for ours, its in zip(updates.state_dict()["state"].values(), theirs.state_dict()["state"].values(), strict=True):
        torch.testing.assert_close(its, ours, rtol=0, atol=0)
    assert torch.equal(torch.rand(3), drawn)


def test_what_does_not_fit(tmp_path):
    net, updates = trained(torch.optim.AdamW)
    assert resume(tmp_path, {"net": net}, updates, {}) is None
    save(tmp_path, {"net": net}, updates, {"rate": 0.1, "old": 1}, HISTORY)
    with pytest.raises(InvalidInput, match=r"rate=0.1 then, 0.2 now, new=None then, 2 now, old=1 then, None now"):
        resume(tmp_path, {"net": net}, updates, {"rate": 0.2, "new": 2})
    with pytest.raises(InvalidInput, match="another model"):
        resume(tmp_path, {"net": torch.nn.Linear(3, 3)}, updates, {"rate": 0.1, "old": 1})
