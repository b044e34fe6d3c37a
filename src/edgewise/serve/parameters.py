"""The parameters of a request, the same in every protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewise.errors import InvalidInput

# Triton's priorities: 1 goes first, larger numbers later, 0 is "as the model has it". A host's are the other way round, 0 in the middle.
USUAL_PRIORITY = 100
_LATEST_US = 10**13  # some four months


def priority(parameters: Mapping[str, Any]) -> int:
    """The host's priority for the protocol's. 1 is first; 100 counts as if none were named. Raises InvalidInput."""
    given = whole(parameters, "priority")
    return USUAL_PRIORITY - min(given, 2 * USUAL_PRIORITY) if given else 0


def deadline(parameters: Mapping[str, Any], now: float) -> float | None:
    """In seconds of the clock that says `now`, from `timeout` in microseconds; None for none. Raises InvalidInput."""
    timeout = whole(parameters, "timeout")
    return now + min(timeout, _LATEST_US) / 1e6 if timeout else None


def whole(parameters: Mapping[str, Any], name: str, default: int = 0) -> int:
    """A whole number, 0 or more. Raises InvalidInput for anything else, `true` among it."""
    value = parameters.get(name, default)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"parameter {name}={str(value)[:40]!r}: give a whole number, 0 or more")
    return value


def digits(text: str) -> int:
    """A whole number that came as text of its own. Raises InvalidInput."""
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise InvalidInput(f"{text[:40]!r} is no whole number")
    return int(text)


def flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    """Raises InvalidInput for what is neither true nor false."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"parameter {name}={str(value)[:40]!r}: give true or false")
    return value


def text(parameters: Mapping[str, Any], name: str) -> str:
    """Empty where it isn't there. Raises InvalidInput for what is no text."""
    value = parameters.get(name, "")
    if not isinstance(value, str):
        raise InvalidInput(f"parameter {name}={str(value)[:40]!r}: give text")
    return value
