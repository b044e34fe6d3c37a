"""What residency asks for, done in a thread: look at a file, load it, warm it up and measure it, and give its memory back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from edgewise.backends.signature import Gate
from edgewise.data import drawn
from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.host import curves, loading, memory, warming
from edgewise.host.loading import Facts
from edgewise.host.memory import Need
from edgewise.host.processes import ProcessRunner
from edgewise.host.residency import Loaded, Place
from edgewise.host.settings import Settings
from edgewise.host.tickets import Version, row_bytes
from edgewise.types import Execution, Runner

T = TypeVar("T")


class Engine(Protocol):
    """From a file to what answers: this room's own, or a test's."""

    def look(self, version: Version) -> Facts: ...

    def load(self, version: Version) -> list[Runner]: ...


class Files:
    """Packages and graphs on disk, by `host.loading`."""

    def __init__(self, settings: Settings) -> None:
        self._trust = settings.trust

    def look(self, version: Version) -> Facts:
        own = version.settings
        facts = loading.look(version.file.path, backend=own.backend, threads=own.threads, trust=self._trust)
        if not own.process:
            warming.warm(facts.execution.backend)  # of one that came later; before room is made for the model
        return facts

    def load(self, version: Version) -> list[Runner]:
        """Its runners, ready. Raises InvalidInput where the file isn't the one that was looked at any more."""
        own = version.settings
        runners: list[Runner] = []
        if own.process and version.facts is not None:
            file, facts = version.file.path, version.facts
            made = (ProcessRunner(file, facts, backend=own.backend, threads=own.threads) for _ in range(own.instances))
            return _all(runners, made)
        model = loading.read(version.file.path, backend=own.backend, threads=own.threads, trust=self._trust)
        if model.package is not None and version.facts is not None and model.package.content_id != version.facts.content_id:
            raise InvalidInput(f"{version.file.path} changed while it was loaded; it is looked at again")
        # Without the package: while an engine loads, its mapped file would be resident too.
        model = replace(model, package=None)
        signature = version.facts.signature if version.facts is not None else None
        return _all(runners, (loading.Runners(model, eager=True, signature=signature) for _ in range(own.instances)))


