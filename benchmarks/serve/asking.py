"""One request after the other over one connection: a raw socket for REST, a bare stub for gRPC. The same for every server that is asked.

The request is made once, as bytes; answers are looked into only when they are checked: what a client library costs is in no figure.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import numpy as np
from rest import exchange

from edgewise.serve.grpc.descriptors import message

BINARY = "REST binary"
FORMS = (BINARY, "REST JSON", "gRPC raw", "gRPC typed")
TIMEOUT_S = 60.0
MODEL, INPUT, OUTPUT = "echo", "x", "y"
_CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Client(Protocol):
    """ask: one request and its whole answer. answer: the same, as an array. Both raise RuntimeError, with what the server said."""

    def ask(self) -> object: ...

    def answer(self) -> np.ndarray: ...

    def close(self) -> None: ...


class Rest:
    """path, body, headers: of every request. read: an answer's head and body as the output."""

    def __init__(self, port: int, path: str, body: bytes, headers: list[str], read: Callable[[bytes, bytes], np.ndarray]) -> None:
        lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {len(body)}", *headers]
        self._data, self._read = "\r\n".join(lines).encode() + b"\r\n\r\n" + body, read
        self._buffer = memoryview(bytearray(4 << 20))
        self._port = port
        self._connect()

    def _connect(self) -> None:
        self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_S)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self) -> int:
        try:
            return exchange(self._connection, self._data, self._buffer)
        except ConnectionError:  # some servers close a connection while others have their turn
            self._connection.close()
            self._connect()
            return exchange(self._connection, self._data, self._buffer)

    def answer(self) -> np.ndarray:
        length = self.ask()
        end = bytes(self._buffer[:4096]).find(b"\r\n\r\n")
        return self._read(bytes(self._buffer[:end]), bytes(self._buffer[end + 4 : end + 4 + length]))

    def close(self) -> None:
        self._connection.close()


class Grpc:
    def __init__(self, port: int, request: bytes) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", _CHANNEL)
        self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self._request = request

    def ask(self) -> bytes:
        try:
            return self._call(self._request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise RuntimeError(f"{error.code().name}: {error.details()}") from None

    def answer(self) -> np.ndarray:
        reply = message("ModelInferResponse").FromString(self.ask())
        if reply.raw_output_contents:
            return np.frombuffer(reply.raw_output_contents[0], np.float32)
        return np.asarray(reply.outputs[0].contents.fp32_contents, np.float32)

    def close(self) -> None:
        self._channel.close()


def sample(floats: int) -> np.ndarray:
    """(1, floats) float32. The shortest digits that give each float again are what JSON carries, as most libraries write them."""
    return np.random.default_rng(0).standard_normal((1, floats)).astype(np.float32)


def digits(array: np.ndarray) -> list[float]:
    return [float(str(value)) for value in array.ravel()]


def client(form: str, array: np.ndarray, rest_port: int, grpc_port: int, model: str = MODEL) -> Client:
    """Of the Open Inference Protocol v2, in one of FORMS. binary: output asked for in binary, too."""
    if form.startswith("gRPC"):
        return Grpc(grpc_port, _message(array, model, raw=form == "gRPC raw"))
    told: dict[str, Any] = {"name": INPUT, "datatype": "FP32", "shape": array.shape}
    path = f"/v2/models/{model}/infer"
    if form == "REST JSON":
        body = json.dumps({"inputs": [told | {"data": digits(array)}]}).encode()
        return Rest(rest_port, path, body, ["content-type: application/json"], _read)
    told["parameters"] = {"binary_data_size": array.nbytes}
    head = json.dumps({"inputs": [told], "parameters": {"binary_data_output": True}}).encode()
    headers = ["content-type: application/octet-stream", f"inference-header-content-length: {len(head)}"]
    return Rest(rest_port, path, head + array.tobytes(), headers, _read)


def _message(array: np.ndarray, model: str, *, raw: bool) -> bytes:
    request = message("ModelInferRequest")(model_name=model)
    tensor = request.inputs.add(name=INPUT, datatype="FP32", shape=array.shape)
    if raw:
        request.raw_input_contents.append(array.tobytes())
    else:
        tensor.contents.fp32_contents.extend(array.ravel().tolist())
    return request.SerializeToString()


def _read(head: bytes, body: bytes) -> np.ndarray:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"inference-header-content-length":
            return np.frombuffer(body[int(value) :], np.float32)
    output = json.loads(body)["outputs"][0]
    if "data" not in output:
        raise RuntimeError(f"the answer holds no data: {str(output)[:200]}")
    return np.asarray(output["data"], np.float32).ravel()


def check(one: Client, array: np.ndarray) -> None:
    """Raises RuntimeError where what comes back isn't what was sent, bit by bit."""
    found = one.answer()
    if found.tobytes() != array.tobytes():
        raise RuntimeError(f"the answer isn't what was sent: {found.size} floats, first {found.ravel()[:3]}, sent {array.ravel()[:3]}")


class Asks(Protocol):
    def ask(self) -> object: ...


def asked(one: Asks, seconds: float, least: int = 3) -> list[float]:
    """Seconds that each request took: one after the other for so long, and so many at least."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    began = time.perf_counter()
    while began < until or len(times) < least:
        one.ask()
        now = time.perf_counter()
        times.append(now - began)
        began = now
    return times


def median_us(times: list[float]) -> float:
    return statistics.median(times) * 1e6
