"""A model in a process of its own: it answers as it would here, and its death is nobody else's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgewise import backends
from edgewise.errors import EdgewiseError, InvalidInput, InvalidModel
from edgewise.host import loading, processes
from edgewise.testing import graphs
from edgewise.types import Execution

from .conftest import save


def test_it_answers_as_here_dies_alone_and_comes_back(tmp_path: Path) -> None:
    model, inputs = graphs.mlp()
    save(model, tmp_path / "m.edgew")
    expected = backends.load(model.SerializeToString(), Execution("onnxruntime")).run(inputs)["y"]
    runner = processes.ProcessRunner(tmp_path / "m.edgew", loading.look(tmp_path / "m.edgew"))
    try:
        assert runner.run(inputs)["y"].tobytes() == expected.tobytes()
        assert processes.resident_bytes() > 10 << 20
        with pytest.raises(InvalidInput, match="shape"):
            runner.run({"x": np.zeros((1, 3), np.float32)})
        assert runner.run(inputs)["y"].tobytes() == expected.tobytes()
        pid = runner._process.pid if runner._process else 0
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EdgewiseError, match="signal 9"):
            runner.run(inputs)
        assert runner.run(inputs)["y"].tobytes() == expected.tobytes()
        pid = runner._process.pid if runner._process else 0
    finally:
        runner.close()
    assert not psutil.pid_exists(pid) and processes.resident_bytes() == 0
    with pytest.raises(InvalidInput, match="closed"):
        runner.run(inputs)


def test_a_file_that_is_bad_or_changed_is_told(tmp_path: Path) -> None:
    model, _ = graphs.mlp()
    save(model, tmp_path / "m.edgew")
    facts = loading.look(tmp_path / "m.edgew")
    save(graphs.mlp(hidden=8)[0], tmp_path / "m.edgew")
    with pytest.raises(InvalidInput, match="changed"):
        processes.ProcessRunner(tmp_path / "m.edgew", facts)
    (tmp_path / "bad.onnx").write_bytes(graphs.unknown_operator())
    with pytest.raises(InvalidModel):
        processes.ProcessRunner(tmp_path / "bad.onnx", facts)
    assert processes.resident_bytes() == 0
