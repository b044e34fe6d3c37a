"""The worker as a systemd unit."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from edgewise.errors import InvalidInput
from edgewise.worker.service import NAME, Unit, installed


def test_the_unit_starts_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    unit = Unit("/opt/a b/python", "0.0.0.0:7070", Path("/etc/edgewise/device.key"), Path("/var/50% full"), 500)
    said = installed(unit, root=tmp_path, run=False)
    text = (tmp_path / "etc/systemd/system" / NAME).read_text()
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart=").replace("%%", "%"))
    assert words[:4] == ["/opt/a b/python", "-m", "edgewise", "worker"]
    assert words[4:] == ["--listen", "0.0.0.0:7070", "--key", "/etc/edgewise/device.key", "--folder", "/var/50% full", "--cache-mb", "500"]
    assert "Restart=always" in text and "multi-user.target" in text and "journalctl -u" in said


def test_a_user_gets_a_unit_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    said = installed(Unit("python", "127.0.0.1:7070", Path("k"), Path("f"), 1), root=tmp_path, run=False)
    assert "default.target" in (tmp_path / "home/me/.config/systemd/user" / NAME).read_text()
    assert "--user" in said and "enable-linger" in said


def test_without_systemd_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InvalidInput, match="no systemctl"):
        installed(Unit("python", "127.0.0.1:7070", Path("k"), Path("f"), 1), root=tmp_path)
