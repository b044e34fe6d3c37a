"""The devices that the user has named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.devices import known
from edgewise.errors import InvalidInput


def test_devices_are_kept_by_name(tmp_path: Path) -> None:
    assert known.all_known(tmp_path) == ()
    known.add(known.Known("pi", "https://pi.local:7070", "/keys/pi"), tmp_path)
    known.add(known.Known("jetson", "https://jetson:7070", "/keys/jetson"), tmp_path)
    known.add(known.Known("pi", "https://pi.local:7071", "/keys/pi"), tmp_path)
    assert [one.name for one in known.all_known(tmp_path)] == ["jetson", "pi"]
    assert known.find("pi", tmp_path).url == "https://pi.local:7071"
    known.remove("jetson", tmp_path)
    with pytest.raises(InvalidInput, match="there are: local, pi"):
        known.find("jetson", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["devices.json"]


@pytest.mark.parametrize("name", ["", "local", "a b", "-x", "../x", "x" * 65])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="can't name a device"):
        known.add(known.Known(name, "https://pi:7070", "k"), tmp_path)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text("[{")
    with pytest.raises(InvalidInput, match="damaged"):
        known.all_known(tmp_path)


def test_the_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_CONFIG", str(tmp_path / "own"))
    assert known.folder() == tmp_path / "own"
    monkeypatch.delenv("EDGEWISE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert known.folder() in (tmp_path / "edgewise", Path.home() / "Library/Application Support/edgewise")