class Loader:
    """`residency.Loads`, for versions. opened, closed, refused: told in the loop when a version came, left, or won't come.

    learns: whether what loads took is kept for later ones. Only where large arrays are kept apart (`memory.keep_apart`): elsewhere a load
    finds room that another left behind, and looks as if it took next to nothing.
    """

    def __init__(
        self,
        engine: Engine,
        shelf: curves.Shelf,
        *,
        opened: Callable[[Version], None],
        closed: Callable[[Version], None],
        refused: Callable[[Version, EdgewiseError], None],
        pace: Callable[[Version], float],
        learns: bool = True,
        read: Callable[[], int] = memory.rss_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._shelf, self._clock, self._read, self._learns = engine, shelf, clock, read, learns
        self._opened, self._closed, self._refused, self._pace = opened, closed, refused, pace
        self._versions: dict[Place, Version] = {}
        self._looks: dict[Version, asyncio.Future[Facts]] = {}
        # One thread loads and evicts, one looks at files: a look must not wait for a load.
        self._heavy = ThreadPoolExecutor(1, "edgewise-load")
        self._light = ThreadPoolExecutor(1, "edgewise-look")

    def adopt(self, version: Version) -> None:
        self._versions[version.place] = version

    def disown(self, version: Version) -> None:
        self._versions.pop(version.place, None)

    async def facts(self, version: Version) -> Facts:
        """What its file says; looked at once, however many ask. Raises InvalidInput and its kind."""
        if version.facts is not None:
            return version.facts
        look = self._looks.get(version)
        if look is None:
            look = asyncio.ensure_future(self._look(version))
            self._looks[version] = look
            look.add_done_callback(lambda done: (self._looks.pop(version, None), done.cancelled() or done.exception()))
        return await asyncio.shield(look)

    async def need(self, place: Place) -> Need:
        version = self._versions[place]
        facts = await self.facts(version)
        found = self._shelf.find(version.file.path, facts.content_id, _execution(version, facts))
        learned = (found.kept, found.peak) if found is not None and found.peak else None
        if found is not None and found.seconds:
            place.reload_s = found.seconds
        return memory.needed(facts, hint=version.settings.memory_bytes, learned=learned, instances=version.settings.instances)

    async def load(self, place: Place) -> Loaded:
        version = self._versions[place]
        took = await self._in(self._heavy, self._load, version)
        version.failed, version.reason = False, ""
        return took

    async def evict(self, place: Place) -> None:
        version = self._versions[place]
        pace = self._pace(version)
        self._closed(version)
        runners, version.runners, version.free = version.runners, [], []
        await self._in(self._heavy, self._unload, version, runners, pace)

    def ready(self, place: Place) -> None:
        self._opened(self._versions[place])

    def failed(self, place: Place, error: EdgewiseError) -> None:
        self._refused(self._versions[place], error)

    def close(self) -> None:
        self._heavy.shutdown()
        self._light.shutdown()

    async def _look(self, version: Version) -> Facts:
        try:
            facts = await self._in(self._light, self._engine.look, version)
        except EdgewiseError:
            raise
        except Exception as error:  # of whatever class a parser has for a file that is none: it is the file's fault, and its own alone
            raise InvalidInput(f"{version.file.path} can't be read: {type(error).__name__}: {error}") from error
        version.facts, version.gate, version.batched = facts, Gate(facts.signature), facts.signature.batched
        return facts

    def _load(self, version: Version) -> Loaded:
        began = self._clock()
        facts = version.facts
        if facts is None:
            raise InvalidInput(f"{version.name} wasn't looked at")
        with memory.Peak(self._read) as peak:
            runners = self._engine.load(version)
            seconds = self._clock() - began
            try:
                measured = self._warmed(version, facts, runners)
            except BaseException:
                for runner in runners:
                    runner.close()
                memory.give_back()
                raise
        memory.give_back()
        kept = max(0, self._read() - peak.before)
        version.runners, version.free = runners, list(runners)
        version.curve, version.exact, version.warm = measured.curve, measured.exact, measured.ran
        before = self._shelf.find(version.file.path, facts.content_id, _execution(version, facts))
        if before is not None:  # memory that was free already when it was loaded makes a load look smaller than it is
            kept, highest = max(kept, before.kept), max(peak.above, before.peak)
        else:
            highest = max(kept, peak.above)
        learned = (kept, highest) if self._learns else (before.kept, before.peak) if before is not None else (0, 0)
        record = replace(measured, kept=learned[0], peak=learned[1], seconds=seconds)
        if before is None or _moved(before, record):
            self._shelf.put(version.file.path, facts.content_id, _execution(version, facts), record)
        return Loaded(kept, highest, seconds)

    def _warmed(self, version: Version, facts: Facts, runners: list[Runner]) -> curves.Measured:
        """The curve from the shelf, or measured now; every runner was called before the first request comes."""
        own, shared = version.settings, version.shared
        known = self._shelf.find(version.file.path, facts.content_id, _execution(version, facts))
        if known is not None and (known.exact > 1 or not own.exact) and (len(known.points) > 1 or not shared):
            if not known.ran:
                return known
            inputs = drawn.inputs(facts.signature, batch=1, tokens=own.tokens)
            for runner in runners:
                runner.run(inputs)
        else:
            known = curves.measure(runners[0], facts.signature, shared=shared, exact=own.exact, largest=own.max_rows, tokens=own.tokens)
            if not known.ran:
                version.reason = "it could not be warmed up: it doesn't take inputs that are drawn at random"
                return known
            inputs = drawn.inputs(facts.signature, batch=1, tokens=own.tokens)
            for runner in runners[1:]:
                runner.run(inputs)
        version.row_bytes = row_bytes(inputs)
        return known

    def _unload(self, version: Version, runners: list[Runner], pace: float) -> None:
        for runner in runners:
            runner.close()
        runners.clear()
        memory.give_back()
        facts = version.facts
        known = self._shelf.find(version.file.path, facts.content_id, _execution(version, facts)) if facts is not None else None
        if facts is not None and known is not None and abs(pace - 1) > 0.1:
            self._shelf.put(version.file.path, facts.content_id, _execution(version, facts), curves.paced(known, pace))

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *given)


def _all(runners: list[Runner], made: Iterable[Runner]) -> list[Runner]:
    """All of them, or none."""
    try:
        runners.extend(made)  # what was made is in there, should another fail
    except BaseException:
        for runner in runners:
            runner.close()
        raise
    return runners


def _moved(before: curves.Measured, after: curves.Measured) -> bool:
    """Whether it is worth writing: a load's time is never twice the same."""
    if replace(before, kept=0, peak=0, seconds=0) != replace(after, kept=0, peak=0, seconds=0):
        return True
    return after.kept > 1.05 * before.kept or after.peak > 1.05 * before.peak or not 0.5 < after.seconds / max(before.seconds, 1e-9) < 2


def _execution(version: Version, facts: Facts) -> Execution:
    """What a curve is kept by: the engine's, and how many runners there are of it."""
    count = version.settings.instances
    return facts.execution if count == 1 else replace(facts.execution, options={**facts.execution.options, "instances": str(count)})
