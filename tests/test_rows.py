import copy

import numpy as np
import onnx
import pytest
import torch

from edgewise.graph import Graph
from edgewise.models.network import Network
from edgewise.rows import gradients_by_row
from edgewise.steps import RowwiseAdamW, clip

WORDS, WIDTH = 12, 4


def network():
    """Words looked up, then a dense layer."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
    words (int64[n, t] ids) => (float[n, t, 3] y) { e = Gather(table, ids)  y = MatMul(e, w) }"""
    proto = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    for name, shape in (("table", (WORDS, WIDTH)), ("w", (WIDTH, 3))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name))
    return Network(Graph.from_proto(proto))


class Tied(torch.nn.Module):
    """The table reads and writes: its gradient is dense."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(WORDS, WIDTH)

    def forward(self, ids):
        return self.table(ids) @ self.table.weight.T


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(WORDS, WIDTH), torch.nn.Linear(WIDTH, 3))


def stepped(net, batches, by_row, most=0.5):
    """A copy, some steps of AdamW on; the norms of its gradients as they were clipped."""
    net = copy.deepcopy(net).train()
    kind = RowwiseAdamW if by_row else torch.optim.AdamW
    optimizer = kind(net.parameters(), lr=0.1, betas=(0.9, 0.999), weight_decay=0.1, fused=True)
    for ids in batches:
        optimizer.zero_grad()
        if by_row:
            with gradients_by_row(net):
                net(ids).square().sum().backward()
            clip(net, most)
        else:
            net(ids).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), most)
        optimizer.step()
    return net


@pytest.mark.parametrize("make", [network, module, Tied])
def test_where_a_batch_names_every_row_it_is_adamw(make):
    net = make()
    batches = [torch.randperm(WORDS).repeat(2).reshape(2, WORDS) for _ in range(5)]
    found, expected = (stepped(net, batches, by_row).state_dict() for by_row in (True, False))
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-6) for name in expected)
    assert not all(torch.equal(found[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("make", [network, module])
def test_rows_that_no_batch_names_stay(make):
    net = make()
    batches = [torch.tensor([[1, 3, 3]]), torch.tensor([[5, 1, 3]])]
    after, before = (next(p for p in each.parameters() if p.shape == (WORDS, WIDTH)) for each in (stepped(net, batches, True), net))
    moved = (after != before).any(dim=1).nonzero().flatten().tolist()
    assert moved == [1, 3, 5]


def test_negative_rows_count_from_the_end_and_each_count_of_a_row_counts():
    net = network().train()
    with gradients_by_row(net):
        net(torch.tensor([[-1, 2, 2]])).sum().backward()
    by_row = net.weight("table").grad
    assert by_row.is_sparse
    net.zero_grad()
    net(torch.tensor([[-1, 2, 2]])).sum().backward()
    assert not net.weight("table").grad.is_sparse
    assert torch.allclose(by_row.to_dense(), net.weight("table").grad)


def test_only_in_training_and_only_inside():
    net = network().eval()
    with gradients_by_row(net):
        net(torch.tensor([[1]])).sum().backward()
    assert not net.weight("table").grad.is_sparse
    plain = module()
    with gradients_by_row(plain):
        assert plain[0].sparse
    assert not plain[0].sparse


@pytest.mark.parametrize("most", [0.01, 1e9])
def test_gradients_by_row_are_clipped_as_dense_ones_are(most):
    one, other = network().train(), network().train()
    ids = torch.tensor([[0, 4, 4, 7]])
    with gradients_by_row(one):
        one(ids).square().sum().backward()
    clip(one, most)
    other(ids).square().sum().backward()
    torch.nn.utils.clip_grad_norm_(other.parameters(), most)
    for name, weight in other.weights().items():
        found = one.weight(name).grad
        assert torch.allclose(found.to_dense() if found.is_sparse else found, weight.grad, rtol=1e-4)
