"""`edgewise run`: a model on pictures, texts or arrays: to labels and scores, or to arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.trusting import Keys, MinimumVersion, State
from edgewise.errors import InvalidData, InvalidPackage

if TYPE_CHECKING:
    import numpy as np

    from edgewise.data.postprocess import Classify
    from edgewise.data.preprocess import ImagePreprocess
    from edgewise.data.text import TextPreprocess
    from edgewise.host.loading import Model
    from edgewise.types import Outputs, Signature, TensorSpec

_FIRST_VALUES = 8


def command(
    file: Annotated[Path, typer.Argument(help="A package (.edgew) or a model (.onnx).", metavar="FILE")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Pictures (.png …), texts (or files with one a line, or - for standard input), arrays (.npy; .npz by input name).",
            metavar="INPUT...",
        ),
    ],
    top: Annotated[int, typer.Option(help="How many labels to show.", min=1)] = 5,
    separator: Annotated[str, typer.Option(help="What stands between two texts, where the model takes pairs (a tab unless given).")] = "\t",
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
    backend: Annotated[str | None, typer.Option(help="Engine to run on, instead of the one that measured best.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads, instead of what measured best.", min=1)] = None,
    keys: Keys = None,
    minimum_version: MinimumVersion = None,
    state: State = None,
) -> None:
    """Run a model on pictures, texts or arrays, and show labels and scores.

    With --keys, nothing of a package is used before its signature was checked.

    Example: edgewise run out/model.edgew cat.png dog.jpg --top 3

    Example: edgewise run out/6x/model.edgew "a gripping, funny film"
    """
    from edgewise.cli.trusting import note, trust_of
    from edgewise.host import loading

    model = loading.read(file, backend=backend, threads=threads, trust=trust_of(keys, minimum_version, state))
    show = _on_texts(model, inputs, top, separator) if _takes_texts(model, inputs) else _on_files(model, inputs, top)
    if model.package is not None:
        note(model.package, state)  # not before it ran: one that can't run must not keep its predecessor out
    show(as_json)


def _takes_texts(model: Model, inputs: Sequence[str]) -> bool:
    """Arrays go in as they are, whatever a package says of texts."""
    from edgewise.data.text import TextPreprocess

    return isinstance(model.preprocess, TextPreprocess) and not all(Path(each).suffix in (".npy", ".npz") for each in inputs)


def _on_files(model: Model, inputs: Sequence[str], top: int) -> Callable[[bool], None]:
    """Runs the model on pictures and arrays; gives what shows its answers, as JSON or not."""
    from edgewise.host.loading import Runners

    paths = [Path(each) for each in inputs]
    for path in paths:
        if not path.is_file():
            raise InvalidData(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give pictures or .npy files")
    runner = Runners(model)
    try:
        answers = [(path, runner.run(arrays_for(path, runner.signature, model.preprocess))) for path in paths]
    finally:
        runner.close()

    def show(as_json: bool) -> None:
        if as_json:
            _echo([{"input": str(path), **_record(outputs, model.classify, top)} for path, outputs in answers])
        else:
            _show(answers, model, top)

    return show


def _on_texts(model: Model, inputs: Sequence[str], top: int, separator: str) -> Callable[[bool], None]:
    """The same on texts."""
    from edgewise.cli import texts
    from edgewise.host.loading import Runners

    if model.package is None:
        raise ValueError("a model that takes texts comes in a package")
    encoder = texts.encoder_of(model.package)
    given = texts.given(inputs)
    runner = Runners(model)
    try:
        found = texts.answers(runner, encoder, given, separator)
    finally:
        runner.close()
    records = texts.records(found, model.postprocess, top)

    def show(as_json: bool) -> None:
        if as_json:
            _echo(records)
        else:
            texts.show(records, f"run by {model.execution}" + (f"; {model.note}" if model.note else ""))

    return show


def _echo(record: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(record), indent=2).decode())


def arrays_for(path: Path, signature: Signature, preprocess: ImagePreprocess | TextPreprocess | None = None) -> dict[str, np.ndarray]:
    """The model's inputs from one file. Raises InvalidData, InvalidPackage."""
    from edgewise.data.text import TextPreprocess

    if path.suffix == ".npz":
        arrays = _arrays(path)
        wanted = {spec.name for spec in signature.inputs}
        if set(arrays) != wanted:
            raise InvalidData(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; the model takes {', '.join(sorted(wanted))}")
        return {spec.name: _fitted(arrays[spec.name], spec, path) for spec in signature.inputs}
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise InvalidData(f"the model takes {len(signature.inputs)} inputs ({names}); give an .npz with an array for each")
    (spec,) = signature.inputs
    if path.suffix == ".npy":
        return {spec.name: _fitted(_arrays(path)[""], spec, path)}
    if isinstance(preprocess, TextPreprocess):
        raise InvalidData(f"{path}: this model takes texts; give them as they are, in a file with one a line, or as arrays")
    if preprocess is None:
        raise InvalidData(f"{path}: this model says nothing about preprocessing, so it can't take a picture; give an .npy of {_text(spec)}")
    from edgewise.data.picture import read_picture

    if len(spec.shape) != 4 or not _matches(preprocess.sample_shape, spec.shape[1:]) or spec.dtype != "float32":
        raise InvalidPackage(
            f"the package's preprocessing gives float32 {preprocess.sample_shape}, its model takes {_text(spec)}; pack it again"
        )
    return {spec.name: _fitted(preprocess.apply(read_picture(path)), spec, path)}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, or the one of an .npy under ""."""
    import zipfile

    import numpy as np

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        # Mapped: a header that claims more than the file holds is an error, and not an allocation.
        return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
    except (OSError, ValueError, EOFError, MemoryError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidData(f"can't read {path}: {error}; write it with numpy.save, without objects in it") from error


def _fitted(array: np.ndarray, spec: TensorSpec, path: Path) -> np.ndarray:
    """`array` as the model takes it, with the leading batch axis that one sample lacks. Never cast: a wrong dtype is a wrong file."""
    import numpy as np

    if array.dtype == spec.dtype:
        for candidate in (array, array[None]):
            if _matches(candidate.shape, spec.shape):
                return np.ascontiguousarray(candidate)
    raise InvalidData(f"{path} is {array.dtype} {array.shape}; the model takes {_text(spec)}")


def _matches(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(isinstance(axis, str) or axis == size for size, axis in zip(shape, wanted, strict=True))


def _text(spec: TensorSpec) -> str:
    return f"{spec.dtype} ({', '.join(map(str, spec.shape))})"


def _logits(outputs: Outputs) -> np.ndarray:
    if len(outputs) != 1:
        raise InvalidPackage(f"the model gives {', '.join(outputs)}, and labels belong to one output; pack it again")
    return next(iter(outputs.values()))


def _record(outputs: Outputs, postprocess: Classify | None, top: int) -> dict[str, Any]:
    """One input's answer as JSON data: `predictions`, a list for each sample, or `outputs` by name."""
    if postprocess is None:
        return {
            "outputs": {
                name: {"shape": list(array.shape), "dtype": str(array.dtype), "values": array.tolist()} for name, array in outputs.items()
            }
        }
    samples = replace(postprocess, top=top).apply(_logits(outputs))
    return {"predictions": [[prediction._asdict() for prediction in sample] for sample in samples]}


def _show(answers: list[tuple[Path, Outputs]], model: Model, top: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgewise.cli.terminal import clean, console

    out = console()
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("input", overflow="fold", style="cyan")
    if model.classify is None:
        for column in ("output", "dtype", "shape", "first values"):
            table.add_column(column, overflow="fold")
    else:
        table.add_column("label", overflow="fold")
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    for path, outputs in answers:
        if model.classify is None:
            for name, array in outputs.items():
                first = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in array.ravel()[:_FIRST_VALUES].tolist())
                more = ", …" if array.size > _FIRST_VALUES else ""
                shape = "×".join(map(str, array.shape))
                table.add_row(clean(str(path)), clean(name), str(array.dtype), shape, Text(first + more))
            continue
        samples = replace(model.classify, top=top).apply(_logits(outputs))
        for number, sample in enumerate(samples):
            shown = clean(f"{path} [{number}]" if len(samples) > 1 else str(path))
            for rank, prediction in enumerate(sample):
                bar = Text("█" * round(20 * prediction.score), style="green")
                table.add_row("" if rank else shown, clean(prediction.label), f"{prediction.score:.1%}", bar)
    out.print(table)
    out.print(Text(f"run by {model.execution}" + (f"; {model.note}" if model.note else ""), style="dim"))
