"""The nouns that flow between rooms: plain frozen data, and the protocols of what plugs in.

Floor 0: imports nothing of the package but `errors`. Everything here can be written as JSON by msgspec and read back
(`edgewise.types.to_json`, `from_json`), so a study on disk is these classes and nothing else. Units stand in field names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec
import numpy as np

from edgewise.errors import InvalidInput

Inputs = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]

# A point of a metric in 0..1; a speed target counts as met from 2 % below (laws of measurement, 5).
SPEED_TOLERANCE = 0.02

T = TypeVar("T")


def to_json(record: Any) -> bytes:
    """`record` (any dataclass of this module) as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1)


def from_json(data: bytes, kind: type[T]) -> T:
    """Read what `to_json` wrote. Raises InvalidInput when the text is not a `kind`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidInput(f"not a {kind.__name__} record: {error}") from error


# --- what a model takes and gives ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. A named axis is a string, a fixed one a number: `("batch", 1, 28, 28)`. `dtype` is numpy's name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def concrete(self, **axes: int) -> tuple[int, ...]:
        """The shape with named axes set from `axes`; axes that are not given become 1."""
        return tuple(d if isinstance(d, int) else axes.get(d, 1) for d in self.shape)


@dataclass(frozen=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batched(self) -> bool:
        """Whether every input and output leads with the same named axis, so that several samples may share one call."""
        leading = {spec.shape[0] if spec.shape else 0 for spec in (*self.inputs, *self.outputs)}
        return len(leading) == 1 and isinstance(next(iter(leading)), str)


@dataclass(frozen=True)
class Execution:
    """How a graph is run: which engine, in which floating precision ("fp32", "bf16"), on how many threads.

    int8 is a property of the graph, not of the execution: a quantized graph run with precision "fp32" keeps fp32 where it is float.
    `options` are the backend's own, as text (see each backend's docstring).
    """

    backend: str
    precision: str = "fp32"
    threads: int = 1
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = "".join(f" {key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.backend} {self.precision} ×{self.threads}{extra}"


@runtime_checkable
class Runner(Protocol):
    """A loaded model. One caller at a time."""

    @property
    def signature(self) -> Signature: ...

    def run(self, inputs: Inputs) -> Outputs: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """An engine that can load an ONNX graph. Implementations live in `edgewise.backends`, nothing else asks for their names."""

    @property
    def name(self) -> str: ...

    def version(self) -> str: ...

    def precisions(self) -> tuple[str, ...]:
        """Floating precisions that this CPU runs natively here; "fp32" is true fp32 and always first."""
        ...

    def load(self, model: bytes, execution: Execution) -> Runner:
        """`model`: serialized ONNX ModelProto with its weights inside."""
        ...


# --- data ---------------------------------------------------------------------------------------------------------


class Split(Protocol):
    """One part of a data set, preprocessed as the model wants it. Order is fixed, so that two models can be paired sample by sample."""

    @property
    def name(self) -> str: ...

    @property
    def targets(self) -> np.ndarray | None:
        """(samples,) int64 class indices; None when unlabelled."""
        ...

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """Yield (inputs, targets): every input array leads with the batch axis."""
        ...


class Task(Protocol):
    """What a model is for. The field's part of it: training adds a loss (see `edgewise.tasks`)."""

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> str:
        """Its name; higher is better, in 0..1."""
        ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def split(self, name: Literal["train", "calibration", "validation", "test"]) -> Split: ...

    def example_inputs(self, n: int = 1) -> dict[str, np.ndarray]: ...

    def fingerprint(self) -> str:
        """SHA-256 over samples, splits and preprocessing: part of every trial's key."""
        ...


