"""`edgewise fit`: the main job from the shell."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgewise.cli import derive, given
from edgewise.cli.energy import WATTS, with_watts
from edgewise.cli.progress import Tell, telling
from edgewise.errors import BudgetMissed, InvalidInput
from edgewise.types import Budget

if TYPE_CHECKING:
    from edgewise.fitting import Result
    from edgewise.records import Device, Study

T = TypeVar("T")

ASKED = "Budget"
BINDING = ("speedup", "latency_ms", "size_bytes", "memory_bytes", "energy_mj")


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command with the options of the task that `arguments` name."""
    from edgewise.fitting import family, fit

    task = given.named_task(arguments)
    searching = derive.options(fit, panel="Search", leave_out=("device", "out", "progress", "weights", "beside"))
    budget, pictures = budget_options(), given.task_options(task)

    def command(
        model: Annotated[
            str,
            typer.Argument(
                help="model.onnx, model.pt2, a Hugging Face folder, package.module:callable or file.py:callable.", metavar="MODEL"
            ),
        ],
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the package, the report and the study.", metavar="DIR")] = Path(
            "out"
        ),
        data: Annotated[str | None, typer.Option(help=given.DATA)] = None,
        task: Annotated[str, typer.Option(help="What the model is for; or your own, as module:function.")] = given.USUAL_TASK,
        weights: Annotated[Path | None, typer.Option(help="A .safetensors file, for a callable.")] = None,
        device: Annotated[str, typer.Option(help="Where it has to run, and is measured: a name of `edgewise devices`.")] = "local",
        watts: Annotated[str, typer.Option(help=WATTS, metavar="WATTS")] = "",
        beside: Annotated[
            list[Path] | None,
            typer.Option(
                help="An .onnx file that another tool made of the same model, to be measured beside; may be given again.", metavar="FILE"
            ),
        ] = None,
        **options: Any,
    ) -> None:
        """Find the most accurate form of a model that meets a budget on this device, prove it, and pack it.

        Example: edgewise fit model.onnx --data pictures/ --speedup 2.5 --max-drop 1% -o out/

        Several speedups, as --speedup 2,4,8, give a family in one run, each
        member pruned from the one before: out/2x/model.edgew and so on.

        Run again with the same arguments after an interruption, it goes on
        where it stopped. Exit code 3: the budget was missed, and the package
        holds the nearest point.
        """
        asked, speedups = limits(derive.collect(budget, options))
        if not speedups and all(getattr(asked[0], name) is None for name in BINDING):
            raise InvalidInput(
                "no budget: say what the model has to meet, by --speedup, --latency-ms, --size-mb, --memory-mb or --energy-mj "
                "(with --max-drop for what it may cost; 1 point unless given)"
            )
        writable(out)
        made = given.make_task(task, data, options, defaults=given.model_options(model))
        given.import_from_here()
        where = _with_watts(given.device(device, print_away), watts)
        own = {"device": where, "weights": weights, "beside": tuple(beside or ())}
        arguments: dict[str, Any] = {**own, **derive.collect(searching, options)}
        if len(speedups) > 1:
            together = {"speedups": speedups, "budget": asked[0] if len(asked) == 1 else asked}
            finish_family(search(family, model, made, out, {**together, **arguments}), out)
        else:
            finish(search(fit, model, made, out, {"budget": asked[0], **arguments}), out)

    return derive.with_options(command, [*budget, *searching, *pictures])


def budget_options() -> list[derive.Option]:
    """`Budget`'s fields as a shell wants them: --speedup 2,4,8, --max-drop 1%, 0.01 or 1%rel, and --latency-p95-ms.

    What may differ from member to member of a family takes several values too, which come as a tuple (see `limits`).
    """
    found = []
    for option in derive.options(Budget, panel=ASKED, leave_out=("relative_drop",)):
        if option.name == "speedup":
            text = f"{option.help}. Several, as 2,4,8, give a family in one run"
            option = replace(option, metavar="NUMBER,…", help=text, read=factors, gives=lambda values: {"speedups": values})
        if option.name == "max_drop":
            text = "What may be lost of the metric: 1% or 0.01 is one point, 1%rel a share of the reference's (default 1%)"
            option = replace(option, metavar="1%|0.01|1%rel", help=text, read=drops, gives=dict)
        if option.name.startswith("size_") and option.read is not None:
            text = option.help if option.hidden else f"{option.help}. Of a family, one for all or one for each: 9,6,4"
            option = replace(option, help=text, read=each(option.read))
        found.append(option)
        if option.name == "latency_ms":
            text = "The same of the 95th percentile"
            found.append(replace(option, name="latency_p95_ms", help=text, gives=lambda value: {"latency_ms": value, "percentile": "p95"}))
    return found


def limits(given: dict[str, Any]) -> tuple[tuple[Budget, ...], tuple[float, ...]]:
    """The budgets, one for each member where something of them differs, and the speedups of a family; one speedup is the budget's own."""
    speedups = given.get("speedups", ())
    others = {name: value for name, value in given.items() if name != "speedups"}
    several = {name: value for name, value in others.items() if isinstance(value, tuple)}
    for name, values in several.items():
        if len(values) != len(speedups):
            raise InvalidInput(
                f"{len(values)} values for {name.replace('_', '-')} and {len(speedups)} for --speedup: give one for all, or one for each"
            )
    alone = speedups[0] if len(speedups) == 1 else None
    members = [{name: values[number] for name, values in several.items()} for number in range(len(speedups))] if several else [{}]
    return tuple(Budget(**{**others, **own}, speedup=alone) for own in members), speedups


