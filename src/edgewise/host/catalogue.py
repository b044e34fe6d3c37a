"""Models by name, their versions, and which of them a request gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgewise.host.repository import File, Stamp, drawn, served
from edgewise.host.requests import NoModel, Refused, Request, Status
from edgewise.host.residency import Place
from edgewise.host.settings import ModelSettings
from edgewise.host.tickets import Version


@dataclass(eq=False)
class Entry:
    """A model. versions: all that lie on disk and aren't worse than what they would replace. order: the served ones, the main one first.

    asked: requests that named no version, so that a canary's share is drawn. refused: stamps of files that didn't take over.
    """

    name: str
    settings: ModelSettings
    versions: dict[str, Version] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    asked: int = 0
    refused: dict[str, Stamp] = field(default_factory=dict)

    def main(self) -> Version | None:
        """The version for those who name none."""
        return self.versions[self.order[0]] if self.order else None

    def arrange(self) -> None:
        """Serve what the policy says, as far as it is good; where nothing of that is, the newest that is."""
        policy = self.settings.versions
        good = [number for number in sorted(self.versions, key=int, reverse=True) if not self.versions[number].failed]
        chosen = [number for number in served(self.versions, policy) if number in good]
        if not policy.only and not any(number != policy.canary for number in chosen):
            chosen[:0] = [number for number in good if number != policy.canary][:1]
        self.order = tuple(chosen) or served(self.versions, policy)


class Catalogue:
    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def entry(self, model: str) -> Entry:
        """Raises NoModel."""
        entry = self.entries.get(model)
        if entry is None:
            known = ", ".join(sorted(self.entries)[:8])
            raise NoModel(f"there is no model {model[:80]!r}; " + (f"there are {known}" if known else "the repository is empty"))
        return entry

    def find(self, model: str, version: str = "") -> Version:
        """The named version, where it is served; the main one where none is named. Raises NoModel."""
        entry = self.entry(model)
        if not version:
            main = entry.main()
            if main is None:
                raise NoModel(f"no version of {model} is served: its policy is {entry.settings.versions}")
            return main
        if version not in entry.order:
            raise NoModel(f"no version {version[:20]!r} of {model} is served; there are {', '.join(entry.order) or 'none'}")
        return entry.versions[version]

    def route(self, request: Request) -> Version:
        """Who answers. Raises NoModel; Refused where its file is bad."""
        entry = self.entries.get(request.model)
        if entry is None or request.version or not entry.order:
            version = self.find(request.model, request.version)
        else:
            version = entry.versions[entry.order[0]]
            policy = entry.settings.versions
            if policy.canary:
                entry.asked += 1
                if policy.canary in entry.order and drawn(entry.asked - 1, policy.canary_share):
                    version = entry.versions[policy.canary]
        if version.failed:
            raise Refused(f"{version.name}/{version.number} can't be loaded: {version.reason}", 60.0)
        return version

    def all(self) -> Iterator[Version]:
        for entry in self.entries.values():
            yield from entry.versions.values()

    def index(self) -> list[Status]:
        found = []
        for name in sorted(self.entries):
            entry = self.entries[name]
            for number in sorted(entry.versions, key=int):
                version = entry.versions[number]
                reason = version.reason
                if not reason and version.parked:
                    reason = "taken out of memory by hand"
                elif not reason and number not in entry.order:
                    reason = f"not served: the served ones are {', '.join(entry.order)}"
                found.append(Status(name, number, version.state, reason))
        return found


def made(file: File, settings: ModelSettings) -> Version:
    return Version(file, settings, Place(f"{file.model}/{file.version}", pinned=settings.pinned))


def of(files: Mapping[str, File], settings: ModelSettings, name: str) -> Entry:
    """A model that wasn't known."""
    entry = Entry(name, settings, {number: made(file, settings) for number, file in files.items()})
    entry.arrange()
    return entry
