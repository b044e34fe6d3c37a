"""What changes on disk while models serve: a version takes over when it has shown that it loads, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.host import catalogue, repository
from edgewise.host.catalogue import Catalogue, Entry
from edgewise.host.executor import Executor
from edgewise.host.loader import Loader
from edgewise.host.repository import File
from edgewise.host.requests import Refused
from edgewise.host.residency import Residency
from edgewise.host.settings import Settings
from edgewise.host.tickets import Version

Scan = dict[str, dict[str, File]]


class Renewer:
    """changed(model): told in the loop when another file answers for a model."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        models: Catalogue,
        loader: Loader,
        residency: Residency,
        executor: Executor,
        changed: Callable[[str], None],
    ) -> None:
        self._folder, self._settings, self._models = folder, settings, models
        self._loader, self._residency, self._executor, self._changed = loader, residency, executor, changed
        self._last: Scan = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def look(self) -> None:
        """Take over what changed since, where it has been at rest for one look: a file that is still being copied is no model yet."""
        found = await asyncio.to_thread(repository.scan, self._folder)
        before, self._last = self._last, found
        served = {
            name: {number: version.file for number, version in entry.versions.items()} for name, entry in self._models.entries.items()
        }
        for name in repository.changes(served, found) - repository.changes(before, found):
            await self.renew(name, found.get(name, {}))

    async def now(self, model: str) -> EdgewiseError | None:
        """The same for one model, without waiting for a second look. What was wrong with the newest file that didn't take over."""
        found = await asyncio.to_thread(repository.scan, self._folder)
        self._last = found
        return await self.renew(model, found.get(model, {}), again=True)

    async def first(self) -> None:
        """What is there at the start; nothing is loaded for it."""
        self._last = await asyncio.to_thread(repository.scan, self._folder)
        for name, files in self._last.items():
            self._know(name, files)

    async def renew(self, name: str, files: Mapping[str, File], again: bool = False) -> EdgewiseError | None:
        """again: try what was refused before once more. What was wrong with the newest file that didn't take over."""
        if name not in self._models.entries and not files:
            return None  # a name that somebody made up: nothing is kept of it
        async with self._locks.setdefault(name, asyncio.Lock()):
            entry = self._models.entries.get(name)
            if entry is None:
                if files:
                    self._know(name, files)
                return None
            tried = repository.served(files, entry.settings.versions)
            error = None
            for number in sorted(files, key=int):
                error = await self._take(entry, number, files[number], number in tried, again) or error
            gone = [entry.versions.pop(number) for number in list(entry.versions) if number not in files]
            entry.arrange()
            for version in gone:
                self._retire(version, None)
            if not files:
                del self._models.entries[name]
                self._changed(name)
            for number, version in entry.versions.items():
                if number not in entry.order and version.place.state != "absent":
                    self._residency.drop(version.place)
            return error

    def _know(self, name: str, files: Mapping[str, File]) -> None:
        entry = self._models.entries[name] = catalogue.of(files, self._settings.of(name), name)
        for version in entry.versions.values():
            self._loader.adopt(version)

    async def _take(self, entry: Entry, number: str, file: File, tried: bool, again: bool) -> EdgewiseError | None:
        """Let a file answer for its version, if it may. tried: only once it was seen to load. What was wrong with it, where it may not."""
        old = entry.versions.get(number)
        if old is not None and old.file.stamp == file.stamp and not (again and old.failed):
            return None
        if entry.refused.get(number) == file.stamp and not again:
            return None
        fresh = catalogue.made(file, entry.settings)
        fresh.parked = old.parked if old is not None else any(version.parked for version in entry.versions.values())
        if old is not None:
            fresh.figures = old.figures
        self._loader.adopt(fresh)
        beside = old if old is not None and not old.failed else entry.main()
        error = None
        if tried:
            error = await self._proved(fresh, beside)
            if error is None and old is not None and not old.failed and _same(old, fresh):
                old.file = file  # touched, or copied over by itself
                self._drop(fresh)
                return None
            if error is not None:
                entry.refused[number] = file.stamp
                fresh.failed, fresh.reason = True, str(error)
                if old is not None and not old.failed:
                    old.reason = f"a newer file was refused, the old one serves on: {error}"
                    self._drop(fresh)
                    return error
        if not fresh.failed:
            entry.refused.pop(number, None)
        entry.versions[number] = fresh
        entry.arrange()
        self._changed(entry.name)
        if old is not None:
            self._retire(old, fresh)
        return error

    async def _proved(self, fresh: Version, beside: Version | None) -> EdgewiseError | None:
        """None where the version loads, and runs if the one beside it does. That one stays in memory meanwhile."""
        pinned = beside.place.pinned if beside is not None else False
        try:
            await self._loader.facts(fresh)
            if fresh.parked or (beside is not None and _same(beside, fresh)):
                return None
            if beside is not None:
                beside.place.pinned = True
            await asyncio.shield(self._residency.want(fresh.place))
        except EdgewiseError as error:
            return error
        finally:
            if beside is not None:
                beside.place.pinned = pinned
        if beside is not None and beside.warm and not fresh.warm:
            return InvalidInput("it can't be run on what the version before it takes")
        return None

    def _retire(self, old: Version, fresh: Version | None) -> None:
        """It answers those that it took, and leaves."""
        old.retired = True
        if fresh is not None:
            self._executor.moved(old, fresh)
        else:
            self._executor.refused(old, Refused(f"{old.name}/{old.number} was removed"))
        self._drop(old)

    def _drop(self, version: Version) -> None:
        gone = self._residency.drop(version.place)
        gone.add_done_callback(lambda _: self._loader.disown(version))


def _same(one: Version, other: Version) -> bool:
    """Whether both files hold the same to the bit."""
    return one.facts is not None and other.facts is not None and one.facts.content_id == other.facts.content_id
