"""`edgewise measure --scenario`: a model asked as MLPerf's LoadGen asks, on every engine of a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewise.errors import EdgewiseError, InvalidInput, MeasurementFailed, MissingExtra

if TYPE_CHECKING:
    from edgewise.cli.progress import Tell
    from edgewise.measure.scenarios import ScenarioRun
    from edgewise.records import Device
    from edgewise.types import Execution, Inputs, Signature


@dataclass(frozen=True)
class Runs:
    """On one device."""

    device: Device
    done: tuple[ScenarioRun, ...]
    failed: tuple[tuple[Execution, str], ...]


def check(scenario: str, *, queries: int | None, watts: str) -> None:
    """Raises InvalidInput for a scenario that there is none of, for options that don't go together, and for watts that can't be read."""
    from edgewise.measure.scenarios import rules
    from edgewise.types import Watts

    if scenario:
        rules(scenario)
    if watts:
        Watts.read(watts)
    if scenario and watts:
        raise InvalidInput("--watts models the energy of a call, and a scenario gives none: leave one of them out")
    if queries is not None and not scenario:
        raise InvalidInput(f"--queries {queries} is of a scenario: give --scenario single-stream, multi-stream or offline besides")


def batch(scenario: str, signature: Signature, asked: int | None) -> int:
    """Samples of one call; see `scenarios.batch`."""
    from edgewise.measure import scenarios

    return scenarios.batch(scenario, signature, asked)


def runs(
    scenario: str,
    bytes_for: Callable[[Execution, Inputs], bytes],
    executions: Sequence[Execution],
    inputs: Inputs,
    device: Device,
    seconds: float,
    queries: int | None,
    tell: Tell,
) -> Runs:
    """One engine after the other. One that can't is noted, and the others go on; MeasurementFailed when none can."""
    from edgewise.measure import scenarios

    done, failed = [], []
    for number, execution in enumerate(executions):
        tell(f"{scenario} on {execution}", number / len(executions), (seconds + 2.0) * (len(executions) - number))
        try:
            model = bytes_for(execution, inputs)
            done.append(scenarios.scenario(model, execution, inputs, device, name=scenario, seconds=seconds, queries=queries))
        except MissingExtra as error:
            raise MissingExtra(f"{device.name}: {error}") from error
        except EdgewiseError as error:
            failed.append((execution, str(error)))
    if not done:
        raise MeasurementFailed(f"{device.name}: {'; '.join(f'{execution}: {reason}' for execution, reason in failed)}")
    return Runs(device, tuple(done), tuple(failed))


def show(found: Runs, name: str, inputs: Inputs, notes: Sequence[str], *, heading: bool) -> None:
    """heading: says which device it is of."""
    from edgewise.cli import given
    from edgewise.cli.terminal import clean, console, listing
    from edgewise.report import numbers

    out, first = console(), found.done[0]
    if heading:
        out.print(clean(f"{found.device.name}: {found.device.cpu}"), style="bold")
    columns = ("samples/s", "samples") if first.result_ms is None else (f"p{_percentile(first)}", "p50", "p99", "queries")
    table = listing(first.summary.scenario, "LoadGen says", *columns, right=columns)
    for run in found.done:
        said = run.summary
        if run.result_ms is None:
            figures: tuple[str, ...] = (numbers.significant(said.samples_per_second), numbers.count(run.samples))
        else:
            times = (run.result_ms, said.percentiles_ms["50"], said.percentiles_ms["99"])
            figures = (*map(numbers.ms, times), numbers.count(run.queries))
        table.add_row(clean(str(run.execution)), "VALID" if said.valid else "INVALID", *figures)
    out.print(clean(f"{name}, {_asked(first)}"), style="bold")
    out.print(table)
    out.print()
    for run in found.done:
        if run.summary.reasons:
            out.print(
                clean(f"{run.execution} is INVALID: {'; '.join(reason.rstrip('.') for reason in run.summary.reasons)}."), style="yellow"
            )
    caveat = min(found.done, key=lambda run: run.samples).caveat  # what the others lack, it lacks too
    out.print(clean(f"N{caveat[1:]}. Not verified by MLCommons."), style="yellow")
    out.print(clean(f"LoadGen {first.loadgen}; its own overhead is part of every figure. Input: {given.feeds(inputs)}."), style="dim")
    for run in found.done:
        if run.conditions.disturbed:
            out.print(clean(f"{run.execution} was disturbed: {'; '.join(run.conditions.disturbances)}."), style="yellow")
    for note in notes:
        out.print(clean(f"Note: {note}."), style="yellow")
    for execution, reason in found.failed:
        out.print(clean(f"✗ {execution}: {reason}"), style="red")


def _percentile(run: ScenarioRun) -> str:
    from edgewise.measure.scenarios import rules

    return f"{100 * (rules(run.scenario).percentile or 0):g}"


def _asked(run: ScenarioRun) -> str:
    """What a query was, and how it was answered."""
    each = f"{run.batch} samples a call" if run.batch > 1 else "a sample a call"
    match run.summary.scenario:
        case "SingleStream":
            return "one sample after another"
        case "MultiStream":
            return f"{run.samples // max(1, run.queries)} samples a query, {each}"
        case _:
            return f"all samples in one query, {each}"


def record(found: Runs, name: str, inputs: Inputs) -> dict[str, Any]:
    """For `--json`."""
    return {
        "model": name,
        "inputs": {key: list(array.shape) for key, array in inputs.items()},
        "device": found.device.name,
        "runs": found.done,
        "failed": [{"execution": execution, "reason": reason} for execution, reason in found.failed],
    }
