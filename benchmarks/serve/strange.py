"""A client that sends damaged requests as they are (`edgewise.testing.damaged` draws them), and what may be answered."""

from __future__ import annotations

import re
import socket


def proper(status: str, body: bytes) -> bool:
    """200, or a 4xx that says why. What no HTTP parser takes may be told so in plain words."""
    if status == "200":
        return True
    return status.startswith("4") and bool(body)


class Asker:
    """One connection, opened again when the server closed it."""

    def __init__(self, port: int, seconds: float = 10.0) -> None:
        self._port, self._seconds = port, seconds
        self._socket: socket.socket | None = None

    def ask(self, data: bytes) -> tuple[str, bytes]:
        """Status and body; "hung" and "closed" where there is no whole answer. On a connection that was used, once more on a new one."""
        for _ in range(2):
            used = self._socket is not None
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), self._seconds)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._socket.sendall(data)
                found = self._answer(self._socket)
            except TimeoutError:
                self.close()
                return "hung", b""
            except OSError:
                found = None
            if found is not None:
                return found
            self.close()
            if not used:
                break
        return "closed", b""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _answer(self, connection: socket.socket) -> tuple[str, bytes] | None:
        have = b""
        while True:
            while b"\r\n\r\n" not in have:
                part = connection.recv(65_536)
                if not part:
                    return None
                have += part
            head, _, rest = have.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 100"):
                break
            have = rest
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        while length is None or len(rest) < int(length[1]):
            part = connection.recv(65_536)
            if not part:
                break
            rest += part
        if length is None or re.search(rb"(?i)\r\nconnection: *close", head):
            self.close()
        if length is not None and len(rest) < int(length[1]):
            return None
        return head[9:12].decode(), rest
