"""Memory bandwidth as a program gets it: STREAM's Add kernel (McCalpin 1995) in numpy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np


def bandwidth(array_bytes: int, threads: int, repeats: int) -> float:
    """GB/s of a = b + c over arrays of `array_bytes` in all, cut among `threads` threads: the best of `repeats`, as STREAM counts it.

    24 bytes move per element of 8; what the cache reads of `a` before writing it isn't counted. numpy lets go of the interpreter's lock.
    """
    n = max(1, array_bytes // 8 // threads)
    parts = [(np.empty(n), np.ones(n), np.ones(n)) for _ in range(threads)]
    for a, _, _ in parts:
        a[:] = 0  # touch the pages
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            start = perf_counter()
            list(pool.map(lambda part: np.add(part[1], part[2], out=part[0]), parts))
            best = max(best, 24 * n * threads / (perf_counter() - start) / 1e9)
    return best
