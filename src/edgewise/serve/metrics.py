"""`/metrics` for Prometheus: base units, seconds among them. Beside them Triton's names, which dashboards have already, in its µs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UntypedMetricFamily

from edgewise import __version__
from edgewise.host import Counted, Host, Statistics
from edgewise.host.hosting import LocalHost

KIND = b"text/plain; version=0.0.4; charset=utf-8"
_LABELS = ("model", "version")


class _Of:
    """A collector: what the counts are at the moment of the question."""

    def __init__(self, host: Host, replies: Mapping[int, int]) -> None:
        self._host = host
        self._replies = replies

    def collect(self) -> Iterator[Metric]:
        found = self._host.statistics()
        yield _counts("edgewise_requests", "Requests that ended, by how.", (*_LABELS, "outcome"), _outcomes(found))
        for name, words, attribute in _SECONDS:
            yield _counts(name, words, _LABELS, {key: getattr(each, attribute).seconds for key, each in found.items()})
        for name, words, attribute in _COUNTS:
            yield _counts(name, words, _LABELS, {key: getattr(each, attribute).count for key, each in found.items()})
        yield _counts("edgewise_rows", "Rows that were computed.", _LABELS, {key: each.rows for key, each in found.items()})
        batches = {(*key, str(rows)): counted.count for key, each in found.items() for rows, counted in each.batches.items()}
        yield _counts("edgewise_batches", "Calls of the engine, by their rows.", (*_LABELS, "rows"), batches)
        yield from _as_triton(found)
        ready = GaugeMetricFamily("edgewise_ready", "Whether a version is in memory.", labels=_LABELS)
        for status in self._host.index():
            ready.add_metric((status.name, status.version), float(status.state == "ready"))
        yield ready
        if isinstance(self._host, LocalHost):  # others have no memory of their own to tell of
            yield from _memory(self._host)
        yield _counts(
            "edgewise_http_responses", "Replies over HTTP, by status.", ("code",), {(str(k),): n for k, n in self._replies.items()}
        )
        process = psutil.Process()
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of the server.", process.memory_info().rss)
        times = process.cpu_times()
        yield _counts("process_cpu_seconds", "CPU time of the server.", (), {(): times.user + times.system})
        info = GaugeMetricFamily("edgewise_info", "The release.", labels=("version",))
        info.add_metric((__version__,), 1.0)
        yield info


_SECONDS = (
    ("edgewise_request_seconds", "Time of requests that were answered.", "success"),
    ("edgewise_queue_seconds", "Time that requests waited.", "queue"),
    ("edgewise_compute_seconds", "Time in the engine.", "compute"),
)
_COUNTS = (
    ("edgewise_cache_hits", "Answers from the cache.", "cache_hit"),
    ("edgewise_cache_misses", "Answers that the cache didn't have.", "cache_miss"),
)


def text(host: Host, replies: Mapping[int, int]) -> bytes:
    """All of it in Prometheus's text format, as of now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Of(host, replies))
    return generate_latest(registry)


def _counts(name: str, words: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, words, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _outcomes(found: Mapping[tuple[str, str], Statistics]) -> dict[tuple[str, ...], float]:
    return {
        (*key, outcome): getattr(each, outcome).count for key, each in found.items() for outcome in ("success", "fail", "refused", "late")
    }


def _memory(host: LocalHost) -> Iterator[Metric]:
    found = host.vitals()
    yield GaugeMetricFamily("edgewise_memory_above_idle_bytes", "Resident memory above that of the idle server.", found.above_idle)
    if found.cap is not None:
        yield GaugeMetricFamily("edgewise_memory_cap_bytes", "The most that it may be.", found.cap)
    tally = found.tally
    yield _counts("edgewise_residency_hits", "Requests that found their model in memory.", (), {(): tally.hits})
    yield _counts("edgewise_residency_misses", "Requests that had to wait for theirs.", (), {(): tally.misses})
    yield _counts("edgewise_residency_loads", "Models that came into memory.", (), {(): tally.loads})
    yield _counts("edgewise_residency_evictions", "Models that left for another.", (), {(): tally.evictions})
    yield _counts("edgewise_residency_failed", "Loads that failed.", (), {(): tally.failed})


def _as_triton(found: Mapping[tuple[str, str], Statistics]) -> Iterator[Metric]:
    """Without a type: Triton's counters have no `_total`, which a counter of this library would get."""

    def micro(counted: Counted) -> float:
        return round(counted.seconds * 1e6)

    aliases = {
        "nv_inference_request_success": lambda each: each.success.count,
        "nv_inference_request_failure": lambda each: each.fail.count + each.refused.count + each.late.count,
        "nv_inference_count": lambda each: each.rows,
        "nv_inference_exec_count": lambda each: sum(counted.count for counted in each.batches.values()),
        "nv_inference_request_duration_us": lambda each: micro(each.success),
        "nv_inference_queue_duration_us": lambda each: micro(each.queue),
        "nv_inference_compute_infer_duration_us": lambda each: micro(each.compute),
        "nv_cache_num_hits_per_model": lambda each: each.cache_hit.count,
        "nv_cache_num_misses_per_model": lambda each: each.cache_miss.count,
    }
    for name, read in aliases.items():
        family = UntypedMetricFamily(name, f"As Triton has it; see edgewise_* for base units ({name.removeprefix('nv_')}).", labels=_LABELS)
        for key, each in found.items():
            family.add_metric(key, read(each))
        yield family
