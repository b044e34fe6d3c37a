"""Time as a ratio: models in processes of their own, block by block in turn (laws of measurement, 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from time import monotonic

from edgewise.devices import Health, Watch
from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.measure import elsewhere
from edgewise.measure.cores import reserved
from edgewise.measure.process import LIMIT_S, Process
from edgewise.measure.referee import Referee
from edgewise.measure.statistics import median_interval
from edgewise.measure.subject import Subject
from edgewise.records import Conditions, Device, Interval, Speedup
from edgewise.types import Inputs

# Give it the least length of a block in milliseconds; it gives the median milliseconds per call.
BlockTimer = Callable[[float], float]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Paired:
    """Blocks of two sides in turn, and the ratio of their times."""

    reference_ms: tuple[float, ...]
    candidate_ms: tuple[float, ...]
    pairs: tuple[float, ...]
    ratio: Interval
    conclusive: bool
    seconds: float


def compare(
    reference: Subject,
    candidate: Subject,
    inputs: Inputs,
    device: Device,
    *,
    half_width: float = 0.01,
    block_ms: float = 50,
    min_pairs: int = 20,
    max_seconds: float = 60,
    renew_pairs: int | None = None,
    limit_s: float = LIMIT_S,
) -> Speedup:
    """How many times faster `candidate` is than `reference` on the same `inputs`, same cores, same number of threads.

    Both live in processes of their own, the idle one blocked. Blocks of at least `block_ms` go A B, B A, A B …: each pair is adjacent in
    time, and a steady drift favours neither side. The ratio is the median over pairs, with a distribution-free 95 % interval; it stops when
    the interval's relative half-width is at most `half_width`, or after `max_seconds`, and is then not conclusive. With `renew_pairs` both
    processes are started anew after that many pairs: where memory happens to lie in one process moves a tiny model's time by a percent or
    two, which no number of pairs in that process shows. A pair that the machine disturbed (`devices.Health`) is measured again, a third
    more pairs at most; the conditions say how many, and why.

    Raises InvalidInput for different thread counts (what a speedup means: ARCHITECTURE.md), InvalidModel when an engine refuses a model,
    MeasurementFailed when a process dies or hangs for `limit_s`.
    """
    if (there := elsewhere.of(device)) is not None:
        options = {"half_width": half_width, "block_ms": block_ms, "min_pairs": min_pairs, "max_seconds": max_seconds}
        return there.compare(reference, candidate, inputs, {**options, "renew_pairs": renew_pairs, "limit_s": limit_s})
    threads = reference.execution.threads
    if candidate.execution.threads != threads:
        raise InvalidInput(f"a speedup compares like with like: reference has threads={threads}, candidate {candidate.execution.threads}")
    with reserved(threads) as cores, ExitStack() as running:
        watch = Watch(cores)
        processes: list[Process] = []
        engines: list[str] = []
        referee = Referee(Health(cores, lambda: [process.pid for process in processes]), least=min_pairs)

        def launch() -> None:
            running.close()
            processes.clear()
            engines.clear()
            for subject in (reference, candidate):
                process = running.enter_context(Process(cores, threads=threads, limit_s=limit_s))
                engines.append(f"{subject.execution.backend} {process.load(subject, inputs).version}")
                process.first()
                processes.append(process)

        found = paired(
            lambda min_ms: processes[0].block(min_ms),
            lambda min_ms: processes[1].block(min_ms),
            half_width=half_width,
            block_ms=block_ms,
            min_pairs=min_pairs,
            max_seconds=max_seconds,
            launch=launch,
            renew_pairs=renew_pairs,
            referee=referee,
        )
        conditions = [referee.told(watch.conditions(device=device.name, engine=engine, threads=threads)) for engine in engines]
    return Speedup(
        found.ratio, found.pairs, found.reference_ms, found.candidate_ms, found.conclusive, found.seconds, conditions[0], conditions[1]
    )


def paired(
    reference: BlockTimer,
    candidate: BlockTimer,
    *,
    half_width: float = 0.01,
    block_ms: float = 50,
    min_pairs: int = 20,
    max_seconds: float = 60,
    launch: Callable[[], None] = lambda: None,
    renew_pairs: int | None = None,
    referee: Referee | None = None,
    clock: Clock = monotonic,
) -> Paired:
    """The schedule of `compare`, over anything that times a block. `launch` starts both sides, first and at every renewal.

    A pair that `referee` doesn't let count is measured again, in the same order. seconds: with what was measured again.

    The interval is looked at after `min_pairs` pairs and then each time that there are a quarter more: stopping at the first of many looks
    that pleases would make the interval hold the truth less often than it says (simulated, pairs that scatter by 4 %: 91 % with a look
    at every pair, 95 % so).
    """
    limits = {"half_width": half_width, "block_ms": block_ms, "min_pairs": min_pairs, "max_seconds": max_seconds}
    for name, value in limits.items():
        if not value > 0:
            raise InvalidInput(f"{name}={value}: give a number above 0")
    times: tuple[list[float], list[float]] = ([], [])
    pairs: list[float] = []
    look = max(min_pairs, 6)  # fewer have no 95 % interval
    referee = referee or Referee()
    launched = False
    start = clock()
    while True:
        if not launched:
            launch()
            reference(block_ms)  # the first block of each process warms it up and isn't counted
            candidate(block_ms)
            referee.begin()
            launched = True
        found = {side: (reference, candidate)[side](block_ms) for side in ((0, 1) if len(pairs) % 2 == 0 else (1, 0))}
        seconds = clock() - start
        if not referee.counts(last=seconds >= max_seconds):
            continue
        for side in (0, 1):
            times[side].append(found[side])
        pairs.append(found[0] / found[1])
        launched = not (renew_pairs and len(pairs) % renew_pairs == 0)
        if len(pairs) < look and seconds < max_seconds:
            continue
        ratio = median_interval(pairs)
        conclusive = len(pairs) >= max(min_pairs, 6) and ratio.half_width <= half_width * ratio.value
        if conclusive or seconds >= max_seconds:
            return Paired(tuple(times[0]), tuple(times[1]), tuple(pairs), ratio, conclusive, seconds)
        look = ceil(1.25 * len(pairs))


@dataclass(frozen=True)
class Contender:
    """One subject's part in a race. `ratio`: the first subject's time over this one's, pair by pair; None when it could not run."""

    subject: Subject
    block_ms: tuple[float, ...]
    ratio: Interval | None
    dropped: bool  # clearly slower than the fastest: it left the race early
    failed: str  # why the engine refused it, or how its process died; "" when it ran
    conditions: Conditions | None


