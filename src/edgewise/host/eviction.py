"""Which models leave memory for another. Pure functions: the server and a simulation ask the same ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

HALF_LIFE_S = 300.0


@dataclass(frozen=True)
class Resident:
    """A model in memory. uses: requests, older ones counting less (`decayed`). last_s: when it was asked last. reload_s: what a load costs.

    floor: the inflation when it was last asked (GreedyDual's L).
    """

    key: Hashable
    kept: int
    uses: float
    last_s: float
    reload_s: float
    floor: float = 0.0


Value = Callable[[Resident], float]


def gdsf(resident: Resident) -> float:
    """GreedyDual-Size-Frequency (Cherkasova 1998, HPL-98-69): L + frequency · cost / size, in uses · seconds a megabyte.

    What leaves raises L to its own value, so that what was much used once, and isn't asked any more, is overtaken in time.
    """
    return resident.floor + resident.uses * resident.reload_s / (max(resident.kept, 1) / 2**20)


def lru(resident: Resident) -> float:
    """Least recently used goes first."""
    return resident.last_s


def decayed(uses: float, seconds: float, half_life_s: float = HALF_LIFE_S) -> float:
    """A count of uses, `seconds` later: frequency outlives the stay in memory, and fades."""
    return uses * 0.5 ** (max(seconds, 0.0) / half_life_s)


def victims(residents: Sequence[Resident], wanted: int, value: Value = gdsf) -> tuple[Resident, ...]:
    """What should leave so that `wanted` bytes get free: the least valuable first, and none that the others make needless.

    All of them, where even that isn't enough.
    """
    chosen: list[Resident] = []
    free = 0
    for resident in sorted(residents, key=value):
        if free >= wanted:
            break
        chosen.append(resident)
        free += resident.kept
    for resident in sorted(chosen, key=value, reverse=True):
        if free - resident.kept >= wanted:
            chosen.remove(resident)
            free -= resident.kept
    return tuple(chosen)
