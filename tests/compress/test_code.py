"""The pass `code`: fewer bytes, the same model to the bit, and an account of what was left as it is."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise import package, recipe
from edgewise.compress.code import code
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.package import Form, Package
from edgewise.testing import graphs


def built() -> Package:
    random = np.random.default_rng(0)
    grid = np.rint(random.normal(0, 3, (40, 30)) * (random.random(30) < 0.4)).astype(np.float32) * np.float32(0.02) + np.float32(0)
    noise = random.integers(0, 2**31, (30, 30)).astype(np.uint32).view(np.float32)
    nodes: list[graphs.Node] = [("MatMul", ["x", "w"], ["h"]), ("MatMul", ["h", "v"], ["y"])]
    proto = graphs.build(nodes, {"x": ("batch", 40)}, {"y": ("batch", 30)}, {"w": grid, "v": noise})
    graph = Graph.from_proto(proto)
    return package.build(graph, created="2026-01-01T00:00:00Z", version=4, labels=("a", "b"), forms={"again": Form(graph, "engine", "x")})


def test_smaller_and_the_same_to_the_bit() -> None:
    before = built()
    done = code(before)
    assert done.model.size_bytes < before.size_bytes
    for name in ("main", "again"):
        assert done.model.graph(name).to_bytes() == before.graph(name).to_bytes()
        assert done.model.manifest.entry(name).tensors == done.model.manifest.entry("main").tensors
    assert (done.model.manifest.version, done.model.labels) == (4, ("a", "b"))
    assert "w" in done.touched and set(done.touched) | set(done.skipped) == {"w", "v"}
    assert "lossless" in done.notes[0]


def test_the_order_of_codings_does_not_matter() -> None:
    before = built()
    direct = package.build(before.graph(), created="", coders="all").members["weights"]
    assert code(code(before, coders="none").model).model.members["weights"] == direct
    plain = code(before, coders="none")
    assert plain.touched == () and set(plain.skipped.values()) == {'coders="none"'}
    assert {row.coding for row in plain.model.manifest.entry("main").tensors} == {"raw"}
    with pytest.raises(InvalidInput, match="give 'fast'"):
        code(before, coders="zip")  # type: ignore[arg-type]


def test_as_the_last_step_of_a_recipe() -> None:
    before = built()
    assert recipe.level(code) == "package"
    done = recipe.apply(recipe.parse("code(coders='all')"), before.graph(), pack=lambda graph: before)
    assert done.model.size_bytes == code(before).model.size_bytes
    with pytest.raises(InvalidInput, match="stands after a step on the package"):
        recipe.parse("code() > quantize()")
