"""Which models are in memory, under a hard cap: loads one at a time, evictions before them, and nothing that is in use ever leaves.

All of it belongs to one event loop, so a step between two awaits is atomic. What loads and evicts is given: threads, or a test's fake.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgewise.errors import EdgewiseError
from edgewise.host import eviction
from edgewise.host.memory import Need
from edgewise.host.requests import Refused

State = Literal["absent", "loading", "ready", "unloading"]
MEGABYTE = 2**20


@dataclass(frozen=True)
class Loaded:
    """What a load took, in bytes above what there was before it: kept, and at most while it went on."""

    kept: int
    peak: int
    seconds: float


@dataclass(eq=False)
class Place:
    """A model's place in memory, taken or not.

    in_use: who must be answered before it may leave. closing: it takes no new users, and leaves when the last one is done.
    uses, last_s, floor, reload_s: what its value is made of (`eviction`).
    """

    name: str
    pinned: bool = False
    state: State = "absent"
    in_use: int = 0
    closing: bool = False
    kept: int = 0
    uses: float = 0.0
    last_s: float = 0.0
    reload_s: float = 0.1
    floor: float = 0.0
    waits_since: float | None = None
    coming: asyncio.Future[None] | None = None
    going: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether a request may become one of its users now."""
        return self.state == "ready" and not self.closing


class Loads(Protocol):
    """What residency asks for. Never two at once, and none is ever cancelled: who waits may go, the load goes on."""

    async def need(self, place: Place) -> Need:
        """What the model takes, before it is loaded. Raises what says why it can't be."""
        ...

    async def load(self, place: Place) -> Loaded:
        """Bring it into memory, ready to answer."""
        ...

    async def evict(self, place: Place) -> None:
        """Take it out of memory, and give that back to the system."""
        ...

    def ready(self, place: Place) -> None:
        """It is in memory. Whoever waited becomes its user here and now: a moment later it might be gone again."""
        ...

    def failed(self, place: Place, error: EdgewiseError) -> None:
        """It won't come; whoever waited is told."""
        ...


@dataclass
class Tally:
    """Since the start. highest: memory above idle, as seen at the moments that matter. hits: requests that found their model in memory."""

    loads: int = 0
    failed: int = 0
    evictions: int = 0
    hits: int = 0
    misses: int = 0
    highest: int = 0
    load_seconds: float = 0.0


