"""Options that come from signatures and docstrings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from edgewise.cli import derive
from edgewise.errors import InvalidInput


def pictures(
    path: str,
    *,
    labels: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 1 / 255,
    resize: Literal["stretch", "crop"] = "stretch",
    flip: bool = False,
    keep: bool = True,
    count: int = 512,
    note: str = "",
) -> dict[str, Any]:
    """Pictures of something.

    labels: of the classes; left out, "0", "1", ….
    size: (height, width) of a picture, which may
    go on in the next line.
    mean, std: of each channel. scale: of a byte; flip: half of them.

    Raises nothing. count: isn't said here of an option any more.
    """
    given = {"labels": labels, "size": size, "mean": mean, "std": std, "scale": scale, "resize": resize}
    return {**given, "flip": flip, "keep": keep, "count": count, "note": note}


@dataclass(frozen=True)
class Limits:
    """Limits.

    size_bytes: of the file.
    """

    size_bytes: int | None = None


def run(function: Callable[..., Any], *arguments: str) -> tuple[dict[str, Any], str, int]:
    derived = derive.options(function, panel="Pictures")
    kept: dict[str, Any] = {}

    def command(**given: Any) -> None:
        """Do it."""
        kept.update(derive.collect(derived, given))

    app = typer.Typer(rich_markup_mode="rich")
    app.command()(derive.with_options(command, derived))
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, InvalidInput):
        raise result.exception
    return kept, result.output, result.exit_code


def test_only_what_was_given_is_passed() -> None:
    assert run(pictures)[0] == {}


def test_values_are_read_by_their_types(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\n\nsea lion\n", encoding="utf-8")
    given, _, code = run(
        pictures, "--labels", str(names), "--size", "224,192", "--mean", "0.1307", "--std", "0.2,0.3,0.4", "--scale", "1/255",
        "--resize", "crop", "--flip", "--no-keep", "--count", "3", "--note", "hello",
    )  # fmt: skip
    assert code == 0
    assert given == {
        "labels": ("cat", "sea lion"), "size": (224, 192), "mean": (0.1307,), "std": (0.2, 0.3, 0.4), "scale": 1 / 255,
        "resize": "crop", "flip": True, "keep": False, "count": 3, "note": "hello",
    }  # fmt: skip
    assert run(pictures, "--labels", "a,b")[0] == {"labels": ("a", "b")}
    assert run(pictures, "--size", "32x16")[0] == {"size": (32, 16)}


@pytest.mark.parametrize("wrong", [("--size", "3"), ("--size", "a,b"), ("--count", "1.5"), ("--resize", "zoom"), ("--scale", "1/0")])
def test_what_can_not_be_read_is_refused_with_the_options_name(wrong: tuple[str, str]) -> None:
    _, output, code = run(pictures, *wrong)
    assert code == 2
    assert wrong[0] in output


def test_help_is_what_the_docstring_says() -> None:
    said = derive.explanations(pictures.__doc__ or "", ["path", "labels", "size", "mean", "std", "scale", "flip", "count", "resize"])
    assert said == {
        "labels": 'Of the classes; left out, "0", "1", …',
        "size": "(height, width) of a picture, which may go on in the next line",
        "mean": "Of each channel",
        "std": "Of each channel",
        "scale": "Of a byte",
        "flip": "Half of them",
        "count": "Isn't said here of an option any more",
    }


def test_defaults_stand_in_the_help() -> None:
    shown = {option.name: option.help for option in derive.options(pictures, panel="")}
    assert shown["scale"] == "Of a byte (default 1/255)"
    assert shown["resize"] == "(default stretch)"
    assert "path" not in shown


def test_bytes_may_be_given_in_three_units() -> None:
    for words in (("--size-mb", "1.5"), ("--size-kb", "1500"), ("--size-bytes", "1500000")):
        assert run(Limits, *words)[0] == {"size_bytes": 1_500_000}
    with pytest.raises(InvalidInput, match="--size-mb and --size-kb"):
        run(Limits, "--size-mb", "1", "--size-kb", "2")


def test_a_function_of_somebody_elses_without_types_or_docstring() -> None:
    def theirs(path, *, depth=3, wild={"a": 1}):  # type: ignore[no-untyped-def]  # noqa: B006
        return path, depth, wild

    assert run(theirs, "--depth", "4", "--wild", "{'b': 2}")[0] == {"depth": 4, "wild": {"b": 2}}


def test_a_parameter_that_is_added_is_an_option_at_once() -> None:
    from edgewise.tasks import image_classification

    names = {option.name for option in derive.options(image_classification, panel="")}
    import inspect

    parameters = inspect.signature(image_classification).parameters.values()
    assert names == {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    assert all(option.help for option in derive.options(image_classification, panel=""))
