"""Damaged requests: every one is answered, with a 4xx, and never by a fault of the server's or a hang."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from edgewise.serve.access import Gate
from edgewise.serve.rest import Rest, Served
from edgewise.serve.shared_memory import SharedMemory
from edgewise.testing.hosts import FakeHost, identity

from .exchanges import Client, Replied

INFER = "/v2/models/echo/infer"
CLIENT = Client(Rest(Served(FakeHost({"echo": identity()}), Gate(None), SharedMemory(enabled=True), body_bytes=100_000)))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=4), max_leaves=12
)
numbers = st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.booleans() | st.none()
own = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": numbers | st.integers(0, 64),
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
        "datatype": st.sampled_from(["FP32", "BYTES", "INT64", "BOOL", "BF16", "FP16", "nothing"]) | values,
        "shape": st.lists(st.integers(-2, 9) | numbers, max_size=4) | values,
        "data": values,
        "parameters": own | values,
    },
)
several = st.lists(tensor, max_size=3) | values
body = st.fixed_dictionaries({}, optional={"inputs": several, "outputs": several, "id": values, "parameters": own | values})


def checked(found: Replied) -> None:
    assert found.status == 200 or (400 <= found.status < 500 and found.error), (found.status, found.body)


@settings(max_examples=150)
@given(body, st.binary(max_size=64), st.sampled_from([None, "right", "0", "-1", "1e3", "99999999999999999999", "٣", "7"]))
def test_strange_requests(given_body: Any, raw: bytes, header: str | None) -> None:
    head = json.dumps(given_body).encode()
    headers = {} if header is None else {"inference-header-content-length": str(len(head)) if header == "right" else header}
    try:
        headers = {name: value.encode("latin-1").decode() for name, value in headers.items()}
    except UnicodeEncodeError:
        headers = {"inference-header-content-length": "\xb3"}
    checked(CLIENT.ask("POST", INFER, head + raw, headers))


@settings(max_examples=150)
@given(st.data())
def test_damaged_requests(data: st.DataObject) -> None:
    """A right request with bytes changed, left out or added, in its JSON, its contents or its header."""
    array = np.arange(data.draw(st.integers(0, 9)), dtype=np.float32)[None]
    told = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [told], "parameters": {"binary_data_output": data.draw(st.booleans())}}).encode()
    whole = bytearray(head + array.tobytes())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(whole)))
        match data.draw(st.sampled_from(["change", "cut", "add"])):
            case "change" if place < len(whole):
                whole[place] = data.draw(st.integers(0, 255))
            case "cut":
                del whole[place : place + data.draw(st.integers(1, 8))]
            case _:
                whole[place:place] = data.draw(st.binary(max_size=8))
    length = len(head) + data.draw(st.sampled_from([0, 0, 0, 1, -1, 8, -8, 1000]))
    checked(CLIENT.ask("POST", INFER, bytes(whole), {"inference-header-content-length": str(length)}, pieces=data.draw(st.integers(1, 3))))


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
