"""Damaged requests: every one is answered, with a 4xx, and never by a fault of the server's or a hang."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from edgewise.serve.access import Gate
from edgewise.serve.rest import Rest, Served
from edgewise.serve.shared_memory import SharedMemory
from edgewise.testing import damaged
from edgewise.testing.hosts import FakeHost, identity

from .exchanges import Client, Replied

INFER = "/v2/models/echo/infer"
CLIENT = Client(Rest(Served(FakeHost({"echo": identity()}), Gate(None), SharedMemory(enabled=True), body_bytes=100_000)))


def checked(found: Replied) -> None:
    assert found.status == 200 or (400 <= found.status < 500 and found.error), (found.status, found.body)


@settings(max_examples=150)
@given(damaged.bodies, st.binary(max_size=64), st.none() | st.just(b"right") | damaged.lengths)
def test_strange_requests(body: Any, raw: bytes, length: bytes | None) -> None:
    head = json.dumps(body).encode()
    right = str(len(head)).encode() if length == b"right" else length
    headers = {} if right is None else {"inference-header-content-length": right.decode(errors="replace")}
    checked(CLIENT.ask("POST", INFER, head + raw, headers))


@settings(max_examples=150)
@given(st.data())
def test_damaged_requests(data: st.DataObject) -> None:
    """A right request with bytes changed, left out or added, in its JSON, its contents or its header."""
    head, raw = data.draw(damaged.right(1, data.draw(st.integers(0, 9))))
    whole = data.draw(damaged.damaged(head + raw))
    length = len(head) + data.draw(st.sampled_from([0, 0, 0, 1, -1, 8, -8, 1000]))
    checked(CLIENT.ask("POST", INFER, whole, {"inference-header-content-length": str(length)}, pieces=data.draw(st.integers(1, 3))))


@settings(max_examples=100)
@given(st.text(alphabet="/%.v2modelsinferABC0\x00é?", max_size=40), st.sampled_from(["GET", "POST", "PUT", "X"]), st.binary(max_size=20))
def test_strange_addresses(path: str, method: str, raw: bytes) -> None:
    quoted = ("/" + path).encode("utf-8").decode("latin-1")
    checked(CLIENT.ask(method, quoted, raw))


def test_deep_json_ends() -> None:
    for deep in (b"[" * 50_000, b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":' + b"[" * 40_000 + b"]" * 40_000 + b"}]}"):
        checked(CLIENT.ask("POST", INFER, deep))
    for lenient in (b"[" * 40_000 + b"NaN", b'{"inputs":NaN}', b'{"inputs":[NaN]}'):
        checked(CLIENT.ask("POST", INFER, lenient))
