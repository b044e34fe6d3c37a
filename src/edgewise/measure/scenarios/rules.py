"""What MLPerf asks of each scenario, and by how much a run falls short of that."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.errors import InvalidInput
from edgewise.types import Signature

MLPERF_SECONDS = 600.0
OFFLINE_BATCH = 8  # past this, a CPU's samples per second hardly grow, and its memory does


@dataclass(frozen=True)
class Rules:
    """mlperf.conf of LoadGen 6.0, and the inference rules' appendix on the number of queries.

    name: LoadGen's. percentile: 0..1, of a query's time; the scenario's result, None where that is samples per second. samples: of a query,
    0 for all in one. queries: the least of a compliant run (of Offline samples), which for the other two are as many as LoadGen's "early
    stopping" needs to bound the percentile with 99 % confidence. usual: the least that we ask for.
    """

    name: str
    percentile: float | None
    samples: int
    queries: int
    usual: int


SCENARIOS = {
    "single-stream": Rules("SingleStream", 0.90, 1, 64, 64),
    "multi-stream": Rules("MultiStream", 0.99, 8, 662, 662),
    "offline": Rules("Offline", None, 0, 24_576, 1),
}


# Of a server alone: a Runner has no queue that queries could wait in.
SERVER = Rules("Server", 0.99, 1, 270_336, 662)


def rules(name: str) -> Rules:
    """Raises InvalidInput for a name that none has."""
    if name not in SCENARIOS:
        raise InvalidInput(f"there is no scenario {name!r}; give one of {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def batch(name: str, signature: Signature, asked: int | None = None) -> int:
    """Samples of one call: only where the model's first axis is a named batch axis may several share one.

    MultiStream's eight then do, Offline's as many as `asked`. Raises InvalidInput where `asked` is not to be had.
    """
    found = rules(name)
    if asked is not None and asked > 1:
        if found.samples:
            raise InvalidInput(f"batch={asked}: {name} asks for {found.samples} samples at a time, always; leave it out, or take offline")
        if not signature.batched:
            raise InvalidInput(f"batch={asked}: this model's first axis is no named batch axis, so each sample is a call; leave it out")
    if not signature.batched:
        return 1
    return found.samples or asked or OFFLINE_BATCH


def caveat(name: str, seconds: float, queries: int) -> str:
    """Why such a run is no MLPerf result. It never is: the inputs don't change, and nothing asks whether the answers are right.

    queries: that were issued; of Offline samples.
    """
    found = SERVER if name == "server" else rules(name)
    short = []
    if seconds < MLPERF_SECONDS:
        short.append(f"{seconds:g} s where MLPerf asks for {MLPERF_SECONDS:g}")
    if queries < found.queries:
        short.append(f"{queries:,} {'queries' if found.samples else 'samples'} where it asks for {found.queries:,}")
    return "not a compliant run: " + "; ".join([*short, "the same inputs in every query, and no run for accuracy"])
