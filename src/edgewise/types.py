"""The nouns that flow between rooms: plain frozen data, and the protocols of what plugs in.

Floor 0: imports nothing of the package but `errors`. Everything here can be written as JSON by msgspec and read back
(`edgewise.types.to_json`, `from_json`), so a study on disk is these classes and nothing else. Units stand in field names.
"""

from __future__ import annotations

import math
import re
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
    """An engine that can load a graph. Implementations live in `edgewise.backends`, nothing else asks for their names.

    One that can't read ONNX has an attribute `form` besides, the name of the form that it loads (`backends.form` says "onnx" for others).
    One that compiles for shapes, so that open axes cost it time in every call, has `compiles = True`. One whose runners can share a model's
    weights has `load_all(model, executions)`.
    """

    @property
    def name(self) -> str: ...

    def version(self) -> str: ...

    def precisions(self) -> tuple[str, ...]:
        """Floating precisions that this CPU runs natively here; "fp32" is true fp32 and always first."""
        ...

    def load(self, model: bytes, execution: Execution) -> Runner:
        """`model`: serialized ONNX ModelProto with its weights inside, or the engine's own form."""
        ...


class Split(Protocol):
    """One part of a data set, preprocessed as the model wants it. Order is fixed, so that two models can be paired sample by sample.

    Where a sample is several rows of a batch, `combined(parts)` makes outputs of all batches, in order, into one for each sample.
    """

    @property
    def name(self) -> str: ...

    @property
    def targets(self) -> np.ndarray | None:
        """(samples, …), as the metric has them (of classes int64 indices); None when unlabelled."""
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
        """Its name (see `data.metrics`); higher is better, and 1 the best."""
        ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def split(self, name: Literal["train", "calibration", "validation", "test"]) -> Split: ...

    def example_inputs(self, n: int = 1) -> dict[str, np.ndarray]: ...

    def fingerprint(self) -> str:
        """SHA-256 over samples, splits and preprocessing: part of every trial's key."""
        ...


@dataclass(frozen=True)
class Budget:
    """What the model has to meet. Limits that are None do not bind.

    speedup: against the dense model in true fp32 on the fastest engine of the reference set, same threads.
    latency_ms: of one call, the median unless `percentile` says otherwise. percentile: which one latency_ms means.
    size_bytes: of the package. memory_bytes: peak above an idle process, loading included. energy_mj: per inference, by a meter,
    or by the watts that the device states.
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


@dataclass(frozen=True)
class Peaks:
    """What the device reaches in practice, one entry per thread count measured: the roofs of the roofline."""

    threads: int
    fp32_gflops: float
    int8_gops: float
    memory_gbps: float


@dataclass(frozen=True)
class Watts:
    """What a whole board takes in each state, as stated by whoever measured it or read it in a data sheet: a model of energy.

    busy: while it infers, with what it would take anyway. idle: while it waits. An inference is charged with every watt that flows while
    it runs, as a meter of the board would charge it, so idle enters no figure: it says how much of busy isn't the inference's own.
    """

    busy: float
    idle: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.busy) and self.busy > 0):
            raise InvalidInput(f"busy={self.busy:g}: give the watts that the board takes while it infers, above 0")
        if self.idle is not None and not 0 <= self.idle <= self.busy:
            raise InvalidInput(f"idle={self.idle:g}: give the watts that the board takes while it waits, 0 to busy={self.busy:g}")

    @classmethod
    def read(cls, text: str) -> Watts:
        """From `text`'s form, as "idle=1.9,busy=4.2". Raises InvalidInput."""
        parts = [re.fullmatch(r"(idle|busy)=(\d+\.?\d*|\.\d+)", part.replace(" ", "")) for part in text.split(",")]
        given = {part[1]: float(part[2]) for part in parts if part}
        if "busy" not in given or len(given) != len(parts):
            raise InvalidInput(f"watts {text!r}: give what the board takes in each state, as idle=1.9,busy=4.2; idle may be left out")
        return cls(**given)

    @property
    def text(self) -> str:
        return f"busy={self.busy:g}" if self.idle is None else f"idle={self.idle:g},busy={self.busy:g}"

    def __str__(self) -> str:
        """How energy is said to be known where it comes from here."""
        idle = "" if self.idle is None else f", {self.idle:g} W idle"
        return f"modelled: {self.busy:g} W busy{idle}, as stated"

    def energy_mj(self, busy_ms: float) -> float:
        """Of so many milliseconds' work: W · ms = mJ."""
        return self.busy * busy_ms


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
class Compressed:
    """A pass's result: the new model (of the pass's level), what it touched, and what it left alone, with the reason."""

    model: Any
    touched: tuple[str, ...]
    skipped: Mapping[str, str]
    notes: tuple[str, ...] = ()
