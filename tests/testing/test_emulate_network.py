"""Names of what a device has in the kernel, disciplines in tc's words, and helpers that don't start. Needs no root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgewise.errors import EdgewiseError
from edgewise.testing.emulate import Link, network, teardown


def test_everything_of_a_device_carries_its_tag() -> None:
    assert {teardown.tag_of(name) for name in ("ew12x3", "ew12x3h", "ew12x3d", "ew12x3-0", "ew12x3-17")} == {"ew12x3"}
    assert {teardown.tag_of(name) for name in ("eth0", "ew12", "ew12x", "ew12x3z", "sew12x3", "ew12x3-")} == {None}
    assert len("ew4194304x9999h") <= 15  # what the kernel allows for an interface, with the largest number of a process


def test_what_dead_processes_left_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teardown, "NAMESPACES", tmp_path / "netns")
    monkeypatch.setattr(teardown, "interfaces", lambda: {"lo", "eth0", "ew4194305x0h"})
    me = os.getpid()
    for name in ("cpu/ew4194304x1", f"cpu/ew{me}x1", f"cpu/ew{me}x2", f"cpu/ew{os.getppid()}x0", "netns/ew4194306x0-3", "netns/other"):
        (tmp_path / name).mkdir(parents=True)
    found = teardown.stale([tmp_path / "cpu"], mine={f"ew{me}x1"})
    assert found == sorted(["ew4194304x1", "ew4194305x0", "ew4194306x0", f"ew{me}x2"])  # numbers above what the kernel gives out


def test_disciplines_for_a_link() -> None:
    assert network.qdiscs(Link()) == []
    assert network.qdiscs(Link(20)) == ["netem limit 200 rate 20000000bit", "tbf rate 20000000bit burst 10000 latency 100ms"]
    (netem,) = network.qdiscs(Link(20, 20, 5, 0.01))
    assert netem == "netem limit 207 rate 20000000bit delay 20.000ms 5.000ms loss 1.000000%"
    assert network.qdiscs(Link(None, 20)) == ["netem limit 50000 delay 20.000ms"]


def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(EdgewiseError, match=r"`sh -c echo no such thing >&2; exit 3` failed: no such thing"):
        network.run("sh", "-c", "echo no such thing >&2; exit 3")


def test_a_helper_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "helper.py"
    script.write_text("raise SystemExit(7)")
    with pytest.raises(EdgewiseError, match=r"helper\.py .* \(exit code 7\)"):
        network.start_script(str(script))
