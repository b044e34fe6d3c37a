"""What stands around an HTTP exchange: the headers that count, bodies with a limit, and how a reply is sent. ASGI 3, no framework.

A framework's request and response objects would cost about a third of the server's time for a small request.
"""

from __future__ import annotations

import ipaddress
import math
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import msgspec

from edgewise.errors import InvalidInput
from edgewise.serve.problems import Forbidden, TooLarge, Unsupported, told

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = b"application/json"
OCTETS = b"application/octet-stream"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Gone(Exception):
    """The client went away before its request was whole."""


class Head:
    """The headers that the server reads, as text; "" for absent ones. The last of several wins, but for `host`, of which there is one."""

    __slots__ = ("api_key", "authorization", "encoding", "host", "inference", "kind", "length", "origin")

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.api_key = self.authorization = self.encoding = self.host = self.inference = self.kind = self.length = self.origin = ""
        for name, value in headers:
            slot = _SLOTS.get(name)
            if slot is not None:
                if name == b"host" and self.host:
                    raise InvalidInput("two Host headers")
                setattr(self, slot, value.decode("latin-1"))


_SLOTS = {
    b"x-api-key": "api_key",
    b"authorization": "authorization",
    b"content-encoding": "encoding",
    b"host": "host",
    b"inference-header-content-length": "inference",
    b"content-type": "kind",
    b"content-length": "length",
    b"origin": "origin",
}


class Reply(NamedTuple):
    """parts: the body's pieces. headers: besides content-type and content-length."""

    status: int
    parts: Sequence[bytes | memoryview] = ()
    kind: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()


def json_reply(data: Any, status: int = 200) -> Reply:
    return Reply(status, (msgspec.json.encode(data),))


def problem(error: BaseException) -> Reply:
    """The protocol's shape of an error: {"error": "…"}, with its status, and Retry-After where asking again may help."""
    found = told(error)
    headers: list[tuple[bytes, bytes]] = []
    if found.retry_after_s:
        headers.append((b"retry-after", str(max(1, math.ceil(found.retry_after_s))).encode()))
    if found.http == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if found.http == 413:
        headers.append((b"connection", b"close"))  # the rest of it isn't read
    return Reply(found.http, (msgspec.json.encode({"error": found.message}),), JSON, headers)


async def send_reply(send: Send, reply: Reply) -> None:
    parts = reply.parts
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    headers = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(body)), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive: Receive, head: Head, most: int) -> bytes:
    """All of it, decoded. Raises TooLarge, Unsupported for an encoding, Gone."""
    length = head.length
    if length and (not length.isdecimal() or int(length[:20]) > most):
        raise TooLarge(f"a body of {length[:20]} bytes: at most {most} are taken")
    pieces: list[bytes] = []
    total, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        pieces.append(message.get("body", b""))
        total += len(pieces[-1])
        more = message.get("more_body", False)
        if total > most:
            raise TooLarge(f"a body of over {most} bytes: at most that many are taken")
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return _decoded(body, head.encoding, most) if head.encoding else body


def _decoded(body: bytes, encoding: str, most: int) -> bytes:
    """A compressed body says nothing of its size: decoding ends at the limit."""
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise Unsupported(f"content-encoding {encoding[:40]!r}: send gzip, deflate, or the body as it is")
    decoder = zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    try:
        found = decoder.decompress(body, most + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is no {encoding}: {error}") from error
    if len(found) > most:
        raise TooLarge(f"the body comes to over {most} bytes: at most that many are taken")
    if not decoder.eof or decoder.unused_data:
        raise InvalidInput(f"the body is no {encoding}: it ends too early, or goes on behind its end")
    return found


def check_host(host: str, allowed: frozenset[str]) -> None:
    """That a page elsewhere, whose name was bound anew to this address, can't ask here (DNS rebinding). Raises Forbidden.

    Such a page always names itself: an address in the place of a name, or no Host at all, comes from someone who knows where he is.
    """
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name.lower() in allowed or not host:
        return
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        raise Forbidden(f"Host {host[:80]!r} isn't this server's; name it in serve.toml: hosts = [{name[:80]!r}]") from None


def check_origin(origin: str, host: str) -> None:
    """That no page of another site has a browser ask here: it could neither read the answer nor should it load models (CSRF).

    Browsers name the page's origin in every POST (Fetch standard, 4.6.7); "null" is one that won't say. Others send none. Raises Forbidden.
    """
    if origin.partition("://")[2].lower() != host.lower():
        raise Forbidden(f"a page of {origin[:80]!r} asks, which isn't this server's; ask from a program, or from a page that it serves")