# --- what is asked ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """What the model has to meet. Limits that are None do not bind.

    speedup: against the dense model in true fp32 on the fastest engine of the reference set, same threads.
    latency_ms: of one call, the median unless `percentile` says otherwise. percentile: which one latency_ms means.
    size_bytes: of the package. memory_bytes: peak above an idle process, loading included. energy_mj: per inference.
    max_drop: of the task's metric (0..1), absolute: 0.01 is one point; with `relative_drop`, a share of the reference's metric.
    """

    speedup: float | None = None
    latency_ms: float | None = None
    percentile: Literal["p50", "p95"] = "p50"
    size_bytes: int | None = None
    memory_bytes: int | None = None
    energy_mj: float | None = None
    max_drop: float = 0.01
    relative_drop: bool = False

    def __post_init__(self) -> None:
        for name in ("speedup", "latency_ms", "size_bytes", "memory_bytes", "energy_mj"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"{name}={value!r} is no limit; give a positive number, or leave it out")
        if not (math.isfinite(self.max_drop) and 0 <= self.max_drop <= 1):
            raise InvalidInput(f"max_drop={self.max_drop!r}: give a share of the metric in 0..1; one point is 0.01 (in the shell: 1%)")

    def allowed_drop(self, reference: float) -> float:
        """The drop allowed, absolute, for a reference whose metric is `reference`."""
        return self.max_drop * reference if self.relative_drop else self.max_drop


# --- what was measured --------------------------------------------------------------------------------------------


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
class Peaks:
    """What the device reaches in practice, one entry per thread count measured: the roofs of the roofline."""

    threads: int
    fp32_gflops: float
    int8_gops: float
    memory_gbps: float


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

    @property
    def key(self) -> str:
        """What a measurement is cached under: same hardware and engines, same key. The name and the peaks don't count."""
        import hashlib

        text = repr(
            (self.arch, self.cpu, self.cores, self.isa, self.memory_bytes // 2**28, self.os, sorted(self.backends.items()), self.address)
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus reference on the same samples: below zero is worse. McNemar's exact p for 0/1 scores."""

    difference: Interval
    candidate_only_right: int
    reference_only_right: int
    p_value: float
    detectable: float  # the smallest difference that this n can show at 95 % with 80 % power


# --- what a pass gives back ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compressed:
    """A pass's result: the new model (of the pass's level), what it touched, and what it left alone, with the reason."""

    model: Any
    touched: tuple[str, ...]
    skipped: Mapping[str, str]
    notes: tuple[str, ...] = ()


# --- the study ----------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Outcome:
    """One limit of the budget against what was reached, in the verdict."""

    limit: str  # the Budget's field name
    asked: float
    got: Interval
    met: bool
    unit: str  # "x", "ms", "bytes", "points" …


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


@dataclass(frozen=True)
class ModelSummary:
    name: str
    sha256: str
    parameters: int
    operations: int  # multiply-accumulates of one sample
    size_bytes: int
    nodes: int
    signature: Signature


@dataclass(frozen=True)
class DataSummary:
    task: str
    metric: str
    source: str
    fingerprint: str
    samples: Mapping[str, int]  # split -> n
    labels: tuple[str, ...]
    cleaning: tuple[str, ...] = ()  # what was found and what was done about it


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

    def trial(self, key: str) -> Trial:
        return next(trial for trial in self.trials if trial.key == key)


# --- two models side by side --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two models on the same inputs: how far apart their outputs are, where they part, what it costs (`edgewise compare a b`).

    layers: (tensor, relative L2 error of b against a) in the order of a's graph; empty when the graphs share no tensor to compare.
    agreement: share of samples on which both give the same answer (top-1). Quality and drop (b minus a) only with labels.
    """

    names: tuple[str, str]  # a: what is compared against, b
    n: int  # samples
    relative_l2: float
    max_abs: float
    agreement: Interval
    layers: tuple[tuple[str, float], ...] = ()
    first_parting: str | None = None  # the first tensor whose error is above what rounding explains
    quality_a: Quality | None = None
    quality_b: Quality | None = None
    drop: PairedDifference | None = None
