"""A pass that stops on its way, against whole passes of the same network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.models.network import Network
from edgewise.models.running import Run
from edgewise.testing.graphs import Node, build

NODES: list[Node] = [
    ("Gemm", ["x", "w1"], ["h"], {}),
    ("Relu", ["h"], ["a"], {}),
    ("Gemm", ["a", "w2"], ["b"], {}),
    ("Add", ["b", "x"], ["s"], {}),
    ("Gemm", ["s", "w3"], ["y"], {}),
]


def network() -> tuple[Network, dict[str, torch.Tensor]]:
    random = np.random.default_rng(0)
    weights = {"w1": (4, 6), "w2": (6, 4), "w3": (4, 3)}
    proto = build(
        NODES,
        {"x": ("batch", 4)},
        {"y": ("batch", 3)},
        {name: random.normal(size=shape).astype(np.float32) for name, shape in weights.items()},
    )
    return Network(Graph.from_proto(proto)), {"x": torch.from_numpy(random.normal(size=(5, 4)).astype(np.float32))}


def node(net: Network, output: str) -> str:
    return next(str(each.name) for each in net.structure.proto.graph.node if output in each.output)


def test_it_stops_before_and_behind_a_node_and_gives_what_a_whole_pass_gives() -> None:
    net, inputs = network()
    whole = net.run(inputs, taps=("a", "b", "s"))
    run = Run(net, inputs)
    run.until(node(net, "b"))
    torch.testing.assert_close(run.value("a"), whole["a"])
    with pytest.raises(InvalidInput, match="holds no tensor 'b'"):
        run.value("b")
    run.through(node(net, "b"))
    torch.testing.assert_close(run.value("b"), whole["b"])
    with pytest.raises(InvalidInput, match="holds no tensor 'a'"):
        run.value("a")  # nobody reads it any more
    with pytest.raises(InvalidInput, match="has passed node"):
        run.until(node(net, "a"))
    torch.testing.assert_close(run.finish()["y"], whole["y"])


def test_what_is_held_stays_till_it_is_released_and_goes_when_nobody_needs_it() -> None:
    net, inputs = network()
    whole = net.run(inputs, taps=("a", "b", "s"))
    run = Run(net, inputs, hold=("a", "b"))
    torch.testing.assert_close(run.reach("s"), whole["s"])
    torch.testing.assert_close(run.reach("a"), whole["a"])
    run.release("a")
    assert run.known("a") is None
    torch.testing.assert_close(run.value("b"), whole["b"])
    early = Run(net, inputs, hold=("a",))
    torch.testing.assert_close(early.reach("a"), whole["a"])
    early.release("a")  # the next node reads it
    torch.testing.assert_close(early.finish()["y"], whole["s"] @ net.weight("w3"))


def test_a_fork_sees_other_weights_and_leaves_the_run_where_it_is() -> None:
    net, inputs = network()
    other, changed = network()[0], torch.full((6, 4), 0.5)
    with torch.no_grad():
        other.weight("w2").copy_(changed)
    run = Run(net, inputs)
    run.until(node(net, "b"))
    torch.testing.assert_close(run.fork({"w2": changed}).finish()["y"], other.run(inputs)["y"])
    torch.testing.assert_close(run.finish()["y"], net.run(inputs)["y"])


def test_weights_changed_in_place_while_it_waits_count_from_there_on() -> None:
    net, inputs = network()
    run = Run(net, inputs)
    run.until(node(net, "b"))
    with torch.no_grad():
        net.weight("w1").zero_()
        net.weight("w2").mul_(2)
    fresh, _ = network()
    with torch.no_grad():
        fresh.weight("w2").mul_(2)
    torch.testing.assert_close(run.finish()["y"], fresh.run(inputs)["y"])


def test_unknown_names() -> None:
    net, inputs = network()
    with pytest.raises(InvalidInput, match="no node 'nowhere'"):
        Run(net, inputs).until("nowhere")
    with pytest.raises(InvalidInput, match="holds no tensor 'nothing'"):
        Run(net, inputs).value("nothing")
    with pytest.raises(InvalidInput, match="the network takes x"):
        Run(net, {})