def each(read: derive.Reader) -> derive.Reader:
    """One value as itself, several with commas between them as a tuple."""

    def several(text: str) -> Any:
        values = tuple(read(part) for part in text.split(",") if part.strip())
        return values[0] if len(values) == 1 else values or read(text)

    return several


def factors(text: str) -> tuple[float, ...]:
    """ "2.5" or "2,4,8": numbers above 0."""
    values = tuple(float(part.strip().removesuffix("x")) for part in text.split(",") if part.strip())
    if not values or not all(0 < value < float("inf") for value in values):
        raise ValueError(f"{text!r}: give a number above 0, or several with commas between them, as 2,4,8")
    return values


def drops(text: str) -> dict[str, Any]:
    """As `drop`; several, of a family, as tuples."""
    found = [drop(part) for part in text.split(",")]
    return found[0] if len(found) == 1 else {name: tuple(one[name] for one in found) for name in found[0]}


def drop(text: str) -> dict[str, Any]:
    """ "1%", "0.01", "1%rel" or "0.01rel" as Budget's max_drop and relative_drop."""
    amount = text.strip().removesuffix("rel").strip()
    value = float(amount.removesuffix("%")) / (100 if amount.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r}: give points as 1% or 0.01, or a share of the reference's metric as 1%rel")
    return {"max_drop": value, "relative_drop": text.strip().endswith("rel")}


def writable(out: Path) -> None:
    """Raises InvalidInput unless `out` is, or can become, a folder that we may write in. Makes nothing."""
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InvalidInput(f"-o {out}: {place} is a file; give a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InvalidInput(f"-o {out}: {place} may not be written to; give another folder")


def _with_watts(device: Device, watts: str) -> Device:
    """`with_watts`, its note said before the search."""
    from edgewise.cli.terminal import clean, console

    found, notes = with_watts(device, watts)
    for note in notes:
        console().print(clean(f"Note: {note}."), style="yellow")
    return found


def print_away(text: str) -> None:
    """A device that is away, or was."""
    from rich.console import Console

    from edgewise.cli.terminal import clean

    Console(stderr=True, highlight=False).print(clean(text), style="yellow")


def search(fit: Callable[..., T], model: Any, task: Any, out: Path, options: dict[str, Any]) -> T:
    """Run `fit`, or what is called like it, with its progress shown. An interruption says what is kept."""
    from edgewise.cli.terminal import clean, console

    began = False

    def run(tell: Tell) -> T:
        def progress(what: str, share: float, left: float | None) -> None:
            nonlocal began
            began = True
            tell(what, share, left)

        return fit(model, task, out=out, progress=progress, **options)

    notes = getattr(getattr(task, "summary", lambda: None)(), "cleaning", ())
    for note in notes:
        console().print(clean(f"data: {note}"), style="dim")
    try:
        with telling(keep_first=True) as tell:
            result = run(tell)
    except KeyboardInterrupt:
        kept = len(list((out / "study" / "trials").glob("*.json"))) if (out / "study" / "trials").is_dir() else 0
        said = f"{kept} trial{'s' * (kept != 1)} kept in {out / 'study'}" if kept else "no trial was finished yet"
        raise KeyboardInterrupt(f"interrupted; {said}: the same command again goes on from there") from None
    if not began:
        console().print(clean(f"This search was finished before, and nothing was measured again: delete {out} to start anew."), style="dim")
    return result


def finish(result: Result, out: Path) -> None:
    """The verdict, the files, and what to do next. Raises BudgetMissed when a limit was missed."""
    from edgewise import report
    from edgewise.cli.terminal import console, facts, section

    shown = console()
    shown.print(report.table(result.study))
    section(shown, "Written", facts(written(result.study, out)))
    if not result.met:
        raise BudgetMissed(f"the budget is missed; {out / 'model.edgew'} holds the nearest point")


def finish_family(results: Sequence[Result], out: Path) -> None:
    """All members in one table, the files, and what to do next. Raises BudgetMissed when one missed a limit."""
    from edgewise import report
    from edgewise.cli.terminal import console, facts, section

    shown = console()
    shown.print(report.family_table([result.study for result in results]))
    members = [out / f"{result.study.budget.speedup:g}x" for result in results]
    rows = [("package", f"{member / 'model.edgew'}; its own report is beside it") for member in members]
    rows += [
        ("report", f"{sized(out / 'report.html')}: all members; open it in a browser"),
        ("next", f"edgewise inspect {rows[-1][1].split(';')[0]}"),
    ]
    section(shown, "Written", facts(rows))
    missed = [f"{result.study.budget.speedup:g}x" for result in results if not result.met]
    if missed:
        raise BudgetMissed(f"the budget is missed at {', '.join(missed)}; the packages there hold the nearest points")


def sized(path: Path) -> str:
    from edgewise.report import numbers

    return f"{path}  ({numbers.size(path.stat().st_size)})"


def written(study: Study, out: Path) -> list[tuple[str, str]]:
    return [
        ("package", sized(out / "model.edgew")),
        ("report", f"{sized(out / 'report.html')}: open it in a browser"),
        ("study", f"{out / 'study'}: {len(study.trials)} trials"),
        ("next", f"edgewise run {out / 'model.edgew'} {_example(study)}"),
    ]


def _example(study: Study) -> str:
    """An input in a word."""
    if study.data.task == given.USUAL_TASK:
        return "PICTURE" if study.data.labels else "INPUT"
    return '"a text"' if study.data.task in given.text_tasks() else "INPUT"
