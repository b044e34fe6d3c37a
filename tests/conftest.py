"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from edgewise import measure
from edgewise.records import Peaks


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short looks at the clock: for tests of the way, not of the figures."""

    def short(name: str, **limits: Any) -> None:
        whole = getattr(measure, name)
        monkeypatch.setattr(measure, name, lambda *args, **given: whole(*args, **{**given, **limits}))

    short("race", block_ms=5, min_rounds=6, rounds=6)
    short("compare", block_ms=5, min_pairs=6, max_seconds=0.5, renew_pairs=None)
    short("profile", seconds=0.05, min_samples=10)
    monkeypatch.setattr(measure, "peaks", lambda device, threads, **_: Peaks(threads, 50.0, 100.0, 10.0))


@pytest.fixture(scope="session")
def programs() -> Callable[..., None]:
    """Skips where programs aren't here and can't be had: as root on Debian, apt is asked for their packages, once."""
    asked: set[tuple[str, ...]] = set()

    def need(*names: str, packages: tuple[str, ...]) -> None:
        def absent() -> list[str]:
            return [name for name in names if shutil.which(name) is None]

        if absent() and packages not in asked and os.geteuid() == 0 and shutil.which("apt-get"):
            asked.add(packages)
            for line in (("update", "-qq"), ("install", "-qq", "-y", "--no-install-recommends", *packages)):
                env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
                subprocess.run(["apt-get", *line], env=env, capture_output=True, check=False, timeout=300, stdin=subprocess.DEVNULL)
        if absent():
            pytest.skip(f"{' and '.join(absent())} can't be found (on Debian: apt install {' '.join(packages)})")

    return need
