"""What is said of data and parameters that are wrong (native/module.c says the same)."""

from __future__ import annotations

TRUNCATED = "it is truncated"
DAMAGED = "it is damaged"
FULL = "there is no room for the result"
IMPOSSIBLE = "its parameters are impossible"
