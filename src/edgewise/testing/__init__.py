"""Fakes, emulated devices and conformance classes for tests: edgewise's own, and those of whoever writes a backend.

The conformance class needs pytest; names are imported when first used, so that an emulated device needs it not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewise.testing.conformance import BackendConformance
    from edgewise.testing.fakes import FakeClock, FakeRunner

__all__ = ["BackendConformance", "FakeClock", "FakeRunner"]

_NAMES = {"BackendConformance": "conformance", "FakeClock": "fakes", "FakeRunner": "fakes"}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'edgewise.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"edgewise.testing.{_NAMES[name]}"), name)
