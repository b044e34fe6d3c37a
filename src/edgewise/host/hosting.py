"""`LocalHost`: the models of one folder, ready to answer in this process."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewise import devices
from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.host import curves, memory, processes, warming
from edgewise.host.caching import Cache, key_of
from edgewise.host.catalogue import Catalogue
from edgewise.host.executor import Executor
from edgewise.host.loader import Engine, Files, Loader
from edgewise.host.renewing import Renewer
from edgewise.host.requests import Answer, Description, Refused, Request, Statistics, Status
from edgewise.host.residency import Residency, Tally
from edgewise.host.settings import Settings, folder_of
from edgewise.host.tickets import Ticket, Version, deadline_of
from edgewise.host.workers import Threads, Workers, threads_worth

INLINE_MS, INLINE_ONE_CORE_MS = 0.3, 2.0
TEND_S = 0.5
CACHE_SHARE = 8  # of the memory cap, that answers may take at most


@dataclass(frozen=True)
class Vitals:
    """How the host is. above_idle: resident memory beyond that of the process without models. kept: by "model/version", as measured.

    trouble: what went wrong with the last look at the repository; "" where nothing did.
    """

    above_idle: int
    cap: int | None
    kept: Mapping[str, int]
    waiting: Mapping[str, int]
    running: int
    cores: int
    cached: int
    cached_bytes: int
    tally: Tally
    trouble: str


class LocalHost:
    """`requests.Host` over the models in `folder`. `start` it in the event loop that it is to live in; `close` it there.

    engine, workers, above, clock: what a test gives instead of engines, threads, this process's memory and time.monotonic.
    """

    def __init__(
        self,
        folder: Path | str,
        settings: Settings | None = None,
        *,
        engine: Engine | None = None,
        workers: Workers | None = None,
        above: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or Settings()
        self._folder = folder_of(Path(folder))
        self._clock = clock
        self._models = Catalogue()
        # Answers that are kept take their part of the cap too.
        self._cache = Cache(min(self.settings.cache_bytes, (self.settings.memory_bytes or 1 << 60) // CACHE_SHARE), clock)
        self._closing, self._trouble = False, ""
        self._tender: asyncio.Task[None] | None = None
        self._engine, self._given_workers, self._above = engine or Files(self.settings), workers, above

    async def start(self) -> None:
        """Find the models, and load the pinned ones. Raises Refused where one of these doesn't fit, InvalidInput where it is bad."""
        settings, loop = self.settings, asyncio.get_running_loop()
        cores = settings.cores or await asyncio.to_thread(threads_worth, devices.cores())
        if self._above is None:
            if settings.memory_bytes is not None:
                memory.keep_apart()
            await asyncio.to_thread(warming.prepare, self._folder, settings)
            idle = memory.rss_bytes()
            self._above = lambda: memory.rss_bytes() - idle + processes.resident_bytes()
        self._loader = Loader(
            self._engine,
            curves.Shelf(settings.curves),
            opened=lambda version: self._executor.opened(version),
            closed=lambda version: self._executor.closed(version),
            refused=self._refused,
            pace=lambda version: self._executor.pace(version),
            learns=settings.memory_bytes is not None,
            read=self._above,
            clock=self._clock,
        )
        self._residency = Residency(settings.memory_bytes, self._loader, self._above, room_s=settings.room_s, clock=self._clock)
        self._workers = self._given_workers or Threads(cores, loop, settings.nice)
        inline_ms = settings.inline_ms if settings.inline_ms is not None else INLINE_ONE_CORE_MS if cores == 1 else INLINE_MS
        self._executor = Executor(self._workers, self._residency, cores=cores, inline_s=inline_ms / 1e3, clock=self._clock, loop=loop)
        self._renewer = Renewer(
            self._folder, settings, self._models, self._loader, self._residency, self._executor, changed=self._cache.drop
        )
        await self._renewer.first()
        for version in [version for version in self._models.all() if version.settings.pinned]:
            if version.number in self._models.entry(version.name).order:
                await asyncio.shield(self._residency.want(version.place))
        self._tender = asyncio.create_task(self._tend())

    async def close(self) -> None:
        """Takes nothing more, answers what was taken, for `grace_s` at most; then whoever still waits is refused, and models leave."""
        if self._closing:
            return
        self._closing = True
        if self._tender is not None:
            self._tender.cancel()
            await asyncio.gather(self._tender, return_exceptions=True)
        await self._executor.drained(self.settings.grace_s)
        error = Refused("the server is closing", 5.0)
        self._executor.give_up(error)
        for version in self._models.all():
            self._executor.refused(version, error)
        await self._residency.close()
        if self._given_workers is None:
            await asyncio.to_thread(self._workers.close)
        await asyncio.to_thread(self._loader.close)

    async def infer(self, request: Request) -> Answer:
        """Raises NoModel, Refused, Late, InvalidInput for inputs that don't fit the model. A cancelled call is taken out of its queue."""
        if self._closing:
            raise Refused("the server is closing", 5.0)
        version = self._models.route(request)
        while version.facts is None:
            await self._known(version)
            if version.failed or version.retired:
                version = self._models.route(request)
        ttl_s = version.settings.cache_ttl_s
        if not ttl_s or version.facts is None:
            return await self._ask(version, request)
        version.rows_of(request.inputs)  # what doesn't fit is no question
        deadline = deadline_of(request, version.settings, self._clock())
        counted, began = version.figures, self._clock()
        answer = await self._cache.answer(
            key_of(version.facts.content_id, request), version.name, ttl_s, lambda: self._ask(version, request), deadline
        )
        (counted.cache_hit if answer.cached else counted.cache_miss).add(self._clock() - began)
        return answer

    def take(self, request: Request) -> Answer | Ticket | None:
        """As `infer`, where its version is known and its answers aren't kept."""
        if self._closing:
            raise Refused("the server is closing", 5.0)
        entry = self._models.entries.get(request.model)
        if entry is not None and entry.settings.cache_ttl_s:  # before a canary's share is drawn
            return None
        version = self._models.route(request)
        return None if version.facts is None else self._executor.take(version, request)

    def index(self) -> list[Status]:
        return self._models.index()

    def ready(self, model: str, version: str = "") -> bool:
        """Whether a request would be taken: an absent model that can be loaded on demand is ready. Raises NoModel."""
        found = self._models.find(model, version)
        return not (self._closing or found.failed or found.parked)

    async def describe(self, model: str, version: str = "") -> Description:
        """Raises NoModel, Refused where its file is bad."""
        found = self._models.find(model, version)
        while found.facts is None:
            if found.failed:
                raise Refused(f"{found.name}/{found.number} can't be loaded: {found.reason}", 60.0)
            await self._known(found)
            found = self._models.find(model, version)
        facts = found.facts
        return Description(
            name=found.name,
            version=found.number,
            signature=facts.signature,
            batched=facts.signature.batched,
            independent=facts.rows == "independent",
            labels=facts.labels,
            preprocess=facts.preprocess,
            postprocess=facts.postprocess,
            execution=str(facts.execution),
            size_bytes=facts.size_bytes,
            largest=found.settings.max_rows,
            files=facts.files,
        )

    def statistics(self, model: str = "", version: str = "") -> Mapping[tuple[str, str], Statistics]:
        """By (model, version); of all unless named. Raises NoModel."""
        if version:
            found = self._models.find(model, version)
            return {(found.name, found.number): found.figures}
        versions = self._models.entry(model).versions.values() if model else self._models.all()
        return {(each.name, each.number): each.figures for each in versions}

    async def load(self, model: str) -> None:
        """Into memory, or again from disk: a new version takes over when it is ready, a bad one leaves the old one serving.

        Raises NoModel, Refused where it can't fit, InvalidInput for a file that can't be loaded.
        """
        entry = self._models.entries.get(model)
        for version in entry.versions.values() if entry is not None else ():
            version.parked = False
        error = await self._renewer.now(model)
        entry = self._models.entry(model)
        if error is None or not all(entry.versions[number].failed for number in entry.order):
            for version in [entry.versions[number] for number in entry.order]:  # others may come and go meanwhile
                await asyncio.shield(self._residency.want(version.place))
        if isinstance(error, Refused):
            raise error
        if error is not None:
            raise InvalidInput(f"{model}: what is on disk can't be loaded: {error}")

    async def unload(self, model: str) -> None:
        """Out of memory, after what was taken is answered; it isn't loaded again until it is asked to be. Raises NoModel."""
        versions = list(self._models.entry(model).versions.values())
        for version in versions:
            version.parked = True
            self._executor.refused(version, Refused(f"{model} is being taken out of memory", 60.0))
        await asyncio.gather(*(asyncio.shield(self._residency.drop(version.place)) for version in versions))
        self._cache.drop(model)

    def vitals(self) -> Vitals:
        used = self._above() if self._above is not None else 0
        return Vitals(
            above_idle=used,
            cap=self.settings.memory_bytes,
            kept={place.name: place.kept for place in self._residency.inside()},
            waiting={f"{version.name}/{version.number}": self._executor.waiting_of(version) for version in self._models.all()},
            running=self._executor.running,
            cores=self._executor.state.cores,
            cached=len(self._cache),
            cached_bytes=self._cache.size,
            tally=self._residency.tally,
            trouble=self._trouble,
        )

    async def _ask(self, version: Version, request: Request) -> Answer:
        if version.retired:  # while its answer was looked for among those that are kept
            version = self._models.route(request)
        taken = self._executor.take(version, request)
        if isinstance(taken, Answer):
            return taken
        try:
            return await taken.answer
        except asyncio.CancelledError:
            taken.cancel()
            raise

    async def _known(self, version: Version) -> None:
        """Look at its file; a bad one fails, and hands over to the next that is good, if there is one."""
        try:
            await self._loader.facts(version)
        except EdgewiseError as error:
            self._refused(version, error)

    def _refused(self, version: Version, error: EdgewiseError) -> None:
        """It won't come into memory. A bad file is out of the race: the next best version serves those who named none."""
        told: EdgewiseError = error
        if not isinstance(error, Refused):
            version.failed, version.reason = True, str(error)
            told = Refused(f"{version.name}/{version.number} can't be loaded: {error}", 60.0)
            entry = self._models.entries.get(version.name)
            if entry is not None and entry.versions.get(version.number) is version:
                entry.refused[version.number] = version.file.stamp
                entry.arrange()
                main = entry.main()
                if main is not None and main is not version and not main.failed:
                    self._executor.moved(version, main)
        self._executor.refused(version, told)

    async def _tend(self) -> None:
        """Look at the disk, and under a cap at the memory, every now and then."""
        poll_s = self.settings.poll_s or math.inf
        pause_s = min(poll_s, TEND_S if self.settings.memory_bytes is not None else math.inf)
        early_s = pause_s / 2  # each look is at the nearest end of a pause, which may come a little early
        next_look = self._clock() + poll_s - early_s
        while pause_s < math.inf:
            await asyncio.sleep(pause_s)
            self._residency.trim()
            if self._clock() >= next_look:
                try:
                    await self._renewer.look()
                    self._trouble = ""
                except Exception as error:  # whatever is wrong with one look, it must not be the last one
                    self._trouble = f"{type(error).__name__}: {error}"
                next_look = self._clock() + poll_s - early_s
