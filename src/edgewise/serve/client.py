"""A v2 server from the other end: what a model there takes, and a Runner that asks it over HTTP, on one connection that stays open.

Any server of the Open Inference Protocol will do. Tensors go raw where it says that it takes them so ("binary_tensor_data"), else as JSON.
"""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np

from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.host import Late, NoModel, Refused
from edgewise.serve import tensors
from edgewise.types import Inputs, Outputs, Signature, TensorSpec

TIMEOUT_S = 60.0
KEY_VARIABLE = "EDGEWISE_KEY"
_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Address:
    """Of a model on a server. version: "" for the one that it serves. key: for servers that ask for one. authority: a PEM file, for TLS."""

    url: str
    model: str
    version: str = ""
    key: str = ""
    authority: Path | None = None

    @property
    def path(self) -> str:
        at = urlsplit(self.url).path.rstrip("/")
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"{at}/v2/models/{quote(self.model, safe='')}{version}"

    def connect(self) -> http.client.HTTPConnection:
        """Raises InvalidInput for what is no address of a server."""
        parts = urlsplit(self.url)
        try:
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError
            port = parts.port
        except ValueError:
            raise InvalidInput(f"{self.url}: give where the server listens, as http://127.0.0.1:8080") from None
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
        try:
            trusted = ssl.create_default_context(cafile=self.authority)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{self.authority}: {error}; give the certificate of who signed the server's, as PEM") from error
        return http.client.HTTPSConnection(parts.hostname, port, timeout=TIMEOUT_S, context=trusted)


class Remote:
    """A model on a server, as a Runner. One caller at a time; several `Remote`s are several connections."""

    def __init__(self, address: Address) -> None:
        """Asks what the model takes. Raises NoModel, InvalidInput, MeasurementFailed where nobody answers."""
        self._address = address
        self._connection = address.connect()
        self._headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        self._last: tuple[Inputs, bytes, dict[str, str]] | None = None
        try:
            server = self._json("GET", f"{urlsplit(address.url).path.rstrip('/')}/v2")
            self.signature = signature_of(self._json("GET", address.path))
        except BaseException:
            self.close()
            raise
        self.binary = not {"binary_tensor_data", "binary_data"}.isdisjoint(server.get("extensions") or ())
        self.server = " ".join(filter(None, (server.get("name"), server.get("version"))))

    def run(self, inputs: Inputs) -> Outputs:
        """Raises Refused, Late as the server says; InvalidInput for what it doesn't take, MeasurementFailed where it fails."""
        if self._last is None or self._last[0] is not inputs:
            self._last = (inputs, *self._encoded(inputs))
        _, body, headers = self._last
        reply, data = self._asked("POST", f"{self._address.path}/infer", body, headers)
        return self._decoded(data, reply.headers.get(_LENGTH))

    def close(self) -> None:
        self._connection.close()

    def _encoded(self, inputs: Inputs) -> tuple[bytes, dict[str, str]]:
        described, raw = [], []
        for name, array in inputs.items():
            one: dict[str, Any] = {"name": name, "datatype": tensors.datatype_of(array.dtype), "shape": array.shape}
            if self.binary:
                raw.append(bytes(tensors.to_bytes(array)))
                one["parameters"] = {"binary_data_size": len(raw[-1])}
            else:
                one["data"] = tensors.to_json(array)
            described.append(one)
        whole: dict[str, Any] = {"inputs": described}
        if self.binary:
            whole["parameters"] = {"binary_data_output": True}
        head = msgspec.json.encode(whole)
        kind = {"Content-Type": "application/octet-stream" if self.binary else "application/json", **self._headers}
        return b"".join((head, *raw)), kind | ({_LENGTH: str(len(head))} if self.binary else {})

    def _decoded(self, data: bytes, header: str | None) -> Outputs:
        head = int(header) if header and header.isdigit() else len(data)
        view = memoryview(data)
        found, at = {}, head
        try:
            for one in msgspec.json.decode(view[:head])["outputs"]:
                size = (one.get("parameters") or {}).get("binary_data_size")
                if size is None:
                    found[one["name"]] = tensors.from_json(one["data"], one["datatype"], one["shape"])
                else:
                    found[one["name"]] = tensors.from_bytes(view[at : at + size], one["datatype"], one["shape"])
                    at += size
        except (msgspec.DecodeError, KeyError, TypeError, InvalidInput) as error:
            raise MeasurementFailed(f"{self._address.url}: the answer is none of the protocol's: {error!r}") from error
        return found

    def _json(self, method: str, path: str) -> dict[str, Any]:
        _, data = self._asked(method, path, b"", self._headers)
        try:
            return msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise MeasurementFailed(f"{self._address.url}{path} answers no JSON: is this a server of the v2 protocol?") from error

    def _asked(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        try:
            try:
                reply, data = self._exchanged(method, path, body, headers)
            except (http.client.BadStatusLine, ConnectionResetError, BrokenPipeError):
                # An idle connection that the server closed meanwhile: once more, on a new one.
                self._connection.close()
                reply, data = self._exchanged(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise MeasurementFailed(f"{self._address.url}: {error or type(error).__name__}; is the server there?") from error
        if reply.status != 200:
            raise _problem(reply, data, self._address)
        return reply, data

    def _exchanged(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request(method, path, body or None, headers)
        reply = self._connection.getresponse()
        return reply, reply.read()


def signature_of(metadata: dict[str, Any]) -> Signature:
    """The signature in a model's metadata. An axis of -1 has a name: the first one "batch", where every tensor leads with one.

    Raises MeasurementFailed where it is none.
    """
    try:
        told = {kind: [(one["name"], one["datatype"], list(one["shape"])) for one in metadata[kind]] for kind in ("inputs", "outputs")}
        leads = all(shape[:1] == [-1] for tensors_of in told.values() for _, _, shape in tensors_of)
        made = {kind: tuple(_spec(*one, leads) for one in tensors_of) for kind, tensors_of in told.items()}
    except (KeyError, TypeError) as error:
        raise MeasurementFailed(f"the server's metadata is none of the protocol's: {error!r} is missing or wrong") from error
    return Signature(made["inputs"], made["outputs"])


def _spec(name: str, datatype: str, shape: Sequence[int], batched: bool) -> TensorSpec:
    axes = tuple(axis if axis >= 0 else "batch" if batched and place == 0 else f"{name}.{place}" for place, axis in enumerate(shape))
    return TensorSpec(name, axes, str(np.dtype(tensors.dtype_of(datatype))))


def _problem(reply: http.client.HTTPResponse, data: bytes, address: Address) -> Exception:
    try:
        said = msgspec.json.decode(data, type=dict[str, Any]).get("error") or ""
    except (msgspec.DecodeError, msgspec.ValidationError):
        said = data[:200].decode(errors="replace").strip()
    words = f"{address.url} answered {reply.status}" + (f": {said}" if said else "")
    match reply.status:
        case 401 | 403:
            return InvalidInput(f"{words}; give a key in the environment variable {KEY_VARIABLE}")
        case 404:
            return NoModel(words)
        case 429 | 503:
            after = reply.headers.get("Retry-After") or ""
            return Refused(words, float(after) if after.isdecimal() else 1.0)
        case 408 | 504:
            return Late(words)
        case status if status < 500:
            return InvalidInput(words)
    return MeasurementFailed(words)


def key_here() -> str:
    """From the environment: a key among a command's words could be read by everyone on the machine."""
    return os.environ.get(KEY_VARIABLE, "")
