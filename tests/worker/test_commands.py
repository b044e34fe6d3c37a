"""`edgewise devices` and `--device` from the shell, against a worker on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgewise.testing import graphs

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a command in an empty folder, with a configuration and a cache of its own."""
    own = {"EDGEWISE_CONFIG": str(tmp_path / "config"), "EDGEWISE_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}

    def run(*arguments: Any) -> tuple[int, str, str]:
        line = [sys.executable, "-m", "edgewise", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **own}, check=False, timeout=120)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def test_from_a_key_to_a_profile(shell: Shell, worker: Any, tmp_path: Path) -> None:
    onnx.save(graphs.mlp(batch=1)[0], tmp_path / "mlp.onnx")
    key = worker.key.path
    assert "alive" in shell("devices", "add", "pi", worker.url, "--key", key)[1]
    code, listed, _ = shell("devices")
    assert code == 0 and "this machine" in listed and "alive" in listed and "pi" in listed
    options = ("--threads", 1, "--backends", "onnxruntime", "--seconds", 0.1)
    code, out, _ = shell("measure", "mlp.onnx", "--device", "pi,local", *options, "--json")
    places = json.loads(out)
    assert code == 0 and [place["device"]["address"] for place in places] == [worker.url, "local"]
    assert all(place["measurements"][0]["latency"]["samples_ms"] for place in places)
    code, out, _ = shell("devices", "export", "pi")
    assert code == 0 and "1 figures" in out and (tmp_path / "pi.profile.json").exists()
    worker.kill()
    assert "away" in shell("devices")[1]
    assert shell("devices", "add", "recorded", "pi.profile.json")[0] == 0
    code, out, _ = shell("measure", "mlp.onnx", "--device", "recorded", *options)
    assert code == 0 and "from a profile" in out
    assert shell("devices", "remove", "pi")[0] == 0
    code, _, err = shell("measure", "mlp.onnx", "--device", "pi")
    assert code == 2 and "no device 'pi' is known, there are: local, recorded" in err


def test_what_is_wrong_is_said(shell: Shell, worker: Any, tmp_path: Path) -> None:
    for arguments, said in (
        (("devices", "nonsense"), "give add, remove, key, export, emulate"),
        (("devices", "add", "pi", worker.url), "--key FILE"),
        (("devices", "add", "pi", "ftp://x", "--key", worker.key.path), "no address of a worker"),
        (("devices", "add", "local", worker.url, "--key", worker.key.path), "can't name a device"),
        (("worker", "--listen", "here", "--key", worker.key.path), "give an address and a port"),
        (("worker", "--key", tmp_path / "none.key"), "edgewise devices key"),
    ):
        code, _, err = shell(*arguments)
        assert code == 2 and said in err, (arguments, err)


def test_a_key_is_made_once(shell: Shell, tmp_path: Path) -> None:
    code, out, _ = shell("devices", "key", "device.key")
    assert code == 0 and "Keep it secret" in out and (tmp_path / "device.key").stat().st_mode & 0o77 == 0
    assert shell("devices", "key", "device.key")[0] == 2
