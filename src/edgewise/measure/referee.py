"""Which blocks count: those that the machine disturbed are measured again, within a bound; the record says how many, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgewise.devices import Disturbance
from edgewise.records import Conditions

# What disturbed the machine since it was last asked; None where the system tells nothing. `devices.Health` is one.
Looked = Callable[[], Sequence[Disturbance] | None]

MORE = 3  # for so many blocks that count, one is measured again at most: a loaded machine takes a third longer, not for ever


class Referee:
    """Says of each block, or of each pair of them, whether it counts. A pair stands or falls as one.

    It sees the machine, never a time or a ratio, so that what is dropped favours no side. Beyond the bound a disturbed block counts, and is
    counted as that. least: so many will count at least, which the bound goes by before there are more. Without `looked` every block counts.
    """

    def __init__(self, looked: Looked = lambda: None, *, least: int = 0) -> None:
        self.counted = self.again = self.disturbed = 0  # disturbed: of those that count
        self._looked, self._least = looked, least
        self._watched = False
        self._often: Counter[str] = Counter()
        self._worst: dict[str, Disturbance] = {}

    def begin(self) -> None:
        """What happened until now is no block's. To be called before the first, and after every pause between two."""
        self._looked()

    def counts(self, *, last: bool = False) -> bool:
        """Of the block since `begin`, or since this was last asked. last: there is no time to measure it again."""
        found = self._looked()
        self._watched |= found is not None
        for one in found or ():
            self._often[one.kind] += 1
            self._worst[one.kind] = max(self._worst.get(one.kind, one), one, key=lambda each: each.amount)
        if found and not last and MORE * (self.again + 1) <= max(self._least, self.counted):
            self.again += 1
            return False
        self.counted += 1
        self.disturbed += bool(found)
        return True

    def told(self, conditions: Conditions) -> Conditions:
        """`conditions` with what became of the blocks."""
        if not self._watched:
            return conditions
        worst = tuple(self._worst[kind].said for kind, _ in self._often.most_common())
        return replace(conditions, watched=self.counted, again=self.again, disturbed=self.disturbed, disturbances=worst)
