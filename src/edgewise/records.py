"""The records: what was measured, and the study that holds it all. Frozen data that can be written as JSON and read back.

Floor 0, beside `types`: the nouns that flow between rooms are there, what is kept of a run is here. Units stand in field names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from msgspec import UNSET, UnsetType

from edgewise.types import Budget, DataSummary, Execution, ModelSummary, Peaks, Watts


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, and the n that it stands on."""

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Latency:
    """Samples of single calls in milliseconds, in order; percentiles are computed when read."""

    samples_ms: tuple[float, ...]

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.samples_ms, q))

    @property
    def p50_ms(self) -> float:
        return self.percentile(50)

    @property
    def p90_ms(self) -> float:
        return self.percentile(90)

    @property
    def p95_ms(self) -> float:
        return self.percentile(95)

    @property
    def p99_ms(self) -> float:
        return self.percentile(99)


@dataclass(frozen=True)
class Device:
    """Where the model must run. `address` is "local" or that of an agent on another machine."""

    name: str
    arch: str
    cpu: str
    cores: int
    isa: tuple[str, ...]
    memory_bytes: int
    os: str
    backends: Mapping[str, str]  # name -> version of every engine that is installed there
    energy: str  # how energy is known: a meter's name, "modelled: …", or "none: …" with the reason
    address: str = "local"
    peaks: tuple[Peaks, ...] = ()
    watts: Watts | UnsetType = UNSET  # what energy is modelled by, where no meter can be read

    @property
    def key(self) -> str:
        """What a measurement is cached under: same hardware, engines and stated watts, same key. The name and the peaks don't count."""
        told = (self.arch, self.cpu, self.cores, self.isa, self.memory_bytes // 2**28, self.os, sorted(self.backends.items()), self.address)
        stated = repr(self.watts) if isinstance(self.watts, Watts) else ""
        return hashlib.sha256((repr(told) + stated).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Conditions:
    """The circumstances of a measurement, as far as the system tells them (None where it does not)."""

    device: str
    engine: str  # backend and version
    threads: int
    affinity: tuple[int, ...]
    frequency_mhz: float | None
    temperature_c: float | None
    steal: float | None  # share of CPU time taken by the hypervisor during the measurement, 0..1
    load: float | None  # 1-minute load average before
    started: str  # ISO 8601, UTC
    watched: int = 0  # blocks (of a comparison: pairs) that count, with a look at the machine around each; 0: it wasn't looked at
    again: int = 0  # further ones, disturbed and measured again
    disturbed: int = 0  # of those that count: disturbed as well, beyond what is measured again at most
    disturbances: tuple[str, ...] = ()  # the worst of each kind, what was most often first


@dataclass(frozen=True)
class Measurement:
    """One model under one execution, measured in a process of its own."""

    execution: Execution
    conditions: Conditions
    latency: Latency
    cold_start_ms: float  # from bytes in memory to a loaded runner
    first_inference_ms: float
    size_bytes: int  # of the file
    peak_memory_bytes: int  # above the same process idle, loading included
    throughput_per_s: float | None = None
    energy_mj: float | None = None
    energy_source: str = "none"
    roofline_share: float | None = None  # of the bound that operations, bytes and measured peaks give; 1.0 = at the roof


@dataclass(frozen=True)
class Speedup:
    """Reference time / candidate time, by interleaved blocks in processes of their own (laws of measurement, 1)."""

    ratio: Interval  # median over pairs of blocks
    pairs: tuple[float, ...]
    reference_ms: tuple[float, ...]  # block medians, milliseconds per call, in order
    candidate_ms: tuple[float, ...]
    conclusive: bool  # relative half-width at most what was asked
    seconds: float
    reference_conditions: Conditions
    candidate_conditions: Conditions


@dataclass(frozen=True)
class ClassQuality:
    label: str
    n: int
    precision: Interval
    recall: Interval
    f1: float
    f1_interval: Interval | None = None


@dataclass(frozen=True)
class Quality:
    """A model's metric on one split. `scores` are per sample, in the split's order, so that two models can be paired."""

    metric: str
    split: str
    value: Interval
    scores: tuple[float, ...]
    per_class: tuple[ClassQuality, ...] = ()
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None
    macro_precision_interval: Interval | None = None
    macro_recall_interval: Interval | None = None
    macro_f1_interval: Interval | None = None
    also: Mapping[str, Interval] = field(default_factory=dict)  # other metrics of the same answers, by name


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus reference on the same samples: below zero is worse. McNemar's exact p for 0/1 scores; of others, right is higher."""

    difference: Interval
    candidate_only_right: int
    reference_only_right: int
    p_value: float
    detectable: float  # the smallest difference that this n can show at 95 % with 80 % power


@dataclass(frozen=True)
class ShapeSpeedup:
    """A speedup at one of several shapes of the inputs, over the engine that is fastest there in true fp32; medians of a call."""

    inputs: Mapping[str, tuple[int, ...]]
    reference: Execution
    ratio: Interval
    reference_ms: float
    candidate_ms: float


@dataclass(frozen=True)
class Trial:
    """One recipe under one execution, with all that was measured of it (validation split only)."""

    key: str
    rung: str  # "engine", "int8", …: where on the climb
    recipe: str  # its text form; "" is the model as it came
    execution: Execution
    state: Literal["measured", "screened", "failed"]  # screened: quality or a quick timing already ruled it out
    reason: str = ""  # why it was screened or failed
    size_bytes: int | None = None
    quality: Quality | None = None
    drop: PairedDifference | None = None
    speedup: Speedup | None = None
    measurement: Measurement | None = None
    divergence: float | None = None  # relative L2 error of the outputs against fp32, on validation samples
    touched: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    artifact: str | None = None  # the model file, relative to the study's folder
    seconds: float = 0.0
    shapes: tuple[ShapeSpeedup, ...] = ()  # where the task names several: `speedup` is the worst of them


@dataclass(frozen=True)
class Outcome:
    """One limit of the budget against what was reached, in the verdict."""

    limit: str  # the Budget's field name
    asked: float
    got: Interval
    met: bool
    unit: str  # "x", "ms", "bytes", "points" …
    source: str | UnsetType = UNSET  # how energy is known: Measurement.energy_source


@dataclass(frozen=True)
class Verdict:
    """The chosen model against the reference: interleaved timing, test split read once. `met` is what the exit code says."""

    trial: str  # key
    met: bool
    outcomes: tuple[Outcome, ...]
    speedup: Speedup
    measurement: Measurement
    reference_measurement: Measurement
    quality: Quality
    reference_quality: Quality
    drop: PairedDifference
    summary: str  # one sentence, for people
    shapes: tuple[ShapeSpeedup, ...] = ()  # as in Trial


@dataclass(frozen=True)
class Beside:
    """Another tool's model, measured as the verdict measures ours, on the engine where it is fastest."""

    name: str
    execution: Execution
    speedup: Speedup
    quality: Quality
    drop: PairedDifference
    size_bytes: int  # of its file
    shapes: tuple[ShapeSpeedup, ...] = ()  # as in Trial


@dataclass(frozen=True)
class Study:
    """All of a `fit`: what was asked, on what, every trial, and the verdict. On disk it is `study.json` and `trials/*.json`."""

    format: int
    created: str
    budget: Budget
    model: ModelSummary
    data: DataSummary
    device: Device
    reference_set: tuple[Execution, ...]
    reference: str  # key of the trial that is 1.0x
    trials: tuple[Trial, ...]
    verdict: Verdict | None
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    tables: tuple[LatencyTable, ...] = ()
    plans: tuple[PruningPlan, ...] = ()
    steps: tuple[StepEffect, ...] = ()  # of the chosen recipe, in order; the first is the model as it came
    widths: tuple[PartWidth, ...] = ()  # of the chosen model, where its recipe prunes
    beside: tuple[Beside, ...] = ()  # models of other makers that were held beside
    key: str = ""  # of all that was asked: the same call in the same place finds its study by it

    def trial(self, key: str) -> Trial:
        return next(trial for trial in self.trials if trial.key == key)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same inputs: how far apart their outputs are, where they part, what it costs (`edgewise compare a b`).

    layers: (tensor, relative L2 error of b against a) in the order of a's graph; empty when the graphs share no tensor to compare.
    agreement: share of samples with the same answer (top-1, or text); None for numbers. Quality and drop (b minus a) only with labels.
    """

    names: tuple[str, str]  # a: what is compared against, b
    n: int  # samples
    relative_l2: float
    max_abs: float
    agreement: Interval | None
    layers: tuple[tuple[str, float], ...] = ()
    first_parting: str | None = None  # the first tensor whose error is above what rounding explains
    quality_a: Quality | None = None
    quality_b: Quality | None = None
    drop: PairedDifference | None = None


@dataclass(frozen=True)
class WidthTime:
    """An entry of a latency table: the whole model's time with one part at one width, to the dense model's.

    Parts that are alike are measured together: `together` says how many were narrowed at once (`ratio` is one's share of what that saved),
    `measured_as` the part that stands for this one ("" where it is measured itself).
    """

    part: str
    width: int
    ratio: Interval
    measured_as: str = ""
    together: int = 1


@dataclass(frozen=True)
class JointTime:
    """The whole model's time with many parts narrowed at once, to the dense model's. Parts that aren't named are whole."""

    widths: Mapping[str, int]
    ratio: Interval


@dataclass(frozen=True)
class LayerModel:
    """What was fitted to a latency table (see `edgewise.measure.layermodel`).

    shares: kind of layer -> its share of the dense time, split by what it grows with (`layermodel.FEATURES`).
    detail: how far entries correct the layers' sum, 0..1. error, worst: of joint configurations that were left out of the fit, the median
    and the largest relative error of the predicted time; None where there were too few.
    """

    shares: Mapping[str, tuple[float, ...]]
    detail: float
    error: float | None = None
    worst: float | None = None


@dataclass(frozen=True)
class LatencyTable:
    """What widths cost on a device: measured on the whole model, in the form, engine, threads and shapes that will serve it.

    form: the recipe that made the measured graph of the trained one, "" for itself. units: every part's full width. corrections: whole
    models measured later, which predictions near them follow. scatter: the dense model's time to its own, measured the same way.
    """

    execution: Execution
    form: str
    graph: str  # SHA-256
    inputs: Mapping[str, tuple[int, ...]]  # shapes
    device: str  # Device.key
    created: str  # ISO 8601, UTC
    dense_ms: float
    units: Mapping[str, int]
    entries: tuple[WidthTime, ...] = ()
    joint: tuple[JointTime, ...] = ()
    corrections: tuple[JointTime, ...] = ()
    model: LayerModel | None = None
    scatter: Interval | None = None
    conditions: Conditions | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruningPlan:
    """Widths that were solved for on a latency table, measured whole before any training. Factors are over the reference.

    form: the recipe's end that serves, as in LatencyTable. measured: of untrained weights of these shapes, as fast as trained ones.
    """

    asked: float
    form: str
    execution: Execution
    predicted: float
    measured: Interval
    widths: Mapping[str, int]  # only what became narrower


@dataclass(frozen=True)
class StepEffect:
    """The model after one step of the chosen recipe: what that cost, and what it gained. Validation split; quick timing, one race."""

    step: str  # its text; "" is the model as it came
    seconds: float  # that the step took
    quality: Interval
    speedup: Interval | None  # over the reference, run as the chosen model is; None where the engine can't run what the step left
    operations: int  # multiply-accumulates of one sample
    parameters: int


@dataclass(frozen=True)
class PartWidth:
    """A prunable part: how many of its units the chosen model has left."""

    part: str
    kind: str  # "channels", "neurons" or "heads"
    units: int  # before
    width: int  # after
