"""The extension "system shared memory": tensors in regions that a client on this machine made, instead of in messages.

Regions are read and written as files (pread, pwrite), never mapped: a client that cuts a mapped region short would end the server by
SIGBUS. Who registered a region is the only one who may use it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import InvalidInput
from edgewise.serve.problems import Absent, NotFound, TooLarge

FOLDER = Path("/dev/shm")  # where Linux has what shm_open makes
_KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,200}")
MOST = 256  # regions of one client


@dataclass(frozen=True)
class Region:
    """key: of shm_open. offset, size: in bytes, of the part that was registered."""

    name: str
    key: str
    offset: int
    size: int
    handle: int


class SharedMemory:
    """The regions that clients registered. enabled: where it isn't, every call raises NotFound: nothing tells that there might be any.

    most: bytes of one tensor that is read; a region costs whoever makes it nothing, and its copy here memory.
    """

    def __init__(self, *, enabled: bool, folder: Path = FOLDER, most: int = 64 << 20) -> None:
        self.enabled, self.most = enabled, most
        self._folder = folder
        self._regions: dict[tuple[str, str], Region] = {}

    def register(self, owner: str, name: str, key: str, offset: int, size: int) -> None:
        """Raises NotFound where shared memory is off, InvalidInput where there is no such memory, or it is smaller than said."""
        self._check()
        if not name or (owner, name) in self._regions:
            raise InvalidInput(f"shared memory region {name[:80]!r} is registered already, or has no name; unregister it first")
        if sum(1 for held, _ in self._regions if held == owner) >= MOST:
            raise InvalidInput(f"{MOST} shared memory regions are registered already; unregister some")
        if offset < 0 or size < 1:
            raise InvalidInput(f"shared memory region {name!r}: offset={offset}, byte_size={size}; give 0 or more, and 1 or more")
        if not _KEY.fullmatch(key) or key.strip("/") in (".", ".."):
            raise InvalidInput(f"shared memory key {key[:80]!r}: give what shm_open was given")
        try:
            # A link, a pipe or a device in the shared folder is nobody's shared memory: opening it could reach, or wait for, anything.
            handle = os.open(self._folder / key.lstrip("/"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InvalidInput(f"shared memory {key!r} can't be opened: {error.strerror}") from error
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size < offset + size:
            os.close(handle)
            raise InvalidInput(f"shared memory {key!r} has {found.st_size} bytes, and {offset + size} were registered")
        self._regions[owner, name] = Region(name, key, offset, size, handle)

    def unregister(self, owner: str, name: str = "") -> None:
        """One region, or all of the owner's; one that isn't there is no error (as Triton has it)."""
        self._check()
        for held in [held for held in self._regions if held[0] == owner and name in ("", held[1])]:
            os.close(self._regions.pop(held).handle)

    def status(self, owner: str, name: str = "") -> list[Region]:
        """Raises NotFound for a name that isn't registered."""
        self._check()
        if name:
            return [self._region(owner, name)]
        return [region for (held, _), region in self._regions.items() if held == owner]

    def read(self, owner: str, name: str, offset: int, size: int) -> bytes:
        """Raises NotFound, InvalidInput where the region doesn't hold that many bytes, TooLarge."""
        region = self._inside(owner, name, offset, size)
        if size > self.most:
            raise TooLarge(f"a tensor of {size} bytes in shared memory: at most {self.most} are taken")
        data = os.pread(region.handle, size, region.offset + offset)
        if len(data) != size:
            raise InvalidInput(f"shared memory region {name!r} was cut short: {len(data)} of {size} bytes are left")
        return data

    def write(self, owner: str, name: str, offset: int, most: int, data: bytes | memoryview) -> None:
        """most: bytes that the client set aside. Raises NotFound, and InvalidInput where `data` is longer, or the region ended."""
        region = self._inside(owner, name, offset, most)
        if len(data) > most:
            raise InvalidInput(f"an output has {len(data)} bytes, and shared memory region {name!r} has {most} for it")
        if os.fstat(region.handle).st_size < region.offset + offset + len(data):
            raise InvalidInput(f"shared memory region {name!r} was cut short")
        os.pwrite(region.handle, data, region.offset + offset)

    def close(self) -> None:
        for region in self._regions.values():
            with contextlib.suppress(OSError):
                os.close(region.handle)
        self._regions.clear()

    def _check(self) -> None:
        if not self.enabled:
            raise NotFound("shared memory is off here; whoever runs the server can turn it on (shared_memory = true)")

    def _region(self, owner: str, name: str) -> Region:
        self._check()
        found = self._regions.get((owner, name))
        if found is None:
            raise Absent(f"there is no shared memory region {name[:80]!r}; register it first")
        return found

    def _inside(self, owner: str, name: str, offset: int, size: int) -> Region:
        region = self._region(owner, name)
        if offset < 0 or size < 0 or offset + size > region.size:
            raise InvalidInput(f"shared memory region {name!r} has {region.size} bytes; {size} from {offset} on are outside of it")
        return region
