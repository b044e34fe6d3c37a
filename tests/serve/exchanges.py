"""HTTP by hand, for tests of the server: an ASGI application asked without a network, and requests on a plain socket."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass, field
from typing import Any

import msgspec

INFER = "/v2/models/echo/infer"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [7]}]}).encode()


def post(path: str, body: bytes = BODY, **headers: str) -> bytes:
    """A whole POST of HTTP/1.1, with these headers besides."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def asked(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Status and body of one exchange; the connection stays open."""
    connection.sendall(request)
    return answered(connection)


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next reply; 0 and what came, where the connection ends before it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return 0, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), body


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@dataclass
class Replied:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> str:
        """Of the protocol's shape, and nothing besides."""
        told = self.json
        assert list(told) == ["error"] and isinstance(told["error"], str)
        return str(told["error"])


@dataclass
class Client:
    """Asks an ASGI application as a server would. pieces: how a body arrives."""

    app: Any
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None, pieces: int = 1) -> Replied:
        return asyncio.run(self.asked(method, path, body, headers, pieces))

    def get(self, path: str, **headers: str) -> Replied:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = b"", **headers: str) -> Replied:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    async def asked(self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None, pieces: int = 1) -> Replied:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        given = {"host": "localhost", "content-length": str(len(data)), **self.headers, **(headers or {})}
        target, _, query = path.partition("?")
        scope = {
            "type": "http", "method": method, "path": target, "raw_path": target.encode(), "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()], "client": ("10.0.0.1", 1),
        }  # fmt: skip
        step = max(1, -(-len(data) // pieces))
        parts = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if not parts:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(self.app(scope, receive, send), 10)
        start, *rest = sent
        return Replied(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(bytes(each["body"]) for each in rest),
        )
