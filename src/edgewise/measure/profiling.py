"""One model under one execution, measured alone: what `edgewise measure` shows and what a verdict records."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from edgewise import backends
from edgewise.devices import Health, Watch, meters
from edgewise.errors import EdgewiseError
from edgewise.measure import elsewhere
from edgewise.measure.cores import reserved
from edgewise.measure.messages import Timed
from edgewise.measure.process import LIMIT_S, Process
from edgewise.measure.referee import Referee
from edgewise.measure.roofline import Work, roofline_share
from edgewise.measure.subject import Subject
from edgewise.records import Device, Latency, Measurement
from edgewise.types import Execution, Inputs, Watts

SLICES = 8  # of the time: one that the machine disturbed is taken again
KEEP = 2000  # samples stored: p99 stands on 20 of them, and a study of a hundred trials stays below 10 MB


def profile(
    model: bytes,
    execution: Execution,
    inputs: Inputs,
    device: Device,
    *,
    seconds: float = 2.0,
    min_samples: int = 100,
    work: Work | None = None,
    limit_s: float = LIMIT_S,
) -> Measurement:
    """Measure `model` in a process of its own, pinned to `execution.threads` cores, its named axes fixed to the shapes of `inputs`.

    cold_start_ms: from the model's bytes in memory to a loaded runner, the engine's import included, as a program that starts pays it.
    first_inference_ms: the call after that. latency: single calls after a warm-up, for `seconds` and at least `min_samples` times; of more
    than KEEP calls every k-th is stored. throughput_per_s: samples (calls × batch) per second of the same calls.
    peak_memory_bytes: resident high-water mark of loading, first inference and all calls, above the interpreter with numpy and edgewise
    imported and before the engine is (the model's bytes are held once while it loads). roofline_share: only with `work` and measured peaks
    of this thread count in `device`. energy_mj: per call, of the whole package or board, idle part included, when the device has a meter;
    where `device` states watts instead, the mean call's time × those of a busy board. energy_source says which.

    The time is in SLICES: one that the machine disturbed is taken again, two more at most.

    Raises InvalidModel or InvalidInput when the engine refuses the model or the inputs, MeasurementFailed when the process dies or hangs.
    """
    if (there := elsewhere.of(device)) is not None:
        options = {"seconds": seconds, "min_samples": min_samples, "limit_s": limit_s}
        return _modelled(there.profile(Subject(model, execution), inputs, work, device.peaks, options), device, inputs)
    subject = Subject(model, execution)
    threads = execution.threads
    meter = None if isinstance(device.watts, Watts) else _meter(execution)
    with reserved(threads) as cores:
        watch = Watch(cores)
        with Process(cores, threads=threads, limit_s=limit_s) as process:
            loaded = process.load(subject, inputs)
            first_ms = process.first()
            stop = meter.start() if meter else None
            referee = Referee(Health(cores, lambda: [process.pid]), least=SLICES)
            pieces, all_calls = sliced(process, referee, seconds, min_samples)
            joules = stop() if stop else None
            peak = process.memory()
        conditions = watch.conditions(device=device.name, engine=f"{execution.backend} {loaded.version}", threads=threads)
    latency = Latency(tuple(sample for piece in pieces for sample in piece.samples_ms))
    calls, elapsed_ms = sum(piece.calls for piece in pieces), sum(piece.elapsed_ms for piece in pieces)
    source = device.energy if meter is None else meter.name if joules is not None else f"none: {meter.name} could not be read"
    found = Measurement(
        execution=execution,
        conditions=referee.told(conditions),
        latency=latency,
        cold_start_ms=loaded.milliseconds,
        first_inference_ms=first_ms,
        size_bytes=len(model),
        peak_memory_bytes=peak,
        throughput_per_s=calls * batch_size(inputs) / elapsed_ms * 1e3,
        energy_mj=None if joules is None else joules * 1e3 / all_calls,  # the meter ran while it warmed up, and while it was disturbed
        energy_source=source,
        roofline_share=roofline_share(device.peaks, work, threads, latency.p50_ms),
    )
    return _modelled(found, device, inputs)


def sliced(process: Process, referee: Referee, seconds: float, min_samples: int) -> tuple[list[Timed], int]:
    """SLICES pieces of the time, those that were disturbed taken again; and all calls there were, of what counts and what doesn't."""
    pieces: list[Timed] = []
    again, calls = False, 0
    referee.begin()
    while len(pieces) < SLICES:
        piece = process.sample(seconds / SLICES, -(-min_samples // SLICES), KEEP // SLICES, again=again)
        calls += piece.calls + piece.warm
        again = True
        if referee.counts():
            pieces.append(piece)
    return pieces, calls


def batch_size(inputs: Inputs) -> int:
    """Samples in one call: the leading axis that all inputs share, else 1."""
    leading = {array.shape[0] if array.ndim else 1 for array in inputs.values()}
    return leading.pop() if len(leading) == 1 else 1


def _meter(execution: Execution) -> meters.Meter | None:
    """A backend whose engine computes on a GPU says so by an attribute `gpu`: then the card's meter counts."""
    gpu = False
    with suppress(EdgewiseError):  # a name that is none is an error where it is loaded
        gpu = bool(getattr(backends.get(execution.backend), "gpu", False))
    return meters.best(gpu=gpu)


def _modelled(found: Measurement, device: Device, inputs: Inputs) -> Measurement:
    """With the energy that the device's stated watts come to; as it is where it states none."""
    if not isinstance(device.watts, Watts) or not found.throughput_per_s:
        return found
    mean_ms = batch_size(inputs) / found.throughput_per_s * 1e3
    return replace(found, energy_mj=device.watts.energy_mj(mean_ms), energy_source=str(device.watts))
