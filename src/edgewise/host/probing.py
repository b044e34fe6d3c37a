"""Which requests are tried though their call is foretold to end too late. Where none is, a forecast that is wrong stays so for ever."""

from __future__ import annotations

import math
from dataclasses import dataclass

PAUSE_S, LONGEST_S = 1.0, 64.0
SHARE = 0.1  # of the time, that calls may take which are foretold to be of no use
SHORTER = 1.5  # times as short as was foretold: no neighbour and no clock makes a call so, only a wrong forecast


@dataclass(frozen=True, slots=True)
class Probing:
    """Of one line. from_s: when the next may be tried; infinity while one is. pause_s: after one that took as long as was foretold."""

    from_s: float = -math.inf
    pause_s: float = PAUSE_S

    def tried(self) -> Probing:
        return Probing(math.inf, self.pause_s)

    def ended(self, now: float, took_s: float, foretold_s: float) -> Probing:
        """While they come out shorter, the next one follows at once; else after a pause, twice as long each time."""
        if took_s * SHORTER < foretold_s:
            return Probing(now)
        return Probing(now + max(self.pause_s, took_s / SHARE), min(LONGEST_S, 2 * self.pause_s))
