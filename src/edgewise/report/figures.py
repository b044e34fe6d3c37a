"""Every figure as it is shown, on the page and in the terminal alike: the value, its interval, and the n that it stands on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgewise.records import ClassQuality, Interval, Latency, Measurement, PairedDifference, Quality, Speedup, Study, Trial
from edgewise.report import numbers
from edgewise.report.numbers import NONE


@dataclass(frozen=True)
class Figure:
    """`sort` orders a table's column; None sorts last."""

    value: str = NONE
    interval: str = ""
    n: str = ""
    sort: float | None = None

    def __str__(self) -> str:
        behind = ", ".join(part for part in (self.interval, self.n) if part)
        return f"{self.value} ({behind})" if behind else self.value


def between(low: str, high: str) -> str:
    """An interval; an end that the samples can't bound is left open."""
    if low == NONE or high == NONE:
        return "unbounded" if low == high else f"from {low}" if high == NONE else f"up to {high}"
    shared = high.rpartition(" ")[2]
    return f"{low.removesuffix(f' {shared}') if ' ' in high else low.removesuffix('×')} to {high}"


def _times(ratio: float) -> str:
    return f"{numbers.significant(ratio)}×" if math.isfinite(ratio) else NONE


def latency_interval(at: Interval) -> str:
    """Three digits, or four where three can't tell the ends apart."""
    digits = 3 if numbers.ms(at.low) != numbers.ms(at.high) else 4
    return between(numbers.ms(at.low, digits), numbers.ms(at.high, digits))


def ratio(at: Interval, noun: str = "pair") -> Figure:
    """A factor with its interval; `noun` is what it is the median of."""
    return Figure(numbers.times(at.value), between(_times(at.low), _times(at.high)), numbers.plural(at.n, noun), at.value)


def speedup(found: Speedup | None) -> Figure:
    return Figure() if found is None else ratio(found.ratio)


def latency(found: Latency | None, q: float = 50) -> Figure:
    if found is None or not found.samples_ms:
        return Figure()
    at = numbers.percentile_interval(found.samples_ms, q)
    return Figure(numbers.ms(at.value), latency_interval(at), numbers.plural(at.n, "call"), at.value)


def _percent(at: Interval) -> tuple[str, str]:
    half = at.half_width
    return numbers.percent(at.value, half), between(numbers.percent(at.low, half, unit=False), numbers.percent(at.high, half))


def quality(found: Quality | None) -> Figure:
    return Figure() if found is None else share(found.value)


def share(at: Interval, noun: str = "") -> Figure:
    """A share 0..1 with its interval."""
    value, interval = _percent(at)
    return Figure(value, interval, numbers.plural(at.n, noun) if noun else f"n = {numbers.count(at.n)}", at.value)


def f1(found: ClassQuality) -> Figure:
    """One class's; older records hold no interval of it."""
    return share(found.f1_interval) if found.f1_interval else Figure(numbers.percent(found.f1))


def macro(found: Quality) -> dict[str, Figure]:
    """The means of precision, recall and F1 over all classes, as far as the record holds them; older ones hold no intervals."""
    values = {"precision": found.macro_precision, "recall": found.macro_recall, "F1": found.macro_f1}
    intervals = (found.macro_precision_interval, found.macro_recall_interval, found.macro_f1_interval)
    return {
        name: share(at) if at else Figure(numbers.percent(value))
        for (name, value), at in zip(values.items(), intervals, strict=True)
        if value is not None
    }


def drop(found: PairedDifference | None) -> Figure:
    """The paired difference, candidate minus reference, in points: below zero is worse."""
    if found is None:
        return Figure()
    at, half = found.difference, found.difference.half_width
    interval = between(numbers.points(at.low, half), numbers.points(at.high, half))
    return Figure(numbers.points(at.value, half), interval, f"n = {numbers.count(at.n)} pairs", at.value)


def size(found: float | None) -> Figure:
    return Figure(numbers.size(found), sort=found)


def memory(found: Measurement | None) -> Figure:
    return Figure() if found is None else Figure(numbers.size(found.peak_memory_bytes), "", "one process", found.peak_memory_bytes)


def energy(found: Measurement | None, device_energy: str) -> Figure:
    """Energy per inference, with measured or modelled said; a missing meter is said with its reason."""
    if found is None or found.energy_mj is None:
        return Figure("not known", device_energy if found is None or found.energy_source == "none" else found.energy_source)
    return Figure(f"{numbers.significant(found.energy_mj)} mJ", found.energy_source, "", found.energy_mj)


def divergence(found: float | None) -> Figure:
    """Relative L2 error of the outputs against fp32."""
    return Figure() if found is None else Figure(numbers.percent(found, 0.001 if found < 0.01 else 0.01), sort=found)


def find(study: Study, key: str | None) -> Trial | None:
    """The trial of that key, or None: a study that was cut short may name one that it doesn't hold."""
    return next((trial for trial in study.trials if trial.key == key), None)


def chosen(study: Study) -> Trial | None:
    return find(study, study.verdict.trial if study.verdict else None)


def reference_latency_ms(study: Study) -> float | None:
    """p50 of the 1.0x, from its own trial, else from the verdict: what ratios are turned into milliseconds with."""
    trial = find(study, study.reference)
    for found in (trial and trial.measurement, study.verdict and study.verdict.reference_measurement):
        if found and found.latency.samples_ms:
            return found.latency.p50_ms
    return None


def trial_latency(study: Study, trial: Trial) -> tuple[float, float, float] | None:
    """(value, low, high) in milliseconds. By the law that time is compared as a ratio: the reference's p50 divided by the trial's
    interleaved speedup, where there is one; else the trial's own p50, timed alone."""
    base = reference_latency_ms(study)
    if trial.speedup and base:
        ratio = trial.speedup.ratio
        if ratio.value > 0 and ratio.low > 0:
            return base / ratio.value, base / ratio.high, base / ratio.low
    if trial.measurement and trial.measurement.latency.samples_ms:
        at = numbers.percentile_interval(trial.measurement.latency.samples_ms, 50)
        low, high = (end if math.isfinite(end) else at.value for end in (at.low, at.high))
        return at.value, low, high
    return None


# An argument with a value for every part of a network: longer than this, it is counted instead.
LONGEST_ARGUMENT = 40
COLLECTION = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def shortened(recipe: str) -> str:
    """`prune(widths={12 parts})` for a recipe that names each of them; "as it came" for none."""

    def counted(found: re.Match[str]) -> str:
        text, parts = found[0], len(QUOTED.findall(found[0]))
        return text if len(text) <= LONGEST_ARGUMENT or not parts else f"{text[0]}{numbers.plural(parts, 'part')}{text[-1]}"

    return COLLECTION.sub(counted, recipe) or "as it came"


def name(trial: Trial) -> str:
    return shortened(trial.recipe)


def remark(study: Study, trial: Trial) -> str:
    """What a reader must know of a trial beside its figures: why it ended, or that it changed nothing."""
    said = [trial.reason] if trial.reason else []
    if trial.state == "measured" and trial.speedup and not trial.speedup.conclusive:
        said.append("the timing stayed inconclusive")
    reference = find(study, study.reference)
    if trial.recipe and trial.state != "failed":
        same_size = bool(
            reference and reference.size_bytes and trial.size_bytes and abs(trial.size_bytes / reference.size_bytes - 1) < 0.01
        )
        speed = trial.speedup.ratio if trial.speedup else None
        if speed and speed.low <= 1 <= speed.high and same_size:
            said.append("changes nothing measurable in time or size")
        elif not trial.touched and trial.skipped:
            said.append("touched no part of the model")
    return "; ".join(said)
