"""What went wrong with a request, and how each protocol says so.

EdgewiseError
├── Unauthorized       no key, or none that is known
├── Forbidden          a key whose scopes don't hold this, or a Host that isn't this server's
├── NotFound           no such address
│   └── Absent         no such region of shared memory
├── WrongMethod        an address that isn't asked that way
├── TooLarge           a body or a tensor over the limit
├── TooMany            a client over its rate or concurrency; retry_after_s
└── Unsupported        a content type that isn't taken
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from edgewise.errors import EdgewiseError, InvalidInput, InvalidModel
from edgewise.host import Late, NoModel, Refused


class Unauthorized(EdgewiseError):
    pass


class Forbidden(EdgewiseError):
    pass


class NotFound(EdgewiseError):
    pass


class Absent(NotFound):
    pass


class WrongMethod(EdgewiseError):
    pass


class TooLarge(EdgewiseError):
    pass


class Unsupported(EdgewiseError):
    pass


class TooMany(EdgewiseError):
    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def closing() -> Refused:
    """What is told to those whom the end of the server doesn't wait for."""
    return Refused("the server is closing", 5.0)


class Told(NamedTuple):
    """How an error is told. http: status. grpc: the name of a grpc.StatusCode. retry_after_s: when asking again may help; 0 for never."""

    http: int
    grpc: str
    message: str
    retry_after_s: float = 0.0


_KINDS: tuple[tuple[type[BaseException], int, str], ...] = (
    (NoModel, 404, "NOT_FOUND"),
    (Late, 504, "DEADLINE_EXCEEDED"),
    (Refused, 503, "UNAVAILABLE"),
    (TooMany, 429, "RESOURCE_EXHAUSTED"),
    (Unauthorized, 401, "UNAUTHENTICATED"),
    (Forbidden, 403, "PERMISSION_DENIED"),
    (Absent, 404, "NOT_FOUND"),
    (NotFound, 404, "UNIMPLEMENTED"),
    (WrongMethod, 405, "UNIMPLEMENTED"),
    (TooLarge, 413, "RESOURCE_EXHAUSTED"),
    (Unsupported, 415, "INVALID_ARGUMENT"),
    # The model's fault, whatever was asked: it gave what its own package rules out.
    (InvalidModel, 500, "INTERNAL"),
    (InvalidInput, 400, "INVALID_ARGUMENT"),
    (asyncio.CancelledError, 499, "CANCELLED"),
)


def told(error: BaseException) -> Told:
    """How to tell `error` to whoever asked. What isn't an EdgewiseError is a fault of ours: its words stay in the log."""
    for kind, http, grpc in _KINDS:
        if isinstance(error, kind):
            return Told(http, grpc, str(error) or "cancelled", getattr(error, "retry_after_s", 0.0))
    if isinstance(error, EdgewiseError):
        return Told(500, "INTERNAL", str(error))
    return Told(500, "INTERNAL", "the server failed at this; its log says how")
