"""One call of what requests share, in whatever thread; and what is told and counted of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.errors import EdgewiseError
from edgewise.host.batching import NotRows, chosen, joined, split
from edgewise.host.tickets import Version
from edgewise.types import Inputs, Outputs, Runner

# What the schedule's refusals are in words.
WHY = {
    "never": "its deadline is sooner than its own call ends",
    "full": "as many requests wait as may",
    "deadline": "its deadline can't be kept with what waits already",
}


@dataclass(eq=False, slots=True)
class Ran:
    """outcomes: by request, in order. together: whether the rows could be told apart; False: each was then run alone."""

    outcomes: list[Outputs | Exception]
    seconds: float
    together: bool = True


def run(runner: Runner, parts: Sequence[tuple[Inputs, int, Sequence[str]]]) -> Ran:
    """One call of all parts (inputs, rows, wanted outputs). What one request spoils is its own: then each is run alone."""
    began = time.perf_counter()
    if len(parts) == 1:
        ((inputs, _, wanted),) = parts
        return Ran([chosen(runner.run(inputs), wanted)], time.perf_counter() - began)
    together = True
    try:
        outputs = runner.run(joined([inputs for inputs, _, _ in parts]))
        outcomes: list[Outputs | Exception] = list(split(outputs, [rows for _, rows, _ in parts], [wanted for _, _, wanted in parts]))
    except NotRows:
        together = False
        outcomes = [_alone(runner, inputs, wanted) for inputs, _, wanted in parts]
    except Exception:  # one request's values, as a rule: an index out of a table's range. The engine doesn't say whose
        outcomes = [_alone(runner, inputs, wanted) for inputs, _, wanted in parts]
    return Ran(outcomes, time.perf_counter() - began, together)


def _alone(runner: Runner, inputs: Inputs, wanted: Sequence[str]) -> Outputs | Exception:
    try:
        return chosen(runner.run(inputs), wanted)
    except Exception as error:  # handed to whoever asked, in the loop
        return error


def told(version: Version, error: BaseException | None) -> Exception:
    if isinstance(error, EdgewiseError):
        return error
    return EdgewiseError(f"{version.name}/{version.number} failed: {type(error).__name__}: {error}")


def counted(version: Version, whole: float, queued: float, computed: float, rows: int, call: int) -> None:
    """call: rows of the call, where it was this request's alone; else 0, and the call is counted once for all."""
    figures = version.figures
    figures.success.add(whole)
    figures.queue.add(queued)
    figures.compute.add(computed)
    figures.rows += rows
    figures.last_s = time.time()
    if call:
        figures.called(call, computed)
