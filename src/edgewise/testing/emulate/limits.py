"""What an emulated device is held to (its link, its share of a processor, its memory), and how a command line spells that."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from edgewise.errors import InvalidInput

# How long a packet may wait for its turn on a link with a rate; what would wait longer is dropped, as in a router's buffer. Shorter than
# the way of a packet, and one TCP connection could not fill a slow link.
QUEUE_S = 0.1
SMALLEST_SHARE = 0.01

_RATES = {"kbit": 1e-3, "mbit": 1.0, "gbit": 1e3}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True)
class Link:
    """The way between the host and a device, the same in both directions.

    mbit: megabits (10^6) a second in each direction; None: as fast as this machine. delay_ms: ONE WAY, a round trip takes twice that.
    jitter_ms: each packet's delay lies anywhere between delay_ms - jitter_ms and delay_ms + jitter_ms; packets stay in their order.
    loss: the part of the packets that is lost in each direction, 0.01 is one of a hundred. Raises InvalidInput where one of them can't be.
    """

    mbit: float | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if self.mbit is not None and not 0.01 <= self.mbit < math.inf:
            raise InvalidInput(f"mbit={self.mbit:g}: give a rate of at least 0.01 Mbit/s, or None for a link as fast as this machine")
        if not 0 <= self.delay_ms <= 60_000:
            raise InvalidInput(f"delay_ms={self.delay_ms:g}: give the one-way delay in milliseconds, from 0 to 60000")
        if not 0 <= self.jitter_ms <= self.delay_ms:
            raise InvalidInput(f"jitter_ms={self.jitter_ms:g}: give from 0 to the delay, which is {self.delay_ms:g} ms")
        if not 0 <= self.loss <= 1:
            raise InvalidInput(f"loss={self.loss:g}: give the part of packets that is lost, from 0 to 1")

    @property
    def delays(self) -> bool:
        """Whether it does more to packets than a rate does."""
        return bool(self.delay_ms or self.jitter_ms or self.loss)

    @property
    def queue_s(self) -> float:
        """Seconds that packets may wait for their turn."""
        return max(QUEUE_S, 2 * self.delay_ms / 1e3)

    def __str__(self) -> str:
        words = [f"{self.mbit:g} Mbit/s" if self.mbit is not None else "as fast as this machine"]
        if self.delay_ms:
            words.append(f"{self.delay_ms:g}{f' ± {self.jitter_ms:g}' if self.jitter_ms else ''} ms one way")
        if self.loss:
            words.append(f"{100 * self.loss:.3g} % of packets lost")
        return ", ".join(words)


def check_cpu(share: float) -> None:
    """Raises InvalidInput for a share that this machine hasn't got. share: of one core, 0.25 is a quarter of it and 2.0 two cores."""
    most = os.cpu_count() or 1
    if not SMALLEST_SHARE <= share <= most:
        raise InvalidInput(f"cpu={share:g}: give a share of one core from {SMALLEST_SHARE:g} to {most}, which is all that this machine has")


def check_memory(size: int) -> None:
    """Raises InvalidInput for less than a process needs to start."""
    if size < 2_000_000:
        raise InvalidInput(f"memory_bytes={size}: give at least 2000000, which is what a small process needs to start")


def parse_link(text: str) -> Link:
    """A link in words: "20mbit,20ms", "20mbit,20ms,5ms,1%" (rate, one-way delay, jitter, loss), "20ms,1%", or "none" for a plain one.

    Raises InvalidInput for anything else.
    """
    if text.strip().lower() in ("", "none"):
        return Link()
    rates: list[float] = []
    times: list[float] = []
    losses: list[float] = []
    for word in text.lower().split(","):
        found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(kbit|mbit|gbit|ms|%)", word.strip())
        if found is None:
            raise _link_error(text, f"{word.strip()!r} is no rate, time or loss")
        value, unit = float(found[1]), found[2]
        if unit == "ms":
            times.append(value)
        elif unit == "%":
            losses.append(value / 100)
        else:
            rates.append(value * _RATES[unit])
    if len(rates) > 1 or len(losses) > 1 or len(times) > 2:
        raise _link_error(text, "something is given twice")
    delay, jitter = [*times, 0.0, 0.0][:2]
    return Link(rates[0] if rates else None, delay, jitter, losses[0] if losses else 0.0)


def _link_error(text: str, why: str) -> InvalidInput:
    return InvalidInput(f"link {text!r}: {why}; give rate, one-way delay, jitter and loss, as in 20mbit,20ms or 20mbit,20ms,5ms,1%")


def parse_cpu(text: str) -> float:
    """A share of one core: "25%" or "0.25"; "200%" is two cores. Raises InvalidInput for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)", text.strip())
    if found is None:
        raise InvalidInput(f"cpu {text!r}: give a share of one core, as in 25% or 0.25; 200% is two cores")
    share = float(found[1]) / (100 if found[2] else 1)
    check_cpu(share)
    return share


def parse_memory(text: str) -> int:
    """Bytes: "256M" is 256,000,000 of them, "256Mi" 268,435,456; a B at the end changes nothing. Raises InvalidInput for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmg]?i?)b?", text.strip().lower())
    if found is None or found[2] not in _SIZES:
        raise InvalidInput(f"memory {text!r}: give bytes, as in 256M (256,000,000), 256Mi (268,435,456) or 1.5G")
    size = round(float(found[1]) * _SIZES[found[2]])
    check_memory(size)
    return size
