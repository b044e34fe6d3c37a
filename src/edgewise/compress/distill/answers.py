"""Where a teacher's answers are kept, sample by sample, for the epochs to come: in memory, or in a file that outlives the process."""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from edgewise.errors import InvalidData

IN_MEMORY = 256 << 20  # bytes
ON_DISK = 8 << 30

MAGIC = b"EDGEWANS"
_LENGTH = struct.Struct("<I")
_RECORD = struct.Struct("<16sII")  # the sample's key, its tokens, CRC-32 of what follows
_DTYPES = {
    name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}


@dataclass(frozen=True)
class Layout:
    """One of the tensors that are kept of each sample. shape: without the batch; -1 where the sample's tokens count."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def sized(self, tokens: int) -> tuple[int, ...]:
        return tuple(tokens if size < 0 else size for size in self.shape)


@dataclass(frozen=True)
class Kept:
    """What is kept of a sample: how many tokens it has, and its tensors in the order of the layout."""

    tokens: int
    tensors: tuple[Tensor, ...]


class Answers(Protocol):
    """Answers by the key of a sample."""

    def get(self, key: bytes) -> Kept | None: ...

    def put(self, key: bytes, kept: Kept, layout: Sequence[Layout]) -> None:
        """Keep it, as long as there is room, and unless it is known already; all that are put have the same layout."""
        ...

    def close(self) -> None: ...


class InMemory:
    """Up to `most_bytes` of answers."""

    def __init__(self, most_bytes: int = IN_MEMORY) -> None:
        self._known: dict[bytes, Kept] = {}
        self._left = most_bytes

    def get(self, key: bytes) -> Kept | None:
        return self._known.get(key)

    def put(self, key: bytes, kept: Kept, layout: Sequence[Layout]) -> None:
        size = sum(tensor.nbytes for tensor in kept.tensors)
        if key not in self._known and size <= self._left:
            self._left -= size
            self._known[key] = Kept(kept.tokens, tuple(tensor.clone() for tensor in kept.tensors))

    def close(self) -> None:
        self._known.clear()


class OnDisk:
    """A file of records, each with its key and a checksum, read through a memory map. One process writes at a time.

    identity: what the answers depend on apart from the sample: the teacher, the tensors, the precision. The file is called after it, so
    that another teacher's answers lie beside it. Interrupted in the middle of a record, the file is gone on with behind the one before;
    what the disk has damaged is left out, and asked again.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], most_bytes: int = ON_DISK) -> None:
        text = json.dumps(dict(identity), sort_keys=True)
        self.path = folder / f"{_digest(text.encode()).hex()}.answers"
        self._identity, self._most = json.loads(text), most_bytes
        self._layout: tuple[Layout, ...] | None = None
        self._places: dict[bytes, tuple[int, int, int]] = {}  # key -> (offset, tokens, checksum)
        self._map: mmap.mmap | None = None
        self._file: BinaryIO | None = None
        self._end = 0
        if self.path.exists():
            self._read()

    def get(self, key: bytes) -> Kept | None:
        if key not in self._places or self._layout is None:
            return None
        offset, tokens, checksum = self._places[key]
        data = bytearray(self._mapped(offset + _size(self._layout, tokens))[offset : offset + _size(self._layout, tokens)])
        if zlib.crc32(data) != checksum:
            del self._places[key]
            return None
        found, at = [], 0
        for one in self._layout:
            shape = one.sized(tokens)
            count = math.prod(shape)
            dtype = _DTYPES[one.dtype]
            found.append(torch.frombuffer(data, dtype=dtype, count=count, offset=at).reshape(shape) if count else torch.empty(shape))
            at += count * dtype.itemsize
        return Kept(tokens, tuple(found))

    def put(self, key: bytes, kept: Kept, layout: Sequence[Layout]) -> None:
        file = self._opened(layout)
        if key in self._places:
            return
        data = b"".join(tensor.contiguous().view(torch.uint8).numpy().tobytes() for tensor in kept.tensors)
        if self._end + _RECORD.size + len(data) > self._most:
            return
        checksum = zlib.crc32(data)
        file.write(_RECORD.pack(key, kept.tokens, checksum) + data)
        self._places[key] = (self._end + _RECORD.size, kept.tokens, checksum)
        self._end += _RECORD.size + len(data)

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            self._file.close()
        self._map = self._file = None

    def _opened(self, layout: Sequence[Layout]) -> BinaryIO:
        if self._layout is not None and tuple(layout) != self._layout:
            raise InvalidData(
                f"{self.path} holds {_told(self._layout)}, and {_told(layout)} are to be kept: delete it, or give another folder"
            )
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if self._layout else "wb", buffering=0)
            if self._layout is None:
                self._layout = tuple(layout)
                text = json.dumps({"identity": self._identity, "layout": [asdict(one) for one in layout]}).encode()
                self._end = self._file.write(MAGIC + _LENGTH.pack(len(text)) + text)
            self._file.truncate(self._end)
            self._file.seek(self._end)
        return self._file

    def _read(self) -> None:
        """Learn where the records lie. A file whose beginning is damaged, or torn off, is begun anew."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            start = file.read(len(MAGIC) + _LENGTH.size)
            if len(start) < len(MAGIC) + _LENGTH.size or not start.startswith(MAGIC):
                return
            (length,) = _LENGTH.unpack(start[len(MAGIC) :])
            try:
                told = json.loads(file.read(length))
                layout = tuple(Layout(one["name"], one["dtype"], tuple(one["shape"])) for one in told["layout"])
            except (ValueError, KeyError, TypeError):
                return
            if told.get("identity") != self._identity or any(one.dtype not in _DTYPES for one in layout):
                return
            self._layout, self._end = layout, file.tell()
            while len(head := file.read(_RECORD.size)) == _RECORD.size:
                key, tokens, checksum = _RECORD.unpack(head)
                end = self._end + _RECORD.size + _size(layout, tokens)
                if end > size:
                    break
                self._places[key] = (self._end + _RECORD.size, tokens, checksum)
                self._end = file.seek(end)

    def _mapped(self, end: int) -> mmap.mmap:
        """The file, mapped as far as `end` at least: it grows while it is read."""
        if self._map is None or len(self._map) < end:
            if self._map is not None:
                self._map.close()
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size, access=mmap.ACCESS_READ)
        return self._map


def sample_key(parts: Sequence[bytes]) -> bytes:
    """Of a sample's inputs: 16 bytes."""
    return _digest(b"".join(_LENGTH.pack(len(part)) + part for part in parts))


def _digest(data: bytes) -> bytes:
    return sha256(data).digest()[:16]


def _size(layout: Sequence[Layout], tokens: int) -> int:
    return sum(math.prod(one.sized(tokens)) * _DTYPES[one.dtype].itemsize for one in layout)


def _told(layout: Sequence[Layout]) -> str:
    return ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in layout)
