"""Fakes and conformance classes for tests: edgewise's own, and those of whoever writes a backend. Needs pytest; nothing else imports it."""

from edgewise.testing.conformance import BackendConformance
from edgewise.testing.fakes import FakeClock, FakeRunner

__all__ = ["BackendConformance", "FakeClock", "FakeRunner"]
