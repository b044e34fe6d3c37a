"""What tests of several rooms share."""

from __future__ import annotations

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
