"""What is coded in a package: weights by `edgewise.coding`, tensor by tensor, and the graph by LZMA. Lossless, and bounded when read."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal

import numpy as np

from edgewise import coding
from edgewise.coding.bits import pack, unpack
from edgewise.errors import InvalidInput
from edgewise.package.manifest import BITS

Coders = Literal["fast", "all", "none"]

# Up to so many elements in all, adaptive coders, which decode some ten million elements a second, don't make loading wait.
ADAPTIVE_ELEMENTS = 1 << 19
# In models of more, what coding a tensor has to save for "fast": a call takes some 0.1 ms, a hundred short tensors a tenth of a cold start.
_WORTH_A_CALL = 512

_NATIVE = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
_PARTS = {"complex64": "float32", "complex128": "float64"}
_SIGNED = ("int4", "int2")
# Dictionary and model are no part of the data, so that it can't ask for more memory than this.
_DICTIONARY = 1 << 20
# What a member's own line about it takes, and members are aligned to as many bytes anyway.
_WORTHWHILE = 64


def chosen(coders: Coders, elements: int) -> Collection[str]:
    """Names of the coders that `coders` stands for in a model of so many weights; none for "none"."""
    if coders == "none":
        return ()
    if coders == "all":
        return coding.ALL
    if coders != "fast":
        raise InvalidInput(f"coders={coders!r}: give 'fast', 'all' or 'none'")
    return (*coding.FAST, "adaptive") if elements <= ADAPTIVE_ELEMENTS else coding.FAST


def least_saved(coders: Coders, elements: int) -> int:
    """Bytes that a tensor of a model of so many weights has to lose to be kept coded."""
    return _WORTH_A_CALL if coders == "fast" and elements > ADAPTIVE_ELEMENTS else 1


def encode_tensor(data: bytes, dtype: str, shape: tuple[int, ...], coders: Collection[str]) -> bytes | None:
    """`data`, as ONNX's raw_data has it, in fewer bytes; None where coding saves nothing."""
    if not coders or not math.prod(shape):
        return None
    if raw(values := elements(data, dtype, shape), dtype) != data:
        return None  # the last byte's unused bits say something
    blob = coding.encode(values, coders=coders)
    return blob if len(blob) < len(data) else None


def decode_tensor(data: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> memoryview:
    """What `encode_tensor` was given. Allocates in proportion to dtype and shape, whatever `data` claims. Raises InvalidInput."""
    kind, laid = layout(dtype, shape)
    return raw(coding.decode(data, laid, kind), dtype)


def decode_tensor_into(data: bytes | memoryview, dtype: str, shape: tuple[int, ...], out: memoryview) -> None:
    """`decode_tensor` to its place. out: writable, of `stored_bytes(dtype, shape)`. Raises InvalidInput."""
    kind, laid = layout(dtype, shape)
    if BITS[dtype] >= 8:
        coding.decode_into(data, laid, kind, out)
    else:
        out[:] = decode_tensor(data, dtype, shape)


def elements(data: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """What is coded for ONNX's raw_data, laid out as `layout` says."""
    kind, laid = layout(dtype, shape)
    bits = BITS[dtype]
    if bits >= 8:
        return np.frombuffer(data, kind.newbyteorder("<")).reshape(laid).astype(kind, copy=False)
    numbers = unpack(data, bits, math.prod(shape))
    if dtype in _SIGNED:
        numbers = (numbers << (8 - bits)).view(np.int8) >> (8 - bits)
    return numbers.reshape(laid)


def raw(values: np.ndarray, dtype: str) -> memoryview:
    """Undoes `elements`. Raises InvalidInput for numbers that the dtype can't hold."""
    bits = BITS[dtype]
    if bits >= 8:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype in _SIGNED else (0, (1 << bits) - 1)
    if values.size and not lowest <= int(values.min()) <= int(values.max()) <= highest:
        raise InvalidInput(f"coded data has numbers that {dtype} can't hold: it is damaged or forged; copy it again")
    return memoryview(pack(values.ravel().view(np.uint8) & np.uint8((1 << bits) - 1), bits))


def coder_of(data: bytes | memoryview) -> str:
    """The coder that wrote a coded tensor. Raises InvalidInput."""
    return coding.coder_of(data)


def encode_graph(data: bytes) -> bytes | None:
    """`data` in fewer bytes, or None."""
    import lzma

    blob = lzma.compress(data, lzma.FORMAT_RAW, filters=_filters(lzma))
    return blob if len(blob) + _WORTHWHILE <= len(data) else None


def decode_graph(data: bytes | memoryview, size: int) -> bytes:
    """The `size` bytes that `encode_graph` was given. Raises InvalidInput for more, fewer, or what isn't LZMA."""
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(lzma))
    try:
        found = decoder.decompress(data, size + 1)
        # The end marker may still be ahead when all bytes are there.
        while not decoder.eof and len(found) <= size and not decoder.needs_input:
            found += decoder.decompress(b"", size + 1 - len(found))
    except (lzma.LZMAError, EOFError) as error:
        raise InvalidInput(f"its LZMA data is damaged or forged ({error}); copy it again") from error
    if len(found) != size or not decoder.eof or decoder.unused_data:
        raise InvalidInput(f"its LZMA data doesn't give {size:,} bytes and end there: it is damaged or forged; copy it again")
    return found


def _filters(lzma: Any) -> list[dict[str, int]]:
    # (pb=0: protobuf aligns nothing.)
    return [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": _DICTIONARY, "pb": 0}]


def layout(dtype: str, shape: tuple[int, ...]) -> tuple[np.dtype, tuple[int, ...]]:
    """The elements that are coded for `dtype`, and their shape: one each, of their own kind where numpy has it, else their bits."""
    if dtype in _PARTS:
        return np.dtype(_PARTS[dtype]), (*shape, 2)
    if dtype in _NATIVE:
        return np.dtype(dtype), shape
    if dtype in _SIGNED:
        return np.dtype(np.int8), shape
    return np.dtype(np.uint16 if BITS[dtype] == 16 else np.uint8), shape
