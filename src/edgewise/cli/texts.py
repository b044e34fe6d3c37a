"""`edgewise run` on texts: given in the command, in files of lines or on standard input; their rows, answers, and how those are shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.errors import InvalidData, InvalidInput, InvalidPackage

if TYPE_CHECKING:
    from edgewise.data.text import TextEncoder
    from edgewise.data.text.rows import Rows
    from edgewise.package import Package
    from edgewise.types import Runner

_SHOWN = 200  # characters of a text
_VALUES = 8


@dataclass(frozen=True)
class Answers:
    """texts: one each, or pairs. rows: of them; outputs: one call's for each row."""

    texts: Sequence[Any]
    rows: Rows
    outputs: Sequence[np.ndarray]


def given(words: Sequence[str]) -> list[str]:
    """The texts that a command's words stand for: "-" is standard input, a file's name its lines, anything else the text itself.

    Raises InvalidData for a file that isn't UTF-8.
    """
    found: list[str] = []
    for word in words:
        if word == "-":
            found += _lines(sys.stdin.buffer.read(), "standard input")
        elif is_file(word):
            found += _lines(Path(word).read_bytes(), word)
        else:
            found.append(word)
    if not found:
        raise InvalidData(f"{' '.join(words)[:200]}: there is no text in it; give one a line")
    return found


def is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte in it: a text
        return False


def _lines(data: bytes, what: str) -> list[str]:
    try:
        return [line for line in data.decode("utf-8-sig").replace("\r\n", "\n").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidData(f"{what} is not UTF-8 (byte {error.start}); give texts in UTF-8, one a line") from error


def encoder_of(package: Package) -> TextEncoder:
    """Raises InvalidPackage where the tokenizer isn't in it, or is another one; MissingExtra without the library."""
    from edgewise.data.text import TextEncoder
    from edgewise.data.text.preprocess import TOKENIZER

    preprocess: Any = package.preprocess
    data = package.files.get(TOKENIZER)
    if data is None:
        raise InvalidPackage(f"{package.source} says how texts are fed, and has no {TOKENIZER}; pack it again")
    try:
        return TextEncoder(preprocess, data)
    except InvalidInput as error:
        raise InvalidPackage(f"{package.source}: {error}; pack it again") from error


def answers(runner: Runner, encoder: TextEncoder, texts: Sequence[str], separator: str) -> Answers:
    """Row by row: a model whose scales are taken per call would let one text change the answer to another."""
    preprocess = encoder.preprocess
    names = {spec.name for spec in runner.signature.inputs}
    if names != set(preprocess.inputs):
        raise InvalidPackage(
            f"the package feeds {', '.join(preprocess.inputs)}, and its model takes {', '.join(sorted(names))}; pack it again"
        )
    fed: Sequence[Any] = [_pair(text, separator) for text in texts] if preprocess.pair else texts
    rows = encoder.rows(fed)
    fixed = next((spec.shape[0] for spec in runner.signature.inputs if isinstance(spec.shape[0], int)), 1)
    output = runner.signature.outputs[0].name
    found = []
    for row in range(len(rows)):
        inputs = rows.inputs(np.full(fixed, row), preprocess)
        found.append(runner.run(inputs)[output][:1])
    return Answers(fed, rows, found)


def _pair(text: str, separator: str) -> tuple[str, str]:
    first, there, second = text.partition(separator)
    if not there:
        raise InvalidData(f"{text[:80]!r}: the model takes two texts; give both with {separator!r} between them (--separator)")
    return first, second


def records(found: Answers, postprocess: Any, top: int) -> list[dict[str, Any]]:
    """One answer for each text, as JSON data: the outputs as they are where the package says nothing of answers."""
    from edgewise.data.postprocess import Classify, Embed, Extract, Regress
    from edgewise.data.text import windows

    rows, outputs, count = found.rows, found.outputs, len(found.texts)
    said: list[dict[str, Any]]
    match postprocess:
        case Classify():
            samples = replace(postprocess, top=top).apply(windows.mean(rows, outputs, count))
            said = [{"predictions": [[prediction._asdict() for prediction in sample]]} for sample in samples]
        case Regress():
            said = [{"value": value} for value in postprocess.apply(windows.mean(rows, outputs, count))]
        case Embed():
            said = [{"embedding": vector.tolist()} for vector in postprocess.apply(windows.weighted(rows, outputs, count))]
        case Extract():
            contexts = [text[1] for text in found.texts]
            said = [{"answer": one._asdict()} for one in postprocess.apply(windows.side_by_side(rows, outputs, count), rows, contexts)]
        case _:
            said = [{"outputs": values.tolist()} for values in windows.mean(rows, outputs, count)]
    return [{"input": text, **record} for text, record in zip(found.texts, said, strict=True)]


def show(records: Sequence[dict[str, Any]], remark: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgewise.cli.terminal import clean, console

    out = console()
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("text", overflow="fold", style="cyan")
    for name in ("answer", "score", ""):
        table.add_column(name, overflow="fold", justify="right" if name == "score" else "left")
    for record in records:
        given = record["input"]
        shown = clean(given if isinstance(given, str) else " · ".join(given), _SHOWN)
        if "predictions" in record:
            for rank, prediction in enumerate(record["predictions"][0]):
                bar = Text("█" * round(20 * prediction["score"]), style="green")
                table.add_row("" if rank else shown, clean(prediction["label"]), f"{prediction['score']:.1%}", bar)
        elif "answer" in record:
            answer = record["answer"]
            table.add_row(shown, clean(answer["text"] or "(no answer)"), f"{answer['score']:.4g}", "")
        else:
            values = np.ravel(np.asarray(record.get("value", record.get("embedding", record.get("outputs")))))
            table.add_row(shown, ", ".join(f"{value:.4g}" for value in values[:_VALUES]) + (", …" if len(values) > _VALUES else ""), "", "")
    out.print(table)
    out.print(Text(remark, style="dim"))
