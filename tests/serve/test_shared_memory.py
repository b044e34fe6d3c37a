"""Regions of memory that clients share: only what was registered, only by whom, and no way to end the server."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.serve.classification import top
from edgewise.serve.problems import NotFound, TooLarge
from edgewise.serve.shared_memory import SharedMemory


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(bytes(100))
    memory = SharedMemory(enabled=True, folder=tmp_path)
    memory.register("me", "in", "/mine", 10, 80)
    memory.write("me", "in", 5, 10, b"abc")
    assert memory.read("me", "in", 5, 3) == b"abc" == (tmp_path / "mine").read_bytes()[15:18]
    assert [region.name for region in memory.status("me")] == ["in"] and memory.status("other") == []
    for owner, name in (("other", "in"), ("me", "out")):
        with pytest.raises(NotFound):
            memory.read(owner, name, 0, 1)
    for offset, size in ((-1, 1), (0, 81), (80, 1), (0, -1)):
        with pytest.raises(InvalidInput):
            memory.read("me", "in", offset, size)
    with pytest.raises(InvalidInput, match="for it"):
        memory.write("me", "in", 0, 2, b"abc")
    memory.unregister("me")
    memory.unregister("me", "in")
    with pytest.raises(NotFound):
        memory.status("me", "in")


def test_a_region_that_is_cut_short_is_an_error_and_not_a_signal(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(bytes(8192))
    memory = SharedMemory(enabled=True, folder=tmp_path)
    memory.register("", "in", "mine", 0, 8192)
    os.truncate(tmp_path / "mine", 10)
    with pytest.raises(InvalidInput, match="cut short"):
        memory.read("", "in", 4096, 100)
    with pytest.raises(InvalidInput, match="cut short"):
        memory.write("", "in", 4096, 100, b"x")
    memory.close()


def test_only_what_is_shared_memory_can_be_registered(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    shared = tmp_path / "shm"
    shared.mkdir()
    (shared / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(shared / "pipe")
    (shared / "small").write_bytes(b"1234")
    memory = SharedMemory(enabled=True, folder=shared)
    for key in ("link", "pipe", "../secret", "..", "", "absent", "a/b", "small"):
        with pytest.raises(InvalidInput):
            memory.register("", "r", key, 0, 5)
    with pytest.raises(InvalidInput):
        memory.register("", "", "small", 0, 1)
    with pytest.raises(NotFound):
        SharedMemory(enabled=False, folder=shared).register("", "r", "small", 0, 1)


def test_classes_as_triton_has_them() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, np.nan]], np.float32)
    assert top(scores, 2, ("a", "b")).tolist() == [[b"0.700000:1:b", b"0.200000:2"], [b"0.500000:0:a", b"0.500000:1:b"]]
    assert top(scores[0], 9, batched=False).tolist() == [b"0.700000:1", b"0.200000:2", b"0.100000:0"]
    with pytest.raises(InvalidInput):
        top(scores, 0)


def test_no_more_is_read_than_a_request_may_have(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    memory = SharedMemory(enabled=True, folder=tmp_path, most=1000)
    memory.register("me", "r", "/sparse", 0, 1 << 40)
    with pytest.raises(TooLarge, match="at most 1000"):
        memory.read("me", "r", 0, 1 << 39)
    assert memory.read("me", "r", 5, 1000) == bytes(1000)
    memory.close()
