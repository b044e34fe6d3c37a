"""`edgewise bench`: a model on a server, asked as MLPerf's LoadGen asks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

    from edgewise.measure.messages import Scenario
    from edgewise.measure.scenarios import Rules, Summary
    from edgewise.serve.client import Address, Remote
    from edgewise.types import Signature

WARM = 3


@dataclass(frozen=True)
class Run:
    """What LoadGen says. lost: samples that the server refused, or gave up as too late; LoadGen hears of them when they are too late.

    busiest: how many queries at most waited here, because every connection was taken.
    """

    scenario: str
    model: str
    url: str
    server: str
    binary: bool
    connections: int
    batch: int
    inputs: dict[str, tuple[int, ...]]
    qps: float | None
    latency_ms: float | None
    summary: Summary
    queries: int
    samples: int
    lost: int
    busiest: int
    caveat: str
    loadgen: str


def command(
    url: Annotated[str, typer.Argument(help="Where the server listens, as http://127.0.0.1:8080.", metavar="URL")],
    model: Annotated[str, typer.Argument(help="Which of its models.", metavar="NAME")],
    scenario: Annotated[str, typer.Option(help="server, single-stream, multi-stream or offline.", metavar="NAME")] = "server",
    qps: Annotated[float | None, typer.Option(help="Of server: queries a second, at random moments (Poisson).", min=0.01)] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Of server: what 99 % of the queries may take.", min=0.01)] = None,
    seconds: Annotated[float, typer.Option(help="The least time that queries are asked for.", min=0.05)] = 10.0,
    queries: Annotated[int | None, typer.Option(help="The least queries (as many as the verdict needs).", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Of offline: samples in one request (8).", min=1)] = None,
    connections: Annotated[int | None, typer.Option(help="Of server and offline: requests at a time (32; 8).", min=1, max=1024)] = None,
    inputs: Annotated[
        Path | None, typer.Option("--input", help="One request's inputs, .npy or .npz by name. Random unless given.", metavar="FILE")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Size of the axes that are open besides the batch.", min=1)] = 1,
    version: Annotated[str, typer.Option(help="Of the model (the one that the server chooses).", metavar="V")] = "",
    authority: Annotated[
        Path | None, typer.Option("--ca", help="Who signed the server's certificate (PEM), where the system doesn't know.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, with LoadGen's parameters.")] = False,
) -> None:
    """Ask a model on a server as MLPerf's LoadGen does, and show its verdict. Any server of the Open Inference Protocol v2 will do.

    A key that the server asks for is read from the environment variable EDGEWISE_KEY.

    Example: edgewise bench http://127.0.0.1:8080 digits --qps 200 --latency-ms 50

    Example: edgewise bench http://127.0.0.1:8080 digits --scenario single-stream
    """
    from edgewise.cli import given
    from edgewise.cli.progress import telling
    from edgewise.measure import scenarios
    from edgewise.serve.client import Address, Remote, key_here

    rules = _rules(scenario, qps, latency_ms)
    scenarios.require()
    if inputs is not None and not inputs.is_file():
        raise InvalidInput(f"--input {inputs} does not exist; give an .npy or .npz file")
    address = Address(url.rstrip("/"), model, version, key_here(), authority)
    with contextlib.ExitStack() as stack, telling() as tell:
        tell(f"{url}: what {model} takes", 0.0, None)
        first = stack.enter_context(contextlib.closing(Remote(address)))
        size = _batch(scenario, first.signature, batch)
        _drawable(first.signature, inputs)
        example, notes = given.inputs(first.signature, data=inputs, batch=size, tokens=tokens)
        many = connections or (32 if scenario == "server" else 8)
        runners = [first]
        if scenario in ("server", "offline"):
            runners += [stack.enter_context(contextlib.closing(Remote(address))) for _ in range(many - 1)]
        call_ms = _warm(runners, example)
        tell(f"{scenario} on {model}", 0.05, seconds)
        asked = _asked(rules, seconds, queries, size, call_ms, qps, latency_ms)
        run = _run(scenario, address, runners, example, asked, rules)
    if as_json:
        _echo(run)
    else:
        _show(run, notes)


def _rules(scenario: str, qps: float | None, latency_ms: float | None) -> Rules:
    """Raises InvalidInput for a scenario that there is none of, and where what it needs isn't there."""
    from edgewise.measure.scenarios import SCENARIOS, SERVER

    if scenario == "server":
        if qps is None or latency_ms is None:
            raise InvalidInput("scenario server: give how often it asks and what it may take, as --qps 200 --latency-ms 50")
        return SERVER
    if scenario not in SCENARIOS:
        raise InvalidInput(f"there is no scenario {scenario!r}; give one of server, {', '.join(SCENARIOS)}")
    if qps is not None or latency_ms is not None:
        raise InvalidInput(f"--qps and --latency-ms are of scenario server; {scenario} asks as fast as it is answered: leave them out")
    return SCENARIOS[scenario]


