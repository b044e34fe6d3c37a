"""The hot loops: the C extension and its Python form agree to the byte, here, under sanitizers, and on aarch64."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.coding import core, fallback
from edgewise.testing import aarch64

needs_extension = pytest.mark.skipif(core.native is None, reason="the C extension isn't there")


@needs_extension
def test_both_implementations_agree_to_the_byte(make_jobs: Callable[..., list[Any]]) -> None:
    for job in make_jobs(np.random.default_rng(0), 60):
        assert job.here(core.native) == job.here(fallback), job


def test_what_was_coded_comes_back(kernels: object, make_jobs: Callable[..., list[Any]]) -> None:
    back = {"rans_encode": "rans_decode", "huffman_encode": "huffman_decode", "adaptive_encode": "adaptive_decode"}
    done = 0
    for job in make_jobs(np.random.default_rng(1), 20):
        if job.name in back and (coded := job.here(kernels)) is not None:
            undo = type(job)(back[job.name], job.numbers, job.table, coded, len(job.data))
            assert undo.here(kernels) == job.data
            done += 1
    assert done >= 60


def test_under_sanitizers(tmp_path: Path, driver: Callable[..., Any], make_jobs: Callable[..., list[Any]]) -> None:
    """No step outside of a buffer and no undefined behaviour, whatever is decoded."""
    compiler = os.environ.get("CC", "cc")
    flags = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    probe = [compiler, *flags, "-x", "c", "-", "-o", str(tmp_path / "probe")]
    if not shutil.which(compiler) or subprocess.run(probe, input=b"int main(void) {}", capture_output=True, check=False).returncode:
        pytest.skip(f"{compiler} isn't here, or has no sanitizers")
    run = driver(compiler, *flags)
    random = np.random.default_rng(2)
    jobs = make_jobs(random, 150)
    results = run(jobs)
    assert results == [job.here(core.kernels) for job in jobs]
    hostile = []
    for job, coded in zip(jobs, results, strict=True):
        if job.name.endswith("encode") and coded:
            damaged = bytearray(coded[: int(random.integers(1, len(coded) + 1))])
            damaged[int(random.integers(len(damaged)))] ^= 1 << int(random.integers(8))
            table = bytearray(job.table)
            if table and random.random() < 0.3:
                table[int(random.integers(len(table)))] ^= 1 << int(random.integers(8))
            name = job.name.replace("encode", "decode")
            hostile.append(type(job)(name, job.numbers, bytes(table), bytes(damaged), len(job.data)))
    assert len(run(hostile)) > 300


def test_the_same_without_vectors(driver: Callable[..., Any], make_jobs: Callable[..., list[Any]]) -> None:
    """rANS's thirty-two lanes as machines decode them that aren't x86, there and back."""
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} isn't here")
    run = driver(compiler, "-O2", "-DEW_NO_VECTORS")
    jobs = [job for job in make_jobs(np.random.default_rng(4), 100) if job.name == "rans_encode"]
    coded = run(jobs)
    pairs = [(job, blob) for job, blob in zip(jobs, coded, strict=True) if blob is not None]
    back = [type(job)("rans_decode", job.numbers, job.table, blob, len(job.data)) for job, blob in pairs]
    assert run(back) == [job.data for job, _ in pairs] and len(pairs) > 100


@pytest.mark.timeout(900)
def test_aarch64_agrees(driver: Callable[..., Any], make_jobs: Callable[..., list[Any]], programs: Callable[..., None]) -> None:
    emulator, compiler = aarch64.PROGRAMS
    programs(emulator, compiler, packages=aarch64.PACKAGES)
    jobs = make_jobs(np.random.default_rng(3), 100)
    assert driver(compiler, "-O3", "-static", run=(emulator,))(jobs) == [job.here(core.kernels) for job in jobs]


@needs_extension
def test_other_threads_go_on_meanwhile() -> None:
    """The GIL is given up: a thread counts while the main one is inside one call."""
    values = np.zeros((2000, 2000), np.int32)
    out = np.empty(64, np.uint8)
    inside = {"begun": False, "ended": False, "counted": 0}

    def count() -> None:
        while not inside["ended"]:
            inside["counted"] += inside["begun"]

    thread = threading.Thread(target=count)
    thread.start()
    inside["begun"] = True
    core.native.adaptive_encode(values, 2000, 2000, True, out)
    counted, inside["ended"] = inside["counted"], True
    thread.join()
    assert counted > 10_000


@needs_extension
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("adaptive_decode", (b"", 2**40, 2**40, False, np.zeros(4, np.int32))),
        ("adaptive_decode", (b"", -1, 1, False, np.zeros(4, np.int32))),
        ("adaptive_decode", (b"", 5, 1, False, np.zeros(4, np.int32))),
        ("adaptive_encode", (np.zeros(17, np.uint8)[1:], 2, 2, False, np.zeros(40, np.uint8))),
        ("rans_decode", (bytes(40), bytes(1023), np.zeros(4, np.uint8), 12, 8)),
        ("rans_decode", (bytes(40), bytes(1024), np.zeros(4, np.uint8), 15, 8)),
        ("rans_decode", (bytes(400), np.full(256, 16, np.uint32), np.zeros(4, np.uint8), 12, 16)),
        ("huffman_decode", (bytes(40), bytes([13] * 256), np.zeros(4, np.uint8))),
    ],
)
def test_wrong_buffers_are_refused(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):
        getattr(core.native, name)(*arguments)


def test_one_place_chooses() -> None:
    line = "from edgewise.coding import core; print(core.kernels.__name__, core.implementation(), sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", line], env={**os.environ, "EDGEWISE_NO_EXTENSION": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "edgewise.coding.fallback|numpy fallback, slower: EDGEWISE_NO_EXTENSION is set"