def race(
    subjects: list[Subject],
    inputs: Inputs,
    device: Device,
    *,
    block_ms: float = 50,
    min_rounds: int = 6,
    rounds: int = 16,
    max_seconds: float = 60,
    limit_s: float = LIMIT_S,
) -> tuple[Contender, ...]:
    """Time all `subjects` in one go, block by block in a rotating order, to choose among them; `compare` then proves the choice.

    One that is clearly slower than the fastest leaves the race after `min_rounds`. One that can't be loaded, or whose process dies, has its
    reason in `failed` and doesn't end the race, unless it is the first, which the ratios refer to: then that error is raised.
    """
    if not subjects:
        raise InvalidInput("a race needs at least one subject")
    if (there := elsewhere.of(device)) is not None:
        options = {"block_ms": block_ms, "min_rounds": min_rounds, "rounds": rounds, "max_seconds": max_seconds, "limit_s": limit_s}
        return there.race(subjects, inputs, options)
    failed: dict[int, str] = {}
    engines: dict[int, str] = {}
    timers: dict[int, BlockTimer] = {}
    processes: dict[int, Process] = {}
    with ExitStack() as stack:
        widest = max(subject.execution.threads for subject in subjects)
        cores = stack.enter_context(reserved(widest))
        watch = Watch(cores)
        for i, subject in enumerate(subjects):
            threads = subject.execution.threads
            try:
                process = stack.enter_context(Process(cores[:threads], threads=threads, limit_s=limit_s))
                engines[i] = f"{subject.execution.backend} {process.load(subject, inputs).version}"
                process.first()
                timers[i], processes[i] = process.block, process
            except (InvalidInput, MeasurementFailed) as error:
                if i == 0:
                    raise
                failed[i] = str(error)

        def ours() -> list[int]:
            # All of them: threads of the one that ran before may still spin for work.
            return [process.pid for i, process in processes.items() if i not in failed]

        referees = {i: Referee(Health(cores[: subjects[i].execution.threads], ours), least=min_rounds) for i in timers}
        times, dropped = laps(
            timers, failed, block_ms=block_ms, min_rounds=min_rounds, rounds=rounds, max_seconds=max_seconds, referees=referees
        )
        conditions = {
            i: watch.conditions(device=device.name, engine=engine, threads=subjects[i].execution.threads) for i, engine in engines.items()
        }
        conditions |= {i: referee.told(conditions[i]) for i, referee in referees.items()}
    return tuple(
        Contender(
            subject,
            tuple(times.get(i, ())),
            ratio_to(times[0], times[i]) if i not in failed and times.get(i) else None,
            i in dropped,
            failed.get(i, ""),
            conditions.get(i),
        )
        for i, subject in enumerate(subjects)
    )


def laps(
    timers: dict[int, BlockTimer],
    failed: dict[int, str],
    *,
    block_ms: float,
    min_rounds: int,
    rounds: int,
    max_seconds: float,
    referees: Mapping[int, Referee] | None = None,
    clock: Clock = monotonic,
) -> tuple[dict[int, list[float]], set[int]]:
    """The schedule of `race`: block medians per timer, and which were dropped. A timer that fails on the way is added to `failed`.

    A block that its timer's referee doesn't let count is measured again at once: by the machine alone, so it need not take others with it.
    """
    times: dict[int, list[float]] = {i: [] for i in timers}
    running = list(timers)
    dropped: set[int] = set()
    for i in running:
        _timed(timers, failed, i, block_ms)  # warms it up
    start = clock()
    for lap in range(rounds):
        running = [i for i in running if i not in failed]
        turn = lap % len(running)
        for i in running[turn:] + running[:turn]:
            referee = (referees or {}).get(i) or Referee()
            referee.begin()
            value = _timed(timers, failed, i, block_ms)
            while value is not None and not referee.counts(last=clock() - start >= max_seconds):
                value = _timed(timers, failed, i, block_ms)
            if value is not None:
                times[i].append(value)
        if clock() - start >= max_seconds:
            break
        if lap + 1 >= min_rounds:
            ratios = {i: ratio_to(times[0], times[i]) for i in running if i not in failed}
            lead = max(ratio.low for ratio in ratios.values())
            slow = {i for i, ratio in ratios.items() if ratio.high < lead and i != 0}
            dropped |= slow
            running = [i for i in running if i not in slow]
            if len(running) == 1:
                break
    return times, dropped


def ratio_to(first: list[float], other: list[float]) -> Interval:
    """Median of first/other over the rounds that both ran."""
    return median_interval([a / b for a, b in zip(first, other, strict=False)])


def _timed(timers: dict[int, BlockTimer], failed: dict[int, str], i: int, block_ms: float) -> float | None:
    try:
        return timers[i](block_ms)
    except (InvalidInput, MeasurementFailed) as error:
        if i == 0:
            raise
        failed[i] = str(error)
        return None
