"""Damaged inference requests with binary tensors, as hypothesis draws them: for whatever reads them, in a test or behind a socket.

Needs hypothesis.
"""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=4), max_leaves=12
)
numbers = st.integers(-(2**70), 2**70) | st.integers(-2, 300) | st.floats() | st.text(max_size=5) | st.booleans() | st.none()
parameters = st.fixed_dictionaries(
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
tensors = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "y"]) | values},
    optional={
        "datatype": st.sampled_from(["FP32", "FP32", "FP64", "BYTES", "INT64", "BOOL", "BF16", "FP16", "nothing"]) | values,
        "shape": st.lists(st.integers(-2, 9) | numbers, max_size=4) | values,
        "data": values,
        "parameters": parameters | values,
    },
)
several = st.lists(tensors, max_size=3) | values
# A request's JSON, of the right keys and hardly ever of the right values.
bodies = st.fixed_dictionaries({}, optional={"inputs": several, "outputs": several, "id": values, "parameters": parameters | values})
# What a header may say that is to be a length, and is none.
lengths = st.sampled_from([b"-1", b"0", b"1e3", b"7", b"0x10", b"9" * 20, b"", b" ", b"\xd9\xa3", b"\xb3", b"1, 2", b"+5", b"1_0"])
headers = st.sampled_from(
    [
        b"content-type: application/json", b"content-type: \xff", b"content-encoding: gzip", b"content-encoding: deflate, gzip",
        b"content-encoding: br", b"accept-encoding: gzip", b"expect: 100-continue", b"triton-request-id: 1", b"host: localhost",
        b"inference-header-content-length: 3", b"x: " + b"y" * 3000,
    ]
)  # fmt: skip


@st.composite
def right(draw: Any, rows: int, width: int) -> tuple[bytes, bytes]:
    """A request that is one, for x (rows, width) float32: its JSON, and its tensors. rows: at most."""
    array = np.ones((draw(st.integers(0, rows)), width), np.float32)
    told = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes}}
    return json.dumps({"inputs": [told], "parameters": {"binary_data_output": draw(st.booleans())}}).encode(), array.tobytes()


@st.composite
def damaged(draw: Any, data: bytes) -> bytes:
    """With up to four places changed, left out or added to."""
    whole = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(whole)))
        match draw(st.sampled_from(["change", "cut", "add"])):
            case "change" if place < len(whole):
                whole[place] = draw(st.integers(0, 255))
            case "cut":
                del whole[place : place + draw(st.integers(1, 40))]
            case _:
                whole[place:place] = draw(st.binary(max_size=8))
    return bytes(whole)


@st.composite
def requests(draw: Any, model: str, width: int) -> bytes:
    """One HTTP request to the last byte. Its Content-Length is right, so that the next one on the connection isn't its victim."""
    length: bytes | None
    if draw(st.booleans()):
        head, raw = json.dumps(draw(bodies)).encode(), draw(st.binary(max_size=64))
        length = draw(st.none() | lengths | st.just(str(len(head)).encode()))
    else:
        head, raw = draw(right(3, width))
        length = draw(st.just(str(len(head)).encode()) | st.integers(0, 2 * len(head)).map(lambda n: str(n).encode()) | lengths)
    data = draw(damaged(head + raw))
    path = draw(st.sampled_from([f"/v2/models/{model}/infer", f"/v2/models/{model}/infer", f"/v2/models/{model}/versions/1/infer"]))
    lines = [f"POST {path} HTTP/1.1".encode(), b"host: localhost", f"content-length: {len(data)}".encode()]
    if length is not None:
        lines.append(b"inference-header-content-length: " + length)
    lines += draw(st.lists(headers, max_size=2))
    return b"\r\n".join(lines) + b"\r\n\r\n" + data
