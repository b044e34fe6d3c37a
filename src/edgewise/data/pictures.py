"""Many pictures addressed by index: in memory as one array, or as files that are decoded when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from edgewise.data.picture import read_picture
from edgewise.data.splits import digest
from edgewise.errors import InvalidData

THUMBNAIL = 16  # pixels a side


@dataclass(frozen=True)
class Survey:
    """What one pass over all pictures leaves behind: no pixels of a full picture, so a test split that was surveyed is still unread.

    digests: one per picture, over shape and pixels; b"" where it could not be read. errors: index -> why.
    shapes: (n, 3) int64, height, width, channels; zeros where unreadable.
    thumbnails: (n, 16, 16) uint8, grey, to find near-duplicates; None for arrays, whose copies are exact.
    """

    digests: tuple[bytes, ...]
    shapes: np.ndarray
    errors: dict[int, str]
    thumbnails: np.ndarray | None = None


class Pictures(Protocol):
    """uint8 pictures by index. `take` is the only way to pixels; `survey` gives hashes and shapes.

    decoded: whether taking is cheap, as the pixels are in memory already.
    """

    @property
    def decoded(self) -> bool: ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray | Sequence[np.ndarray]:
        """The pictures at `indices`: (k, height, width, channels) where all are of one shape in memory, else a list of them."""
        ...

    def survey(self) -> Survey: ...

    def describe(self, index: int) -> str:
        """What to call picture `index` in a message."""
        ...


@dataclass(frozen=True)
class ArrayPictures:
    """pixels: (n, height, width, channels) uint8, held in memory."""

    pixels: np.ndarray
    decoded: bool = field(default=True, init=False)

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.pixels[indices]

    def survey(self) -> Survey:
        shapes = np.broadcast_to(np.array(self.pixels.shape[1:], dtype=np.int64), (len(self), 3))
        return Survey(digests=tuple(map(digest, self.pixels)), shapes=shapes, errors={})

    def describe(self, index: int) -> str:
        return f"picture {index}"


@dataclass(frozen=True)
class FilePictures:
    """Files under `root`, decoded when taken: never more of them in memory than were asked for."""

    root: Path
    files: tuple[str, ...]  # relative to root
    decoded: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: np.ndarray) -> list[np.ndarray]:
        return list(_ordered(lambda i: read_picture(self.root / self.files[i]), [int(i) for i in indices]))

    def survey(self) -> Survey:
        shapes = np.zeros((len(self), 3), dtype=np.int64)
        thumbnails = np.zeros((len(self), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
        digests: list[bytes] = []
        errors: dict[int, str] = {}
        for index, seen in enumerate(_ordered(self._look, range(len(self)))):
            if isinstance(seen, str):
                errors[index] = seen
                digests.append(b"")
            else:
                found, shapes[index], thumbnails[index] = seen
                digests.append(found)
        return Survey(digests=tuple(digests), shapes=shapes, errors=errors, thumbnails=thumbnails)

    def describe(self, index: int) -> str:
        return self.files[index]

    def _look(self, index: int) -> tuple[bytes, np.ndarray, np.ndarray] | str:
        try:
            picture = read_picture(self.root / self.files[index])
        except InvalidData as error:
            return str(error)
        grey = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).convert("L")
        small = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
        return digest(picture), np.array(picture.shape, dtype=np.int64), small


def _ordered(call: Callable[[int], object], indices: Sequence[int]) -> Iterator:
    """`call(i)` for each index, in order, on a few threads (Pillow decodes without the interpreter's lock), a window at a time."""
    workers = min(8, os.cpu_count() or 1)
    window = 8 * workers
    if workers == 1 or len(indices) < 4:
        yield from map(call, indices)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
        for start in range(0, len(indices), window):
            yield from pool.map(call, indices[start : start + window])
