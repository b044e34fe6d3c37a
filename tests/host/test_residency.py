"""The cap is never passed, nobody leaves who is in use, and one load serves all: whatever order things happen in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.host import eviction
from edgewise.host.memory import Need
from edgewise.host.requests import Refused
from edgewise.host.residency import Loaded, Place, Residency

from .conftest import FakeTimeLoop

CAP = 100


class Memory:
    """Loads that take the time and bytes that they are told to, and say aloud what must never happen."""

    def __init__(self) -> None:
        self.sizes: dict[Place, tuple[int, int]] = {}
        self.held: dict[Place, int] = {}
        self.highest = 0
        self.busy = False
        self.loads: list[Place] = []
        self.broken: set[Place] = set()
        self.waiting: dict[Place, list[Callable[[EdgewiseError | None], None]]] = {}
        self.wrong: list[str] = []

    def total(self) -> int:
        return sum(self.held.values())

    def hold(self, place: Place, size: int) -> None:
        self.held[place] = size
        self.highest = max(self.highest, self.total())

    async def alone(self, seconds: float) -> None:
        if self.busy:
            self.wrong.append("two things were done at once")
        self.busy = True
        await asyncio.sleep(seconds)
        self.busy = False

    async def need(self, place: Place) -> Need:
        kept, peak = self.sizes[place]
        await asyncio.sleep(0.001)
        return Need(kept, peak, "told")

    async def load(self, place: Place) -> Loaded:
        kept, peak = self.sizes[place]
        if self.held.get(place):
            self.wrong.append("loaded twice")
        self.loads.append(place)
        self.hold(place, peak)
        await self.alone(0.1)
        if place in self.broken:
            self.hold(place, 0)
            raise InvalidInput("a bad file")
        self.hold(place, kept)
        return Loaded(kept, peak, 0.1)

    async def evict(self, place: Place) -> None:
        if place.in_use:
            self.wrong.append("evicted in use")
        await self.alone(0.01)
        if place.in_use:
            self.wrong.append("taken into use while it left")
        self.hold(place, 0)

    def ready(self, place: Place) -> None:
        for tell in self.waiting.pop(place, []):
            tell(None)

    def failed(self, place: Place, error: EdgewiseError) -> None:
        for tell in self.waiting.pop(place, []):
            tell(error)


def residency(memory: Memory, loop: FakeTimeLoop, cap: int | None = CAP, **given: Any) -> Residency:
    return Residency(cap, memory, memory.total, clock=loop.time, **given)


def place(memory: Memory, name: str, kept: int, peak: int | None = None, **given: Any) -> Place:
    made = Place(name, **given)
    memory.sizes[made] = (kept, peak or kept)
    return made


def use(host: Residency, memory: Memory, where: Place, seconds: float, ended: list[EdgewiseError | None]) -> None:
    """As a request does: a user at once, or as soon as the model is there."""
    host.touch(where)

    def served(error: EdgewiseError | None) -> None:
        if error is not None:
            ended.append(error)
            return
        host.enter(where)
        asyncio.get_running_loop().call_later(seconds, done)

    def done() -> None:
        if not memory.held.get(where) or where.state != "ready":
            memory.wrong.append("it left under its user")
        host.leave(where)
        ended.append(None)

    if where.usable:
        served(None)
    else:
        memory.waiting.setdefault(where, []).append(served)
        host.want(where)


Play = Callable[[Awaitable[Any]], Any]


def test_one_load_for_all_and_a_cancelled_waiter_cancels_nobody(loop: FakeTimeLoop, play: Play) -> None:
    memory = Memory()

    async def story() -> None:
        host, a = residency(memory, loop), place(memory, "a", 10)
        waiters = [asyncio.ensure_future(asyncio.shield(host.want(a))) for _ in range(5)]
        await asyncio.sleep(0.05)
        waiters[0].cancel()
        assert len(await asyncio.gather(*waiters, return_exceptions=True)) == 5
        assert a.state == "ready" and memory.loads == [a]

    play(story())


def test_what_can_never_fit_says_so_before_it_loads(loop: FakeTimeLoop, play: Play) -> None:
    memory = Memory()

    async def story() -> None:
        host, big = residency(memory, loop, cap=100 * 2**20), place(memory, "big", 90 * 2**20, 101 * 2**20)
        with pytest.raises(Refused, match=r"big needs 101\.0 MB to load \(told\), and the cap is 100\.0 MB"):
            await host.want(big)
        assert not memory.loads

    play(story())


def test_a_load_waits_for_users_to_end_and_new_ones_wait_for_the_next(loop: FakeTimeLoop, play: Play) -> None:
    """Or a model that is asked all the time would keep the other out for ever."""
    memory = Memory()
    ended: list[EdgewiseError | None] = []

    async def story() -> None:
        host, a, b = residency(memory, loop), place(memory, "a", 80), place(memory, "b", 80)
        await host.want(a)

        async def all_the_time() -> None:
            for _ in range(40):
                use(host, memory, a, 0.2, ended)
                await asyncio.sleep(0.05)

        busy = asyncio.ensure_future(all_the_time())
        await asyncio.sleep(0.3)
        began = loop.time()
        use(host, memory, b, 0.1, ended)
        await asyncio.shield(host.want(b)) if b.state != "ready" else None
        assert loop.time() - began < 0.5
        await busy
        await asyncio.sleep(2)
        await host.settled()

    play(story())
    assert len(ended) == 41 and not any(ended) and not memory.wrong and memory.highest <= CAP


def test_it_is_refused_when_nobody_ends_in_time(loop: FakeTimeLoop, play: Play) -> None:
    memory = Memory()

    async def story() -> None:
        host, a, b = residency(memory, loop, room_s=2.0), place(memory, "a", 80), place(memory, "b", 80)
        await host.want(a)
        host.enter(a)
        began = loop.time()
        with pytest.raises(Refused, match="taken by models in use"):
            await host.want(b)
        assert loop.time() - began == pytest.approx(2.0, abs=0.1)
        host.leave(a)
        await host.settled()

    play(story())


def test_the_pinned_stay(loop: FakeTimeLoop, play: Play) -> None:
    memory = Memory()

    async def story() -> None:
        host, a, b = residency(memory, loop), place(memory, "a", 80, pinned=True), place(memory, "b", 80)
        await host.want(a)
        with pytest.raises(Refused, match="what can't leave"):
            await host.want(b)
        assert a.state == "ready"

    play(story())


def test_a_failed_load_takes_nothing_and_may_be_tried_again(loop: FakeTimeLoop, play: Play) -> None:
    memory = Memory()

    async def story() -> None:
        host, a = residency(memory, loop), place(memory, "a", 80)
        memory.broken.add(a)
        with pytest.raises(InvalidInput, match="bad file"):
            await host.want(a)
        assert a.state == "absent" and host.used() == 0
        memory.broken.clear()
        await host.want(a)
        assert a.state == "ready"

    play(story())


def test_growth_beyond_the_cap_makes_idle_models_leave(loop: FakeTimeLoop, play: Play) -> None:
    memory = Memory()

    async def story() -> None:
        host, a, b = residency(memory, loop), place(memory, "a", 40), place(memory, "b", 40)
        await host.want(a)
        await asyncio.sleep(1)
        await host.want(b)
        memory.hold(Place("elsewhere"), 30)
        host.trim()
        await host.settled()
        assert (a.state, b.state) == ("absent", "ready")

    play(story())


def test_dropped_after_its_users_and_at_once_without(loop: FakeTimeLoop, play: Play) -> None:
    memory = Memory()

    async def story() -> None:
        host, a = residency(memory, loop), place(memory, "a", 40)
        await host.drop(a)
        await host.want(a)
        host.enter(a)
        gone = host.drop(a)
        await asyncio.sleep(1)
        assert not gone.done() and not a.usable
        host.leave(a)
        await gone
        assert a.state == "absent" and memory.total() == 0

    play(story())


class Anything(RuleBasedStateMachine):
    """Requests, cancelled interest, drops, bad files, growth and time, in any order."""

    @initialize(
        sizes=st.lists(st.tuples(st.integers(5, 60), st.integers(0, 50)), min_size=2, max_size=5), value=st.sampled_from(["gdsf", "lru"])
    )
    def begin(self, sizes: list[tuple[int, int]], value: str) -> None:
        self.loop = FakeTimeLoop()
        self.memory = Memory()
        self.host = residency(self.memory, self.loop, value=getattr(eviction, value), room_s=5.0)
        self.places = [place(self.memory, str(i), kept, kept + more) for i, (kept, more) in enumerate(sizes)]
        self.ended: list[EdgewiseError | None] = []
        self.asked = 0

    def play(self, story: Awaitable[Any]) -> None:
        self.loop.run_until_complete(story)

    def one(self, number: int) -> Place:
        return self.places[number % len(self.places)]

    @rule(number=st.integers(0, 4), seconds=st.sampled_from([0.0, 0.01, 0.3]), times=st.integers(1, 4))
    def ask(self, number: int, seconds: float, times: int) -> None:
        async def story() -> None:
            for _ in range(times):
                use(self.host, self.memory, self.one(number), seconds, self.ended)

        self.asked += times
        self.play(story())

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.05, 0.11, 1.0]))
    def wait(self, seconds: float) -> None:
        self.play(asyncio.sleep(seconds))

    @rule(number=st.integers(0, 4))
    def drop(self, number: int) -> None:
        async def story() -> None:
            self.host.drop(self.one(number))

        self.play(story())

    @rule(number=st.integers(0, 4), broken=st.booleans())
    def replace(self, number: int, broken: bool) -> None:
        (self.memory.broken.add if broken else self.memory.broken.discard)(self.one(number))

    @rule()
    def trim(self) -> None:
        async def story() -> None:
            self.host.trim()

        self.play(story())

    @invariant()
    def nothing_forbidden(self) -> None:
        if hasattr(self, "memory"):
            assert self.memory.highest <= CAP
            assert not self.memory.wrong
            assert {each for each in self.places if each.state == "ready"} <= set(self.host.inside())

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        self.play(asyncio.sleep(60))
        self.play(self.host.settled())
        assert len(self.ended) == self.asked, "somebody was never answered"
        assert all(not each.in_use for each in self.places)
        self.nothing_forbidden()
        self.play(self.host.close())
        assert self.memory.total() == 0
        self.loop.close()


Anything.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestAnything = Anything.TestCase


def test_victims_are_the_least_valuable_and_none_is_needless() -> None:
    def resident(name: str, kept: int, uses: float) -> eviction.Resident:
        return eviction.Resident(name, kept * 2**20, uses, 0.0, 1.0)

    small, middle, large = resident("small", 1, 1), resident("middle", 10, 20), resident("large", 50, 150)
    assert [v.key for v in eviction.victims([large, middle, small], 1)] == ["small"]
    assert [v.key for v in eviction.victims([large, middle, small], 11 * 2**20)] == ["small", "middle"]
    assert [v.key for v in eviction.victims([large, middle, small], 40 * 2**20)] == ["large"]  # the others' places aren't needed besides
    assert {v.key for v in eviction.victims([large, middle, small], 500 * 2**20)} == {"small", "middle", "large"}
    assert eviction.victims([large], 0) == ()


def test_what_was_loved_once_is_overtaken() -> None:
    loved = eviction.Resident("loved", 2**20, eviction.decayed(100, 0), 0.0, 1.0, floor=0.0)
    new = eviction.Resident("new", 2**20, 5, 10.0, 1.0, floor=99.0)
    assert eviction.gdsf(new) > eviction.gdsf(loved)
    assert eviction.decayed(8, eviction.HALF_LIFE_S) == 4
    assert eviction.lru(new) > eviction.lru(loved)
