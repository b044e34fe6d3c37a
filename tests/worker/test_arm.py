"""The field install, the worker, a package's inference and the C extension on aarch64: that they work, never how fast."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise import backends, measure, package
from edgewise.errors import EdgewiseError
from edgewise.graph import Graph
from edgewise.measure import elsewhere
from edgewise.testing import aarch64, graphs
from edgewise.types import Execution

ORT = Execution("onnxruntime")
REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def board(programs: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    programs(*aarch64.PROGRAMS, packages=aarch64.PACKAGES)
    if reason := aarch64.missing():
        pytest.skip(reason)
    try:
        return aarch64.board(REPOSITORY, tmp_path_factory.mktemp("board"))
    except EdgewiseError as error:
        pytest.skip(f"no board for tests: {error}")


@pytest.fixture(scope="module")
def net() -> tuple[Graph, dict[str, np.ndarray]]:
    model, inputs = graphs.mlp(batch=1)
    return Graph.from_proto(model), inputs


def on(board: Path, *line: str | Path) -> str:
    done = subprocess.run([board, *line], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_packages_inference(board: Path, net: Any, tmp_path: Path) -> None:
    graph, inputs = net
    made, given = tmp_path / "net.edgew", tmp_path / "x.npz"
    package.build(graph, created="", execution=ORT).save(made)
    np.savez(given, **inputs)
    (said,) = json.loads(on(board, "-m", "edgewise", "run", made, given, "--json"))
    expected = backends.load(graph.to_bytes(), ORT).run(inputs)["y"]
    assert np.allclose(said["outputs"]["y"]["values"], expected, atol=1e-5)


def test_the_extension_is_there_and_decodes_what_was_coded_here(board: Path, net: Any, tmp_path: Path) -> None:
    made = tmp_path / "net.edgew"
    package.build(net[0], created="").save(made)
    imports = "import sys; from edgewise import package; from edgewise.coding import core"
    said = on(board, "-c", f"{imports}; print(core.native is not None, package.open(sys.argv[1]).graph().sha256)", made)
    assert said.split() == ["True", package.open(made).graph().sha256]


def test_the_worker(board: Path, net: Any, make_worker: Callable[..., Any]) -> None:
    graph, inputs = net
    worker = make_worker(python=str(board), start_s=120.0)
    there = measure.connect(worker.link(patience_s=120.0), "board")
    assert there.arch == "aarch64" and there.backends.keys() == {"onnxruntime"}
    found = measure.profile(graph.to_bytes(), ORT, inputs, there, seconds=0.05, min_samples=10)
    assert len(found.latency.samples_ms) >= 10 and found.conditions.device == "board"
    link = elsewhere.of(there)
    assert link is not None
    (answer,) = link.answers(graph.to_bytes(), ORT, [inputs])
    assert np.allclose(answer, backends.load(graph.to_bytes(), ORT).run(inputs)["y"], atol=1e-5)
