"""Damaged requests with binary tensors, as hypothesis draws them, and a client that sends them as they are."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import hypothesis.strategies as st
import numpy as np

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=4), max_leaves=8
)
numbers = st.integers(-(2**70), 2**70) | st.integers(-2, 300) | st.floats() | st.text(max_size=5) | st.booleans() | st.none()
own = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": numbers,
        "binary_data": values,
        "classification": numbers,
        "shared_memory_region": values,
        "shared_memory_byte_size": numbers,
        "shared_memory_offset": numbers,
        "priority": numbers,
        "timeout": numbers,
        "binary_data_output": values,
    },
)
tensor = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "y"]) | values},
    optional={
        "datatype": st.sampled_from(["FP32", "FP32", "FP64", "BYTES", "INT64", "BOOL", "BF16", "FP16"]) | values,
        "shape": st.lists(st.integers(-2, 300) | numbers, max_size=4) | values,
        "data": values,
        "parameters": own | values,
    },
)
several = st.lists(tensor, max_size=3) | values
whole = st.fixed_dictionaries({}, optional={"inputs": several, "outputs": several, "id": values, "parameters": own | values})
lengths = st.sampled_from([b"-1", b"0", b"1e3", b"7", b"0x10", b"99999999999999999999", b"", b" ", b"\xd9\xa3", b"1, 2", b"+5", b"1_0"])
heads = st.sampled_from(
    [
        b"content-type: application/json", b"content-type: \xff", b"content-encoding: gzip", b"content-encoding: deflate, gzip",
        b"content-encoding: br", b"accept-encoding: gzip", b"expect: 100-continue", b"triton-request-id: 1", b"host: localhost",
        b"inference-header-content-length: 3", b"x: " + b"y" * 3000,
    ]
)  # fmt: skip


@st.composite
def requests(draw: Any, model: str, width: int) -> bytes:
    """One request, to the last byte; its Content-Length is right, so that the next one on the connection isn't its victim."""
    header: bytes | None
    if draw(st.booleans()):
        head, raw = json.dumps(draw(whole)).encode(), draw(st.binary(max_size=64))
        header = draw(st.none() | lengths | st.just(str(len(head)).encode()))
    else:
        rows = draw(st.integers(0, 3))
        array = np.ones((rows, width), np.float32)
        told = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes}}
        head, raw = json.dumps({"inputs": [told], "parameters": {"binary_data_output": draw(st.booleans())}}).encode(), array.tobytes()
        header = draw(st.just(str(len(head)).encode()) | st.integers(0, 2 * len(head)).map(lambda n: str(n).encode()) | lengths)
    data = bytearray(head + raw)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "add"])):
            case "change" if place < len(data):
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place : place + draw(st.integers(1, 40))]
            case "add":
                data[place:place] = draw(st.binary(max_size=8))
    path = draw(st.sampled_from([f"/v2/models/{model}/infer", f"/v2/models/{model}/infer", f"/v2/models/{model}/versions/1/infer"]))
    lines = [f"POST {path} HTTP/1.1".encode(), b"host: localhost", f"content-length: {len(data)}".encode()]
    if header is not None:
        lines.append(b"inference-header-content-length: " + header)
    lines += draw(st.lists(heads, max_size=2))
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(data)


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