def _batch(scenario: str, signature: Signature, asked: int | None) -> int:
    from edgewise.measure import scenarios

    if scenario == "server":
        if asked not in (None, 1):
            raise InvalidInput(f"--batch {asked}: server asks for one sample at a time; the server may put them together. Leave it out")
        return 1
    return scenarios.batch(scenario, signature, asked)


def _drawable(signature: Signature, inputs: Path | None) -> None:
    texts = [spec.name for spec in signature.inputs if spec.dtype == "object"]
    if texts and inputs is None:
        raise InvalidInput(f"the model takes texts ({', '.join(texts)}), which can't be drawn at random: give some with --input x.npz")


def _warm(runners: Sequence[Remote], example: dict[str, np.ndarray]) -> float:
    """The time of a call in milliseconds, the least of some; every connection is open afterwards."""
    import time

    times = []
    for number, runner in enumerate(runners):
        for _ in range(WARM if number == 0 else 1):
            began = time.perf_counter()
            runner.run(example)
            times.append((time.perf_counter() - began) * 1e3)
    return min(times)


def _asked(
    rules: Rules, seconds: float, queries: int | None, batch: int, call_ms: float, qps: float | None, latency_ms: float | None
) -> Scenario:
    from edgewise.measure.messages import Scenario

    least = rules.usual if queries is None else queries
    return Scenario(
        rules.name, seconds, least, rules.samples, rules.percentile or 0.99, batch, call_ms, qps=qps or 1.0, latency_ms=latency_ms or 100.0
    )


def _run(scenario: str, address: Address, runners: Sequence[Remote], example: dict[str, np.ndarray], asked: Scenario, rules: Rules) -> Run:
    from edgewise.host import Late, Refused
    from edgewise.measure.scenarios import caveat, driving, many, parse

    systems: list[many.Many] = []
    if len(runners) > 1 or scenario in ("server", "offline"):
        logged = many.drive(runners, example, asked, lost=(Refused, Late) if scenario == "server" else (), tell=systems.append)
    else:
        logged = driving.drive(runners[0], example, asked)
    return Run(
        scenario=scenario,
        model=address.model,
        url=address.url,
        server=runners[0].server,
        binary=runners[0].binary,
        connections=len(runners),
        batch=asked.batch,
        inputs={name: array.shape for name, array in example.items()},
        qps=asked.qps if scenario == "server" else None,
        latency_ms=asked.latency_ms if scenario == "server" else None,
        summary=parse(logged.summary),
        queries=logged.queries,
        samples=logged.samples,
        lost=sum(system.lost for system in systems),
        busiest=max((system.busiest for system in systems), default=0),
        caveat=caveat(scenario, asked.seconds, logged.queries if rules.samples else logged.samples),
        loadgen=logged.version,
    )


def _echo(run: Run) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(run), indent=2).decode())


def _show(run: Run, notes: Sequence[str]) -> None:
    from edgewise.cli.terminal import clean, console, listing
    from edgewise.report import numbers

    out, said = console(), run.summary
    asked = f", {run.qps:g} queries a second, 99 % within {run.latency_ms:g} ms" if run.qps else ""
    out.print(clean(f"{run.model} at {run.url}{f' ({run.server})' if run.server else ''}{asked}"), style="bold")
    figures = {"samples/s": numbers.significant(said.samples_per_second)}
    if run.scenario != "offline":
        shown = ("50", "90", "99") if run.scenario == "single-stream" else ("50", "99")
        figures |= {f"p{each}": numbers.ms(said.percentiles_ms[each]) for each in shown} | {"queries": numbers.count(run.queries)}
    else:
        figures["samples"] = numbers.count(run.samples)
    table = listing("scenario", "LoadGen", *figures, right=tuple(figures))
    table.add_row(said.scenario, "VALID" if said.valid else "INVALID", *figures.values())
    out.print(table)
    out.print()
    if said.reasons:
        out.print(clean(f"INVALID: {'; '.join(reason.rstrip('.') for reason in said.reasons)}."), style="yellow")
    if run.lost:
        whole = numbers.count(run.samples)
        out.print(clean(f"{numbers.count(run.lost)} of {whole} queries were refused or given up: they count as late."), style="yellow")
    if run.scenario == "server" and run.busiest > run.connections:
        out.print(
            clean(f"Up to {run.busiest} queries waited for one of {run.connections} connections: see whether --connections helps."),
            style="yellow",
        )
    for note in notes:
        out.print(clean(f"Note: {note}."), style="yellow")
    out.print(clean(f"N{run.caveat[1:]}. Not verified by MLCommons."), style="yellow")
    shapes = ", ".join(f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in run.inputs.items())
    form = "raw tensors" if run.binary else "JSON"
    client = f"{run.connections} connection{'s' * (run.connections > 1)}, {form}, {shapes}"
    out.print(clean(f"LoadGen {run.loadgen}; its overhead and that of this client ({client}) are part of every figure."), style="dim")
