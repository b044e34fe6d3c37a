"""IDX files: the form in which MNIST and Fashion-MNIST are published (http://yann.lecun.com/exdb/mnist, "file formats")."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from edgewise.errors import InvalidData

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_BYTES = 2**32


def read_idx(path: Path) -> np.ndarray:
    """The array in `path` (plain or .gz), in native byte order. Raises InvalidData when it is no IDX file or is truncated."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or not magic[3]:
                begins = magic.hex() or "nothing"
                raise InvalidData(f"{path}: not an IDX file (it begins with {begins}); expected 0000, a type code and a rank")
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise InvalidData(f"{path}: cut off inside its header; fetch it again")
            shape = tuple(int(d) for d in np.frombuffer(header, ">u4"))
            dtype = np.dtype(_DTYPES[magic[2]])
            expected = math.prod(shape) * dtype.itemsize
            if expected > _MOST_BYTES:
                raise InvalidData(f"{path}: claims an array of {shape} ({expected} bytes), more than {_MOST_BYTES}; is it an IDX file?")
            body = file.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidData(f"{path}: can't be read: {error}") from error
    if len(body) != expected:
        raise InvalidData(f"{path}: {len(body)} bytes of data where shape {shape} needs {expected}; fetch it again")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
