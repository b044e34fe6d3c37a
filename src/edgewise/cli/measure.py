"""`edgewise measure`: what a model takes on every engine of this device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.energy import WATTS, with_watts
from edgewise.errors import EdgewiseError, InvalidInput, InvalidModel, MeasurementFailed
from edgewise.types import Execution

if TYPE_CHECKING:
    import numpy as np

    from edgewise.cli.progress import Tell
    from edgewise.graph import Graph
    from edgewise.measure import Contender
    from edgewise.package import Package
    from edgewise.records import Device, Measurement
    from edgewise.types import Inputs

LAW = (
    "Times are of the device in this moment. Ratios are what counts: they were measured in turns, a block of one engine after a block of "
    "the other, each in a process of its own, against the fastest fp32 with as many threads."
)


@dataclass(frozen=True)
class _Subject:
    """What is measured: the graph, its bytes for each engine (a package may hold forms of an engine's own, the smallest first), and the
    file's size.
    """

    name: str
    graph: Graph
    model: bytes
    forms: dict[str, tuple[bytes, ...]]
    size_bytes: int
    package: Package | None = None

    def bytes_for(self, execution: Execution, inputs: Inputs) -> bytes:
        """Raises what a maker raises, for an engine whose form the package hasn't got: it is made here, for these inputs, and kept."""
        from edgewise import backends
        from edgewise.export.forms import model_for

        engine = execution.backend
        if engine not in self.forms and backends.form(engine) != backends.ONNX:
            self.forms[engine] = (model_for(self.graph, [inputs], execution),)
        return backends.first_taking(self.forms.get(engine, (self.model,)), inputs)


@dataclass(frozen=True)
class _Place:
    """A device, and what was found there."""

    device: Device
    measured: list[Measurement]
    races: list[Contender]
    failed: list[tuple[Execution, str]]
    notes: tuple[str, ...]


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command, with the options of a task where `arguments` name one: its inputs are then measured."""
    from edgewise.cli import derive, given

    named = given.named_task(arguments, usual="")
    derived = given.task_options(named) if named else [derive.number("tokens", "Size of the axes that are open besides the batch.")]

    def command(
        model: Annotated[str, typer.Argument(help="model.onnx, model.edgew, model.pt2 or package.module:callable.", metavar="MODEL")],
        threads: Annotated[str | None, typer.Option(help="Thread counts, as 1,2 (1 and all cores unless given).")] = None,
        backends: Annotated[str | None, typer.Option(help="Engines, with commas (all installed ones unless given).")] = None,
        batch: Annotated[int | None, typer.Option(help="Samples in one call (1; of scenario offline 8).", min=1)] = None,
        seconds: Annotated[float | None, typer.Option(help="How long each is timed (2; a scenario 10).", min=0.05)] = None,
        scenario: Annotated[
            str, typer.Option(help="Asked by MLPerf's LoadGen: single-stream, multi-stream or offline.", metavar="NAME")
        ] = "",
        queries: Annotated[int | None, typer.Option(help="The least queries of a scenario (as many as its verdict needs).", min=1)] = None,
        watts: Annotated[str, typer.Option(help=WATTS, metavar="WATTS")] = "",
        data: Annotated[str | None, typer.Option(help="Real inputs, .npy or .npz by name; or a task's data. Random unless given.")] = None,
        task: Annotated[str, typer.Option(help="Take inputs from a task's data, as text-classification.")] = "",
        weights: Annotated[Path | None, typer.Option(help="A .safetensors file, for a callable.")] = None,
        device: Annotated[str, typer.Option(help="Where: names of `edgewise devices`, with commas.", metavar="NAME,…")] = "local",
        as_json: Annotated[bool, typer.Option("--json", help="Write JSON, with every sample.")] = False,
        **options: Any,
    ) -> None:
        """Measure a model on every engine, precision and thread count: latency, cold start, size, memory, share of the roofline.

        Example: edgewise measure model.onnx --threads 1,2

        Texts: edgewise measure model.onnx --task text-classification --data sst2/ --tokenizer my-bert/ --tokens 128

        As MLPerf asks: edgewise measure model.onnx --scenario offline --seconds 60

        Side by side: edgewise measure model.onnx --device pi,jetson,local
        """
        from edgewise import measure
        from edgewise.cli import given
        from edgewise.cli import scenario as scenarios
        from edgewise.cli.fit import print_away
        from edgewise.cli.progress import telling

        scenarios.check(scenario, queries=queries, watts=watts)
        places = [given.device(name.strip(), print_away) for name in device.split(",")]
        if watts and len(places) > 1:
            raise InvalidInput(f"--watts {watts} is of one board, and --device {device} names {len(places)}: measure them one by one")
        counts = [thread_counts(threads, place.cores) for place in places]
        executions = [list(_executions(backends, each, place)) for each, place in zip(counts, places, strict=True)]
        with telling() as tell:
            subject = _subject(model, weights, Path(data) if data and not task else None)
            size = scenarios.batch(scenario, subject.graph.signature, batch) if scenario else batch or 1
            inputs, notes = _inputs(subject, model, task, data, size, options)
            runs, found = [], []
            if scenario:
                for place, own in zip(places, executions, strict=True):
                    runs.append(scenarios.runs(scenario, subject.bytes_for, own, inputs, place, seconds or 10.0, queries, tell))
            else:
                for place, each, own in zip(places, counts, executions, strict=True):
                    here, said = with_watts(_with_peaks(place, each, tell), watts)
                    found.append(
                        _Place(
                            here,
                            *_measured(subject, own, each, inputs, here, seconds or 2.0, tell),
                            (*notes, *said, *measure.interruptions(here)),
                        )
                    )
        if as_json:
            asked = [scenarios.record(one, subject.name, inputs) for one in runs]
            typer.echo(_json([*asked, *(_record(subject, inputs, place) for place in found)]))
        elif scenario:
            for run in runs:
                told = (*notes, *measure.interruptions(run.device))
                scenarios.show(run, subject.name, inputs, told, heading=len(runs) > 1 or run.device.address != "local")
        else:
            for one in found:
                _show(subject, inputs, one, heading=len(found) > 1 or one.device.address != "local")

    return derive.with_options(command, derived)


def _inputs(
    subject: _Subject, model: str, task: str, data: str | None, batch: int, options: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """One call's inputs: of a task's data where a task is named, else as `given.inputs` has them."""
    from edgewise import tasks
    from edgewise.cli import given

    signature = subject.graph.signature
    if not task:
        return given.inputs(signature, data=Path(data) if data else None, batch=batch, tokens=options.get("tokens", 1))
    known = {**given.model_options(model), **given.packaged_options([subject.package])}
    made = tasks.bound(given.make_task(task, data, options, defaults=known), signature)
    return made.example_inputs(batch), []


def thread_counts(text: str | None, cores: int) -> list[int]:
    if text is None:
        return sorted({1, cores})
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise InvalidInput(f"--threads {text}: give counts with commas between them, as 1,2") from error
    if counts[0] < 1 or counts[-1] > cores:
        raise InvalidInput(f"--threads {text}: this device has {cores} usable cores; give 1 to {cores}")
    return counts


def _executions(names: str | None, counts: Sequence[int], device: Device) -> list[Execution]:
    from edgewise import backends, registry

    installed = [*(backends.installed() if device.address == "local" else device.backends)]
    chosen = [name.strip() for name in names.split(",")] if names else list(installed)
    found = []
    for name in chosen:
        backend = backends.get(name)  # an unknown name has its own error
        if name in registry.names("backend") and name not in installed:
            if device.address != "local":
                raise InvalidInput(f"{name} isn't installed on {device.name}; installed there: {', '.join(installed) or 'no engine'}")
            backend.version()  # says which pip line brings it
        found += [Execution(name, precision, count) for count in counts for precision in backends.precisions(name, device.isa)]
    return found


def _subject(spec: str, weights: Path | None, data: Path | None) -> _Subject:
    from edgewise.graph import Graph

    path = Path(spec)
    if path.suffix == ".edgew":
        from edgewise import package

        if not path.exists():
            raise InvalidModel(f"{path} does not exist; give a model or a package")
        found = package.open(path)
        engines = dict.fromkeys(entry.engine for entry in found.manifest.entries if entry.kind == "engine")
        forms = {engine: tuple(map(found.model_bytes, found.forms(engine))) for engine in engines}
        return _Subject(path.name, found.graph(), found.model_bytes(), forms, found.size_bytes, found)
    if path.suffix == ".onnx":
        graph = Graph.load(path)
        return _Subject(path.name, graph, graph.to_bytes(), {}, graph.size_bytes)
    graph = _exported(spec, weights, data)
    return _Subject(spec, graph, graph.to_bytes(), {}, graph.size_bytes)


def _exported(spec: str, weights: Path | None, data: Path | None) -> Graph:
    """A torch model as a graph. A module doesn't say what it takes, so an example is needed."""
    import numpy as np

    from edgewise import export
    from edgewise.cli.given import import_from_here
    from edgewise.models import intake

    import_from_here()
    found = intake(spec, weights=weights)
    if found.program is not None:
        return export.export_program(found.program)
    if found.module is None:
        raise InvalidInput(f"{spec}: give an .onnx, a package, a .pt2 or a callable that makes a torch module")
    if data is None:
        raise InvalidInput(f"{spec} doesn't say what it takes: give one call's inputs with --data x.npy (or .npz, by forward's names)")
    if not data.is_file():
        raise InvalidInput(f"--data {data} does not exist; give an .npy or .npz file")
    with_names = np.load(data, allow_pickle=False)
    example = {"input": with_names} if isinstance(with_names, np.ndarray) else dict(with_names)
    return export.export(found.module, example)


def _with_peaks(device: Device, counts: Sequence[int], tell: Tell) -> Device:
    from edgewise import measure

    found = []
    for count in counts:
        tell(f"the device's peaks with {count} thread{'s' * (count > 1)} (once, then cached)", 0.0, None)
        found.append(measure.peaks(device, count))
    return replace(device, peaks=tuple(found))


def _measured(
    subject: _Subject, executions: Sequence[Execution], counts: Sequence[int], inputs: Inputs, device: Device, seconds: float, tell: Tell
) -> tuple[list[Measurement], list[Contender], list[tuple[Execution, str]]]:
    """Each alone, then those with as many threads in turns; and what failed. MeasurementFailed when all did."""
    measured, failed = _profiles(subject, executions, inputs, device, seconds, tell)
    if not measured:
        raise MeasurementFailed("; ".join(f"{execution}: {reason}" for execution, reason in failed))
    races = [race for count in counts for race in _race(subject, count, measured, inputs, device, tell)]
    return measured, races, [*failed, *((race.subject.execution, race.failed) for race in races if race.failed)]


def _profiles(
    subject: _Subject, executions: Sequence[Execution], inputs: Inputs, device: Device, seconds: float, tell: Tell
) -> tuple[list[Measurement], list[tuple[Execution, str]]]:
    """One after the other. An engine that can't is noted, and the others go on."""
    from edgewise import measure

    work = measure.work(subject.graph, inputs)
    done: list[Measurement] = []
    failed: list[tuple[Execution, str]] = []
    each = seconds * 1.1 + 1.0
    for i, execution in enumerate(executions):
        tell(str(execution), 0.7 * i / len(executions), each * (len(executions) - i) + 2.0 * len(executions))
        try:
            model = subject.bytes_for(execution, inputs)
            found = measure.profile(model, execution, inputs, device, seconds=seconds, work=work)
            done.append(replace(found, size_bytes=subject.size_bytes))
        except EdgewiseError as error:
            failed.append((execution, str(error)))
    return done, failed


def _race(
    subject: _Subject, threads: int, measured: Sequence[Measurement], inputs: Inputs, device: Device, tell: Tell
) -> tuple[Contender, ...]:
    """Those with as many threads in turns; the ratio's 1.0 is the one in fp32 that was fastest alone."""
    from edgewise import measure

    alone = sorted((found for found in measured if found.execution.threads == threads), key=lambda found: found.latency.p50_ms)
    first = next((found for found in alone if found.execution.precision == "fp32"), None)
    if first is None or len(alone) < 2:
        return ()
    order = [first, *(found for found in alone if found is not first)]
    tell(f"in turns, with {threads} thread{'s' * (threads > 1)}", 0.8, None)
    return measure.race([measure.Subject(subject.bytes_for(each.execution, inputs), each.execution) for each in order], inputs, device)


def _show(subject: _Subject, inputs: Inputs, place: _Place, *, heading: bool) -> None:
    """heading: says which device it is of, where there are several."""
    from edgewise import report
    from edgewise.cli import given
    from edgewise.cli.terminal import clean, console, listing
    from edgewise.report import numbers, words

    out = console()
    if heading:
        out.print(clean(f"{place.device.name}: {place.device.cpu}"), style="bold")
    out.print(report.profile_table(place.measured, name=subject.name))
    ratios = {str(race.subject.execution): race for race in place.races}
    table = listing("in turns", "ratio", "95 %", "first call", "throughput", right=("ratio", "first call", "throughput"))
    for found in place.measured:
        race = ratios.get(str(found.execution))
        ratio, between = "", "alone with its threads"
        if race is not None and race.ratio is not None:
            ratio = numbers.times(race.ratio.value)
            between = "1.0 by definition" if race is _first(place.races, race) else f"{race.ratio.low:.3f} to {race.ratio.high:.3f}"
        persecond = "" if found.throughput_per_s is None else f"{found.throughput_per_s:,.0f}/s"
        table.add_row(clean(str(found.execution)), ratio, between, numbers.ms(found.first_inference_ms), persecond)
    out.print()
    out.print(table)
    out.print()
    out.print(clean(LAW), style="dim")
    out.print(clean(f"Input: {given.feeds(inputs)}."), style="dim")
    for note in place.notes:
        out.print(clean(f"Note: {note}."), style="yellow")
    for found in place.measured:
        if found.conditions.again or found.conditions.disturbed:
            out.print(clean(f"{found.execution}: {words.disturbed(found.conditions, 'piece')}."), style="dim")
    for execution, reason in place.failed:
        out.print(clean(f"✗ {execution}: {reason}"), style="red")


def _first(races: Sequence[Contender], race: Contender) -> Contender:
    return next(other for other in races if other.subject.execution.threads == race.subject.execution.threads)


def _json(records: Sequence[dict[str, Any]]) -> str:
    """An object, of several devices a list of them."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(records[0] if len(records) == 1 else records), indent=1).decode()


def _record(subject: _Subject, inputs: Inputs, place: _Place) -> dict[str, Any]:
    return {
        "model": subject.name,
        "sha256": subject.graph.sha256,
        "inputs": {name: list(array.shape) for name, array in inputs.items()},
        "device": place.device,
        "measurements": place.measured,
        "races": [
            {"execution": race.subject.execution, "ratio": race.ratio, "block_ms": race.block_ms, "dropped": race.dropped}
            for race in place.races
        ],
        "failed": [{"execution": execution, "reason": reason} for execution, reason in place.failed],
    }