class Residency:
    """cap: bytes above idle, None for none. above(): what of this process's memory is above idle, now. room_s: how long a load may wait."""

    def __init__(
        self,
        cap: int | None,
        loads: Loads,
        above: Callable[[], int],
        *,
        value: eviction.Value = eviction.gdsf,
        room_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = cap
        self.tally = Tally()
        self._loads, self._above, self._value, self._room_s, self._clock = loads, above, value, room_s, clock
        self._inside: dict[Place, None] = {}
        self._wanted: dict[Place, None] = {}
        self._moved = asyncio.Event()
        self._inflation = 0.0
        self._excess = False
        self._worker: asyncio.Task[None] | None = None

    def touch(self, place: Place) -> None:
        """Somebody asks for this model."""
        now = self._clock()
        place.uses = eviction.decayed(place.uses, now - place.last_s) + 1
        place.last_s, place.floor = now, self._inflation
        if place.usable:
            self.tally.hits += 1
        else:
            self.tally.misses += 1

    def enter(self, place: Place) -> None:
        """One more user, whom it won't leave before `leave`. Only of a usable place."""
        place.in_use += 1

    def leave(self, place: Place) -> None:
        place.in_use -= 1
        if not place.in_use and self._worker is not None:
            self._moved.set()

    def want(self, place: Place) -> asyncio.Future[None]:
        """Done when the model is in memory: one load for all who want it. Whoever awaits this shields it."""
        if place.coming is None:
            place.coming = asyncio.get_running_loop().create_future()
            place.coming.add_done_callback(_seen)
            self._wanted[place] = None
            self._start()
        return place.coming

    def drop(self, place: Place) -> asyncio.Future[None]:
        """Done when the model is out of memory, after whoever uses it. Who comes later waits for another load."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if place.state == "absent" and place not in self._wanted:
            gone.set_result(None)
            return gone
        place.closing = True
        place.going.append(gone)
        self._start()
        return gone

    def used(self) -> int:
        """What counts against the cap now: what was measured of each model, or what the process has, whichever is more."""
        above = self._above()
        self.tally.highest = max(self.tally.highest, above)
        return max(above, sum(place.kept for place in self._inside))

    def inside(self) -> list[Place]:
        return list(self._inside)

    async def settled(self) -> None:
        """Until nothing loads, leaves or waits to."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    def trim(self) -> None:
        """Have idle models leave while the process is over its cap: activations grow, and so does what others allocate."""
        if self.cap is not None and self.used() > self.cap:
            self._excess = True
            self._start()

    async def close(self) -> None:
        """What is wanted is refused. What is in memory, or being loaded, leaves when its last user is done."""
        for place in list(self._wanted):
            if place.state == "absent":
                self._fail(place, Refused(f"{place.name}: the server is closing"))
        await asyncio.gather(*(self.drop(place) for place in [*self._inside, *self._wanted]))
        await self.settled()

    def _start(self) -> None:
        self._moved.set()
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while (patience := await self._step()) is not None:
                if patience > 0:
                    with contextlib.suppress(TimeoutError):  # what did not move in time is looked at again
                        await asyncio.wait_for(self._moved.wait(), patience)
        finally:
            self._worker = None

    async def _step(self) -> float | None:
        """One thing that can be done. Seconds to wait for something to move before the next one; None when there is nothing left to do."""
        self._moved.clear()
        leaving = [place for place in self._inside if place.closing]
        if (place := next((place for place in leaving if not place.in_use), None)) is not None:
            self.tally.evictions += not place.going
            await self._out(place)
            return 0
        if self._excess:
            self._excess = False
            await self._free(self.used() - (self.cap or 0))
            return 0
        place = next((place for place in self._wanted if place.state == "absent" or not place.closing), None)
        if place is None:
            return self._room_s if leaving else None
        try:
            return await self._bring(place)
        except EdgewiseError as error:
            self._fail(place, error)
        except Exception as error:  # an engine's own, of any class: whoever waits must be told, and the next load go on
            self._fail(place, EdgewiseError(f"{place.name} can't be loaded: {type(error).__name__}: {error}"))
        return 0

    async def _bring(self, place: Place) -> float:
        """Load it, or say how long to wait for room. Raises what whoever waits for it is told."""
        if place.state != "ready":
            if place.closing:
                raise Refused(f"{place.name} is being taken out of memory")
            need = await self._loads.need(place)
            if place.waits_since is None:
                place.waits_since = self._clock()
            wait = await self._room(place, need)
            if wait:
                return wait
            place.state = "loading"
            try:
                took = await self._loads.load(place)
            except BaseException:
                place.state = "absent"
                raise
            place.state, place.kept, place.reload_s = "ready", took.kept, took.seconds
            self._inside[place] = None
            self.tally.loads += 1
            self.tally.load_seconds += took.seconds
            self.used()
        self._wanted.pop(place)
        place.waits_since = None
        self._loads.ready(place)
        coming, place.coming = place.coming, None
        if coming is not None and not coming.done():
            coming.set_result(None)
        return 0

    async def _room(self, place: Place, need: Need) -> float:
        """0 when the peak of its load fits below the cap; else how long to wait. Raises Refused where it never will, or not in time."""
        if self.cap is None:
            return 0
        what = f"{place.name} needs {need.peak / MEGABYTE:,.1f} MB to load ({need.source})"
        if need.peak > self.cap:
            raise Refused(f"{what}, and the cap is {self.cap / MEGABYTE:,.1f} MB; give more memory, or a smaller model", 3600.0)
        while (over := self.used() + need.peak - self.cap) > 0:
            if await self._free(over):
                continue
            users = [other for other in self._inside if not other.pinned]
            left = (place.waits_since or 0.0) + self._room_s - self._clock()
            if not users or left <= 0:
                by = "models in use" if users else "what can't leave"
                raise Refused(f"{what}; of {self.cap / MEGABYTE:,.1f} MB, {self.used() / MEGABYTE:,.1f} MB are taken by {by}")
            # They take no new users, so that their use ends: who asks for them now waits for their next load.
            for other in self._victims(users, over):
                other.closing = True
            return left
        return 0

    async def _free(self, wanted: int) -> bool:
        """Have idle models leave for so many bytes; whether any did."""
        left = False
        for place in self._victims([place for place in self._inside if not place.in_use and not place.pinned], wanted):
            if place.in_use:  # somebody asked for it while another left
                continue
            self._inflation = max(self._inflation, eviction.gdsf(self._resident(place)))
            self.tally.evictions += 1
            await self._out(place)
            left = True
        return left

    async def _out(self, place: Place) -> None:
        place.state = "unloading"
        try:
            await self._loads.evict(place)
        finally:
            self._inside.pop(place, None)
            place.state, place.closing, place.kept = "absent", False, 0
            self._gone(place)

    def _fail(self, place: Place, error: EdgewiseError) -> None:
        self.tally.failed += 1
        self._wanted.pop(place, None)
        place.waits_since, place.closing = None, False
        self._loads.failed(place, error)
        coming, place.coming = place.coming, None
        if coming is not None and not coming.done():
            coming.set_exception(error)
        self._gone(place)

    def _gone(self, place: Place) -> None:
        going, place.going = place.going, []
        for gone in going:
            if not gone.done():
                gone.set_result(None)

    def _victims(self, places: list[Place], wanted: int) -> list[Place]:
        by: dict[object, Place] = {place: place for place in places}
        return [by[resident.key] for resident in eviction.victims([self._resident(place) for place in places], wanted, self._value)]

    def _resident(self, place: Place) -> eviction.Resident:
        uses = eviction.decayed(place.uses, self._clock() - place.last_s)
        return eviction.Resident(place, place.kept, uses, place.last_s, place.reload_s, place.floor)


def _seen(coming: asyncio.Future[None]) -> None:
    """Nobody need wait for it: an error that no one asked for isn't shouted into the log."""
    if not coming.cancelled():
        coming.exception()
