"""Somebody on the wire between a client and a worker: what the client sent is recorded, and can be played again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


@dataclass
class Tap:
    """port: to connect to, on the loopback, in place of the tapped one. heard: what was sent to the device, piece by piece."""

    port: int
    heard: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def tap(host: str, port: int) -> Iterator[Tap]:
    """Connections go through to host:port as long as the context lasts."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = Tap(listening.getsockname()[1])

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    far = socket.create_connection((host, port))
                    for ends in ((near, far, found.heard), (far, near, None)):
                        threading.Thread(target=_pump, args=ends, daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield found


def replayed(pieces: Sequence[bytes], host: str, port: int, seconds: float = 5.0) -> bytes:
    """What comes back when they are sent to host:port as they are."""
    import socket

    answer = b""
    with socket.create_connection((host, port), timeout=seconds) as link, contextlib.suppress(OSError):
        for piece in pieces:
            link.sendall(piece)
        link.shutdown(socket.SHUT_WR)
        while data := link.recv(65536):
            answer += data
    return answer


def _pump(source: socket.socket, target: socket.socket, keep: list[bytes] | None) -> None:
    import socket

    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if keep is not None:
                keep.append(data)
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
