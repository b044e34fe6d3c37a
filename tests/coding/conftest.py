"""Both implementations of the hot loops, and the C core as a program of its own, for other machines and under sanitizers."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgewise.coding import core, fallback
from edgewise.coding.limits import LANES

NATIVE = Path(core.__file__).parent / "native"
DRIVER = Path(__file__).with_name("driver.c")


@pytest.fixture(params=["extension", "fallback"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    if request.param == "extension" and core.native is None:
        pytest.skip("the C extension isn't there: no C compiler when edgewise was installed, or EDGEWISE_NO_EXTENSION")
    chosen = core.native if request.param == "extension" else fallback
    monkeypatch.setattr(core, "kernels", chosen)
    yield chosen


@dataclass(frozen=True)
class Job:
    """One call of the core: its name, three numbers, a table, data, and the bytes of room for the result."""

    name: str
    numbers: tuple[int, int, int]
    table: bytes
    data: bytes
    room: int

    NAMES = ("rans_encode", "rans_decode", "huffman_encode", "huffman_decode", "adaptive_encode", "adaptive_decode")

    def record(self) -> bytes:
        head = struct.pack("<7I", self.NAMES.index(self.name), *self.numbers, len(self.table), len(self.data), self.room)
        return head + self.table + self.data

    def here(self, kernels: object) -> bytes | None:
        """The result in this process; None for an error."""
        out = np.zeros(self.room, np.uint8)
        given = np.frombuffer(self.data, np.uint8)
        call = getattr(kernels, self.name)
        try:
            if self.name.startswith("adaptive"):
                size = call(given, *self.numbers, out)
            else:
                numbers = self.numbers[:2] if self.name.startswith("rans") else ()
                size = call(given, np.frombuffer(self.table, np.uint8), out, *numbers)
        except ValueError:
            return None
        return out[: size if self.name.endswith("encode") else self.room].tobytes()


def jobs(random: np.random.Generator, count: int) -> list[Job]:
    """Encodings of random data of all kinds, and decodings of random bytes."""
    made: list[Job] = []
    for _ in range(count):
        rows, columns = (int(side) for side in random.integers(1, 24, 2))
        size = rows * columns
        scale = float(random.choice([0.4, 3.0, 40.0, 1e5, 6e8]))
        numbers = np.clip(np.rint(random.normal(0, scale, size)) * (random.random(size) < random.random()), -(2**31) + 1, 2**31 - 1)
        junk = random.integers(0, 256, int(random.integers(0, 80)), dtype=np.uint8).tobytes()
        for mixing in (0, 1):
            made.append(Job("adaptive_encode", (rows, columns, mixing), b"", numbers.astype("<i4").tobytes(), 8 * size + 64))
            made.append(Job("adaptive_decode", (rows, columns, mixing), b"", junk, 4 * size))
        symbols = (numbers.astype(np.int64) % 5 if scale < 10 else random.integers(0, 256, size)).astype(np.uint8)
        bits = int(random.integers(8, 15))
        shares = np.bincount(symbols, minlength=256) if scale < 10 else np.ones(256, np.int64)
        shares[0] += (1 << bits) - shares.sum() if shares.sum() <= 1 << bits else 0
        table = shares.astype("<u4").tobytes()
        lengths = np.full(256, 8, np.uint8)
        if scale < 10:
            lengths = np.array([1, 2, 3, 4, 4] + [0] * 251, np.uint8)
        for lanes in LANES:
            many = np.resize(symbols, size * int(random.integers(1, 9)))
            made.append(Job("rans_encode", (bits, lanes, 0), table, many.tobytes(), 2 * len(many) + 4 * lanes))
            made.append(Job("rans_decode", (bits, lanes, 0), table, junk + many.tobytes(), size))
        made.append(Job("huffman_encode", (0, 0, 0), lengths.tobytes(), symbols.tobytes(), 2 * size))
        made.append(Job("huffman_decode", (0, 0, 0), lengths.tobytes(), junk, size))
    return made


@pytest.fixture(scope="session")
def make_jobs() -> Callable[[np.random.Generator, int], list[Job]]:
    return jobs


@pytest.fixture
def driver(tmp_path: Path) -> Callable[..., Callable[[list[Job]], list[bytes | None]]]:
    """Builds the core with a compiler and its flags; gives what runs jobs in it. None of that touches Python's own process."""

    def build(compiler: str, *flags: str, run: tuple[str, ...] = ()) -> Callable[[list[Job]], list[bytes | None]]:
        program = tmp_path / "driver"
        sources = [DRIVER, *(NATIVE / name for name in ("rans.c", "huffman.c", "adaptive.c"))]
        line = [compiler, "-std=c11", "-Wall", "-Wextra", *flags, f"-I{NATIVE}", *sources, "-o", program]
        built = subprocess.run(line, capture_output=True, text=True, check=False)
        assert built.returncode == 0 and not built.stderr, built.stderr

        def results(given: list[Job]) -> list[bytes | None]:
            done = subprocess.run([*run, program], input=b"".join(job.record() for job in given), capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
            found: list[bytes | None] = []
            at = 0
            for _ in given:
                ended, length = struct.unpack_from("<qI", done.stdout, at)
                at += 12
                found.append(None if ended < 0 else done.stdout[at : at + length])
                at += length
            assert at == len(done.stdout)
            return found

        return results

    return build
