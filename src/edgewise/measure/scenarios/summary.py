"""What LoadGen says of a run, read from its `mlperf_log_summary.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgewise.errors import MeasurementFailed

_CHECK = re.compile(r"^  (\w[\w ]*?)\s*:\s*(Yes|NO|Skipped)\s*$", re.MULTILINE)
_PERCENTILE = re.compile(r"^([\d.]+) percentile latency \(ns\)\s*:\s*(\d+)", re.MULTILINE)
_PARAMETER = re.compile(r"^(\w+(?: \(\w+\))?)\s*:\s*(\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Summary:
    """LoadGen's own words and figures. Times are of a query; in Offline of a sample, from when all were asked for.

    checks: its conditions, "Min duration satisfied" -> "Yes", "NO" or "Skipped". reasons: of a run that is INVALID, the conditions that
    failed and what LoadGen recommends. percentiles_ms: by "50", "99.9" …. samples_per_second: LoadGen's own overhead included.
    """

    scenario: str
    valid: bool
    checks: Mapping[str, str]
    reasons: tuple[str, ...]
    percentiles_ms: Mapping[str, float]
    mean_ms: float
    min_ms: float
    max_ms: float
    samples_per_second: float
    parameters: Mapping[str, str]
    errors: int = 0


def parse(text: str) -> Summary:
    """Raises MeasurementFailed when `text` is no summary, or that of a run which broke off."""
    head, _, rest = text.partition("Additional Stats")
    scenario, result = _word(r"^Scenario : (\w+)", head), _word(r"^Result is : (VALID|INVALID)", head)
    percentiles = {f"{float(q):g}": int(ns) / 1e6 for q, ns in _PERCENTILE.findall(rest)}
    if not scenario or not result or not percentiles:
        raise MeasurementFailed(f"LoadGen's summary is incomplete, its run broke off; it ends: {text[-200:].strip()!r}")
    checks = dict(_CHECK.findall(head))
    mean_ms, min_ms, max_ms = (float(_word(rf"^{name} latency \(ns\)\s*: (\d+)", rest) or 0) / 1e6 for name in ("Mean", "Min", "Max"))
    parameters = dict(_PARAMETER.findall(rest.partition("Test Parameters Used")[2]))
    return Summary(
        scenario=scenario,
        valid=result == "VALID",
        checks=checks,
        reasons=() if result == "VALID" else _reasons(head, checks),
        percentiles_ms=percentiles,
        mean_ms=mean_ms,
        min_ms=min_ms,
        max_ms=max_ms,
        samples_per_second=_throughput(head, rest, parameters, mean_ms),
        parameters=parameters,
        errors=int(_word(r"^(\d+) ERRORS? encountered", rest) or 0),
    )


def _word(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""


def _throughput(head: str, rest: str, parameters: Mapping[str, str], mean_ms: float) -> float:
    """LoadGen's figure. It has none for MultiStream: there a query's samples over its mean time."""
    said = _word(r"^(?:Samples|Completed samples) per second\s*: (\S+)", head) or _word(r"^QPS w/ loadgen overhead\s*: (\S+)", rest)
    if said:
        return float(said)
    return float(parameters.get("samples_per_query", 1)) / mean_ms * 1e3 if mean_ms else 0.0


def _reasons(head: str, checks: Mapping[str, str]) -> tuple[str, ...]:
    """Conditions that aren't met, and what LoadGen remarks on them."""
    failed = [f"{name}: {said}" for name, said in checks.items() if said == "NO"]
    advice, _, stopping = head.partition("Early Stopping Result:")
    return (*failed, *_remarks(advice), *(_remarks(stopping) if checks.get("Early stopping satisfied") == "NO" else ()))


def _remarks(text: str) -> tuple[str, ...]:
    """Each begins with " * ", and may go on in the next line."""
    return tuple(" ".join(remark.strip("=\n ").split()) for remark in re.split(r"^ \* ", text, flags=re.MULTILINE)[1:])
