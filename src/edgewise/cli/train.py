"""`edgewise train`: a model fine-tuned on labels, in a folder that `fit` takes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli import derive, given
from edgewise.cli.fit import writable
from edgewise.cli.progress import telling

if TYPE_CHECKING:
    from edgewise.tuning import Tuned


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command with the options of the task that `arguments` name."""
    from edgewise.tuning import tune

    named = given.named_task(arguments)
    training = derive.options(tune, panel="Training", leave_out=("out", "progress", "weights"))
    of_task = given.task_options(named)

    def command(
        model: Annotated[
            str, typer.Argument(help="A Hugging Face folder, model.onnx, package.module:callable or file.py:callable.", metavar="MODEL")
        ],
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the trained model.", metavar="DIR")],
        data: Annotated[str | None, typer.Option(help="What to train on: files as the task reads them, or module:function.")] = None,
        task: Annotated[str, typer.Option(help="What the model is for; or your own, as module:function.")] = given.USUAL_TASK,
        weights: Annotated[Path | None, typer.Option(help="A .safetensors file to start from, for a callable.")] = None,
        **options: Any,
    ) -> None:
        """Train a model on labelled data, as an encoder before it is made to fit. The weights of the best epoch are kept.

        Example: edgewise train ./my-bert --task text-classification --data sst2/ --epochs 3 -o tuned/

        Run again with the same arguments after an interruption, it goes on at the
        epoch where it stopped. What it writes is what it was given: a Hugging Face
        folder, which transformers reads too, model.safetensors for a callable, or
        model.onnx.
        """
        from edgewise.models import hub
        from edgewise.tuning import tune

        writable(out)
        with telling(keep_first=True) as tell:
            tell(f"reading {model}", 0.0, None)
            model = str(hub.download(model)) if hub.is_name(model) else model
            made = given.make_task(task, data, options, defaults=_known(Path(model)))
            given.import_from_here()
            found = tune(model, made, out=out, weights=weights, progress=tell, **derive.collect(training, options))
        asked = ["--task", task, *(["--data", data] if data else []), *_given(arguments, {option.flag for option in of_task})]
        _show(found, model, asked)

    return derive.with_options(command, [*training, *of_task])


def _known(model: Path) -> dict[str, Any]:
    """Options of a task on texts that the model's folder answers: its tokenizer, and its classes where they have names."""
    from edgewise.models.huggingface import layout

    if not model.is_dir():
        return {}
    labels = layout(model).labels
    return {**({"tokenizer": model} if (model / "tokenizer.json").is_file() else {}), **({"labels": labels} if labels else {})}


def _given(arguments: Sequence[str], flags: Collection[str]) -> list[str]:
    """Those options of the command line, with their values, which `fit` is to be told again."""
    found: list[str] = []
    for place, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag in flags:
            found.append(word)
            if not value and place + 1 < len(arguments) and not arguments[place + 1].startswith("--"):
                found.append(arguments[place + 1])
    return found


def _show(found: Tuned, model: str, asked: Sequence[str]) -> None:
    from edgewise.cli.terminal import console, facts
    from edgewise.report import numbers

    record = found.record
    epochs = len(record.losses)
    rows = [("epochs", f"{epochs} in {numbers.duration(record.seconds)}{f': {record.stopped}' if record.stopped else ''}")]
    rows.append(("loss", " → ".join(f"{loss:.3g}" for loss in record.losses)))
    if record.metrics and record.best is not None:
        kept = f"{record.metrics[record.best]:.4f} on validation, after epoch {record.best + 1}, which was kept"
        rows.append((record.metric, kept))
    rows.append(("written", ", ".join(map(str, found.files))))
    rows.append(("next", f"edgewise fit {_names(found, model)} {shlex.join(asked)} --speedup 3 -o out/"))
    console().print(facts(rows))


def _names(found: Tuned, model: str) -> str:
    """How `fit` is told of what was written."""
    file = found.files[0]
    return f"{model} --weights {file}" if file.suffix == ".safetensors" else str(file)
