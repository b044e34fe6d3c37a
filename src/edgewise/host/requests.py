"""What is asked of models that stand ready, and what comes back: between whoever speaks a protocol (`serve/`) and whoever runs models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.types import Inputs, Outputs, Signature

State = Literal["ready", "absent", "loading", "unloading", "failed"]


class NoModel(InvalidInput):
    """No model, or no version of it, by that name."""


class Refused(EdgewiseError):
    """Not taken: the queue is full, the deadline can't be kept, or the model can't be loaded now.

    retry_after_s: when asking again may help.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Late(EdgewiseError):
    """Taken, but its deadline passed before its answer was there."""


@dataclass(frozen=True, eq=False)
class Request:
    """inputs: of the model's names and dtypes, each with the batch axis first where the model has one.

    version: "" for the one that the model's policy serves. outputs: the wanted ones; () for all.
    deadline: by which the answer has to be there, in seconds of time.monotonic(); None where it may take any time.
    priority: higher ones go first. client: whose it is, for limits and logs.
    """

    model: str
    inputs: Inputs
    version: str = ""
    outputs: tuple[str, ...] = ()
    deadline: float | None = None
    priority: int = 0
    client: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """outputs: the wanted ones alone. queued_s, computed_s: in the queue, and in the engine. rows: of all requests that shared the call."""

    model: str
    version: str
    outputs: Outputs
    queued_s: float = 0.0
    computed_s: float = 0.0
    rows: int = 1
    cached: bool = False


@dataclass(frozen=True)
class Description:
    """A model as its clients see it, whether it is in memory or not.

    batched: every input and output leads with a free batch axis. independent: any rows may share a call.
    preprocess, postprocess: the package's (`edgewise.data`), None where it has none. largest: rows of a call at most; 0: no limit known.
    files: what preprocessing needs besides, by name (a tokenizer.json).
    """

    name: str
    version: str
    signature: Signature
    batched: bool
    independent: bool
    labels: tuple[str, ...] = ()
    preprocess: Any = None
    postprocess: Any = None
    execution: str = ""
    size_bytes: int = 0
    largest: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """A version of a model in the repository. reason: why it isn't ready, in words for people."""

    name: str
    version: str
    state: State
    reason: str = ""


@dataclass
class Counted:
    """How often, and for how long in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds


SIZES = 256  # of calls that are counted apart; rows of a request are its client's to choose


@dataclass
class Statistics:
    """Of one version since it was first loaded. batches: by rows of a call, how often it was made and how long it took.

    Once there are SIZES of them, a call of other rows counts as one of the next lower power of two.
    """

    success: Counted = field(default_factory=Counted)
    fail: Counted = field(default_factory=Counted)
    refused: Counted = field(default_factory=Counted)
    late: Counted = field(default_factory=Counted)
    queue: Counted = field(default_factory=Counted)
    compute: Counted = field(default_factory=Counted)
    cache_hit: Counted = field(default_factory=Counted)
    cache_miss: Counted = field(default_factory=Counted)
    rows: int = 0
    batches: dict[int, Counted] = field(default_factory=dict)
    last_s: float = 0.0  # time.time() of the last request

    def called(self, rows: int, seconds: float) -> None:
        counted = self.batches.get(rows)
        if counted is None:
            if len(self.batches) >= SIZES and rows:
                rows = 1 << (rows.bit_length() - 1)
            counted = self.batches.setdefault(rows, Counted())
        counted.add(seconds)


class Taken(Protocol):
    """A request that waits. answer: done once; `cancel` takes the request back."""

    answer: asyncio.Future[Answer]

    def cancel(self) -> None: ...


class Host(Protocol):
    """Models, ready to answer. All methods belong to one event loop; those that take long are coroutines."""

    async def infer(self, request: Request) -> Answer:
        """Raises NoModel, Refused, Late, InvalidInput for inputs that don't fit the model. A cancelled call is taken out of its queue."""
        ...

    def take(self, request: Request) -> Answer | Taken | None:
        """`infer` without a coroutine: the answer of a call that was too short to wait for, or what waits; None where only `infer` will do.

        Raises what `infer` does.
        """
        ...

    def index(self) -> list[Status]:
        """Every version of every model that the repository has."""
        ...

    def ready(self, model: str, version: str = "") -> bool:
        """Whether a request would be taken: an absent model that can be loaded on demand is ready. Raises NoModel."""
        ...

    async def describe(self, model: str, version: str = "") -> Description:
        """Raises NoModel."""
        ...

    def statistics(self, model: str = "", version: str = "") -> Mapping[tuple[str, str], Statistics]:
        """By (model, version); of all unless named. Raises NoModel."""
        ...

    async def load(self, model: str) -> None:
        """Into memory, or again from disk: a new version takes over when it is ready, a bad one leaves the old one serving.

        Raises NoModel, Refused where it can't fit, InvalidInput for a file that can't be loaded.
        """
        ...

    async def unload(self, model: str) -> None:
        """Out of memory, after what was taken is answered; it isn't loaded again until it is asked to be. Raises NoModel."""
        ...
