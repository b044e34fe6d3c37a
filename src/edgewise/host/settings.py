"""What a host may be told: of all its models, and of each. Limits are checked here, once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import InvalidInput

if TYPE_CHECKING:
    from edgewise.package.signing import Trust


@dataclass(frozen=True)
class Versions:
    """Which versions of a model are served. latest: as many of the newest (0: all). only: these, by number, whatever else there is.

    A request that names no version gets the newest that is served and good, or the canary: canary_share (0..1) of such requests go to
    the version `canary`.
    """

    latest: int = 1
    only: tuple[str, ...] = ()
    canary: str = ""
    canary_share: float = 0.0

    def __post_init__(self) -> None:
        if self.latest < 0:
            raise InvalidInput(f"latest={self.latest}: give how many of the newest versions are served, or 0 for all")
        for version in (*self.only, *filter(None, (self.canary,))):
            if not version.isdecimal() or int(version) < 1:
                raise InvalidInput(f"version {version!r}: versions are whole numbers from 1 up, as their folders are called")
        if not 0 <= self.canary_share <= 1:
            raise InvalidInput(f"canary_share={self.canary_share}: give a share of the requests in 0..1")
        if bool(self.canary_share) != bool(self.canary):
            raise InvalidInput(
                f"canary={self.canary!r} with canary_share={self.canary_share}: a canary needs a version and a share above 0"
            )


@dataclass(frozen=True)
class ModelSettings:
    """Of one model.

    max_rows: of a call that several requests share; 0: as many as its batch curve pays for, 1: none are shared.
    exact: only calls whose rows come out bit by bit as they do alone (found out when the curve is measured).
    queue: requests that wait at most. deadline_ms: of a request that names none; None: it may take any time. priority: added to a
    request's own. cache_ttl_s: how long an answer may be given again to whoever asks the same; 0: never.
    instances: calls of this model that may run at once, each on a runner of its own. memory_bytes: what the model needs, peak of
    loading included, where you know better than what was measured or is estimated. pinned: loaded at the start and never evicted.
    backend, threads: instead of what measured best. tokens: size of axes that are open besides the batch when the model is warmed up.
    process: in a process of its own, which gives back all of its memory and takes nobody along when it crashes, for some 60 MB and copies
    of every array.
    """

    max_rows: int = 0
    exact: bool = False
    queue: int = 256
    deadline_ms: float | None = None
    priority: int = 0
    cache_ttl_s: float = 0.0
    instances: int = 1
    memory_bytes: int | None = None
    pinned: bool = False
    versions: Versions = field(default_factory=Versions)
    backend: str | None = None
    threads: int | None = None
    tokens: int = 32
    process: bool = False

    def __post_init__(self) -> None:
        for name, least in (("max_rows", 0), ("queue", 1), ("instances", 1), ("tokens", 1), ("memory_bytes", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidInput(f"{name}={value}: give {least} or more")
        if self.deadline_ms is not None and not (math.isfinite(self.deadline_ms) and self.deadline_ms > 0):
            raise InvalidInput(f"deadline_ms={self.deadline_ms}: give milliseconds above 0, or leave it out")
        if not (math.isfinite(self.cache_ttl_s) and self.cache_ttl_s >= 0):
            raise InvalidInput(f"cache_ttl_s={self.cache_ttl_s}: give seconds, or 0 to keep no answers")


@dataclass(frozen=True)
class Settings:
    """Of the host. memory_bytes: the most of resident memory above the idle process, peaks of loading included; None: no cap.

    cores: how many calls' threads run at once; 0: what is measured here. poll_s: how often the repository is looked at; 0: never.
    inline_ms: calls that take no longer run in the event loop itself when nothing else waits, which saves two changes of thread; None: 0.3,
    and 2 on one core, where whoever comes meanwhile could do nothing but wait either way.
    nice: by how much the threads of calls stand back behind the loop's, which has little to do each time and else waits for a slice of
    theirs to end; 0 where other programs of the device are not to go before them (Linux).
    cache_bytes: of answers kept. room_s: how long a load waits for models in use. grace_s: how long closing waits for what was taken.
    trust: whose packages may be loaded. curves: whether measured batch curves are kept beside the models.
    """

    memory_bytes: int | None = None
    cores: int = 0
    poll_s: float = 2.0
    inline_ms: float | None = None
    nice: int = 5
    cache_bytes: int = 64 << 20
    room_s: float = 30.0
    grace_s: float = 30.0
    default: ModelSettings = field(default_factory=ModelSettings)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    trust: Trust | None = None
    curves: bool = True

    def __post_init__(self) -> None:
        for name, least in (("memory_bytes", 1), ("cores", 0), ("poll_s", 0), ("inline_ms", 0), ("cache_bytes", 0), ("room_s", 0)):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= least):
                raise InvalidInput(f"{name}={value}: give {least} or more")

        if not 0 <= self.nice <= 19:
            raise InvalidInput(f"nice={self.nice}: give 0 to 19")

    def of(self, model: str) -> ModelSettings:
        return self.models.get(model, self.default)


def folder_of(path: Path) -> Path:
    """`path`, if it is a folder. Raises InvalidInput."""
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise InvalidInput(f"{path} {kind}; give the folder with the models: NAME/VERSION/model.edgew (or .onnx), or NAME.edgew")
    return path
