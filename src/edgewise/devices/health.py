"""What disturbed a measurement between two looks at the machine: steal, others on its cores, throttling, a clock that fell, heat.

**Others on our cores.** The time that our threads were ready to run and weren't let (run delay, /proc/PID/task/*/schedstat, nanoseconds) is
what others took from us, however short their visits. The busy time of /proc/stat comes in ticks of 10 ms, too coarse for blocks of 15 to
50 ms; /proc/pressure/cpu is the whole machine's, where a compiler on other cores looks like one on ours. An engine's threads wait for each
other too, in production as well; that is no disturbance, so waiting counts only as far as the cores did something else than our
processes' work. (Linux since 6.12 also counts some of a thread's sleep as waiting: 5 % here on a core that nobody else used.) On several
cores, where threads idle at barriers, ticks have to show that, by more of them than rounding explains.

**A cgroup's quota** is a limit of the device, not a disturbance: production has it too, so `nr_throttled` isn't asked. Threads that it
stops are ready to run and aren't let, however: with a quota waiting says nothing, and ticks alone decide.

**Beside.** Who works on another hyper-thread of our core makes us wait for nothing and slows us all the same.

**Steal** goes by the worst core: a call ends with its slowest thread. In a short block one tick is enough: the more of a block is stolen,
the likelier a tick ends in it.

**The clock** is held against the run's fastest. It is read straight after a block, before a governor slows the idle core.

**Heat** is the temperature from which on the kernel slows the processor, or being just below it and rising.

Only what the machine did is looked at, never what was measured: what is dropped for it can't favour a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from edgewise.devices import cpu
from edgewise.devices.look import TICKS_PER_S, Look, Sources, look, sources

STEAL = 0.05  # of a core's time
OTHERS = 0.05  # of the time that our cores had for us
BESIDE = 0.25  # of a hyper-thread's time
CLOCK_FELL = 0.1
NEAR_C = 2.0  # below where the processor is slowed

FIRMWARE_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")  # bits 0 to 3; 16 to 19: has been so


@dataclass(frozen=True)
class Disturbance:
    """kind: "steal", "others", "beside", "throttled", "clock" or "heat". amount: by which two of a kind compare. said: for people."""

    kind: str
    amount: float
    said: str


class Health:
    """Asked again and again, says what disturbed `cores` since it was last asked; None where the system tells nothing.

    pids: gives the measured processes.
    """

    def __init__(
        self,
        cores: Sequence[int],
        pids: Callable[[], Sequence[int]] = tuple,
        root: Path = cpu.ROOT,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._where, self._pids, self._clock = sources(cores, root), pids, clock
        self._before: Look | None = None
        self._best_mhz = 0.0

    def __call__(self) -> tuple[Disturbance, ...] | None:
        before, now = self._before, look(self._where, self._pids(), self._clock)
        self._before, self._best_mhz = now, max(self._best_mhz, now.clock_mhz or 0.0)
        if not now.tells:
            return None
        return judge(before, now, self._where, self._best_mhz) if before else ()


def judge(before: Look, after: Look, where: Sources, best_mhz: float | None = None) -> tuple[Disturbance, ...]:
    """What disturbed our processes between two looks; empty: nothing did. best_mhz: the fastest clock of the run."""
    if after.at_s <= before.at_s:
        return ()
    found = (
        _stolen(before, after, where),
        _taken(before, after, where),
        _beside(before, after, where),
        _throttled(before, after),
        _slowed(after, best_mhz),
        _heat(before, after, where.trip_c),
    )
    return tuple(one for one in found if one is not None)


def _stolen(before: Look, after: Look, where: Sources) -> Disturbance | None:
    ticks = _passed(before.steal, after.steal, where.cores)
    share = max(ticks or (), default=0) / TICKS_PER_S / (after.at_s - before.at_s)
    return Disturbance("steal", share, f"steal {_percent(share)}") if share >= STEAL else None


def _taken(before: Look, after: Look, where: Sources) -> Disturbance | None:
    """By others, of our cores."""
    if before.pids != after.pids or before.used_s is None or after.used_s is None:
        return None
    wall, n = after.at_s - before.at_s, len(where.cores)
    unused = max(0.0, n * wall - (after.used_s - before.used_s))
    waited = None if before.waited_s is None or after.waited_s is None else max(0.0, after.waited_s - before.waited_s)
    if n == 1 and waited is not None:
        share = min(waited, unused) / wall
    else:
        idle, steal = _passed(before.idle, after.idle, where.cores), _passed(before.steal, after.steal, where.cores)
        if idle is None or steal is None or (waited is not None and waited < OTHERS * wall):
            return None
        ticks = unused * TICKS_PER_S - sum(idle) - sum(steal)
        rounding = len(after.pids) + n  # each process's and each core's time may be off by a tick
        share = ticks / TICKS_PER_S / (n * wall) if ticks >= rounding else 0.0
    said = f"other processes took {_percent(share)} of {_named(where.cores)}"
    return Disturbance("others", share, said) if share >= OTHERS else None


def _beside(before: Look, after: Look, where: Sources) -> Disturbance | None:
    idle = _passed(before.idle, after.idle, where.beside)
    if not idle:
        return None
    least, core = min(zip(idle, where.beside, strict=True))
    ticks = (after.at_s - before.at_s) * TICKS_PER_S
    share = 1 - least / ticks
    said = f"core {core}, which shares its units with {_named(where.cores)}, was busy for {_percent(share)} of the time"
    return Disturbance("beside", share, said) if share >= BESIDE and ticks - least >= 3 else None  # under 3 it may be rounding


def _throttled(before: Look, after: Look) -> Disturbance | None:
    events = 0 if before.throttled is None or after.throttled is None else after.throttled - before.throttled
    if events > 0:
        return Disturbance("throttled", events, "throttled: the processor was too hot")
    if after.firmware is None:
        return None
    begun = after.firmware & ~(after.firmware if before.firmware is None else before.firmware)
    bits = after.firmware | begun >> 16
    names = [name for bit, name in enumerate(FIRMWARE_BITS) if bits >> bit & 1]
    return Disturbance("throttled", len(names), f"throttled by the firmware: {', '.join(names)}") if names else None


def _slowed(after: Look, best_mhz: float | None) -> Disturbance | None:
    if not best_mhz or after.clock_mhz is None or after.clock_mhz >= (1 - CLOCK_FELL) * best_mhz:
        return None
    fell = f"clock fell from {best_mhz / 1000:.2g} to {after.clock_mhz / 1000:.2g} GHz"
    return Disturbance("clock", 1 - after.clock_mhz / best_mhz, fell)


def _heat(before: Look, after: Look, trip_c: float | None) -> Disturbance | None:
    now = after.temperature_c
    if now is None or trip_c is None:
        return None
    rising = before.temperature_c is not None and now > before.temperature_c
    if now < trip_c and not (rising and now >= trip_c - NEAR_C):
        return None
    return Disturbance("heat", now, f"{now:.0f} °C, and the processor is slowed from {trip_c:.0f} °C on")


def _passed(before: Mapping[int, int], after: Mapping[int, int], cores: Iterable[int]) -> list[int] | None:
    """Ticks between two looks, by core; None where the system doesn't tell."""
    try:
        return [max(0, after[core] - before[core]) for core in cores]
    except KeyError:
        return None


def _percent(share: float) -> str:
    return f"{100 * min(share, 1.0):.0f} %"


def _named(cores: Sequence[int]) -> str:
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
