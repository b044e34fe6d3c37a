"""Options from signatures: a function's keyword parameters become a command's options, their types and docstring the help.

A parameter that is added to the function is an option at once, with the text that its docstring says of it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from edgewise.errors import InvalidInput

Reader = Callable[[str], Any]


@dataclass(frozen=True)
class Option:
    """One option. `read` turns its text into a value, `gives` that value into arguments of the function that it was derived from."""

    name: str
    metavar: str
    help: str
    panel: str
    read: Reader | None  # None: a switch, without a value
    gives: Callable[[Any], dict[str, Any]]
    on: bool = False  # a switch's default
    hidden: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def options(function: Callable[..., Any], *, panel: str, leave_out: Sequence[str] = ()) -> list[Option]:
    """An option for each parameter of `function` (or field of a dataclass) that may be given by keyword and has a default.

    A number of bytes, `size_bytes`, may be given as --size-mb and --size-kb too.
    """
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.default is not parameter.empty
        and parameter.name not in leave_out
    ]
    said = explanations(function.__doc__ or "", list(inspect.signature(function).parameters))
    found: list[Option] = []
    for parameter in parameters:
        kind, text = _kind(function, parameter), said.get(parameter.name, "")
        if parameter.name.endswith("_bytes"):
            found += _bytes(parameter.name, text, panel)
            continue
        found.append(_option(parameter, kind, text, panel))
    return found


def number(name: str, text: str) -> Option:
    """An option that no function has: a whole number, above 0."""

    def read(words: str) -> int:
        value = int(words)
        if value < 1:
            raise ValueError(f"{words!r}: give a number above 0")
        return value

    return Option(name, "NUMBER", text, "Options", read, lambda value: {name: value})


def _option(parameter: inspect.Parameter, kind: Any, text: str, panel: str) -> Option:
    name = parameter.name

    def gives(value: Any) -> dict[str, Any]:
        return {name: value}

    if kind is bool:
        return Option(name, "", text, panel, None, gives, on=bool(parameter.default))
    read, metavar = reader(kind)
    default = _shown(parameter.default)
    text = f"{text} (default {default})" if default and "left out" not in text else text
    return Option(name, metavar, text.strip(), panel, read, gives)


def _bytes(name: str, text: str, panel: str) -> list[Option]:
    """--size-mb 3, --size-kb 3000 and --size-bytes 3000000 are the same."""
    short = name.removesuffix("_bytes")

    def gives(value: Any) -> dict[str, Any]:
        return {name: value}

    def times(factor: float) -> Reader:
        return lambda words: round(float(words) * factor)

    shown = Option(f"{short}_mb", "MB", f"{text} (or --{short}-kb, --{short}-bytes)".strip(), panel, times(1e6), gives)
    others = [
        replace(shown, name=f"{short}_{unit}", metavar=unit, read=times(factor), hidden=True)
        for unit, factor in (("kb", 1e3), ("bytes", 1))
    ]
    return [shown, *others]


def _shown(value: Any) -> str:
    if value is None or value == () or value == "":
        return ""
    if isinstance(value, float):
        return f"1/{1 / value:.0f}" if 0 < value < 0.01 and abs(1 / value - round(1 / value)) < 1e-6 else f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def explanations(doc: str, names: Sequence[str]) -> dict[str, str]:
    """What a docstring in the house's style says of each name: "size: (height, width); left out, …" or "mean, std: of each channel"."""
    body = doc.partition("\n\n")[2]
    known = "|".join(map(re.escape, names)) or "(?!)"
    head = re.compile(rf"(?:(?<=^)|(?<=[.;)] )|(?<=\n))[ ]*((?:{known})(?:, (?:{known}))*): ", re.MULTILINE)
    # A paragraph ends what is said of a name.
    text = re.sub(r"\n\s*\n", "\n\0", inspect.cleandoc("\n" + body))
    places = list(head.finditer(text))
    found: dict[str, str] = {}
    for place, following in zip_longest(places, places[1:]):
        said = text[place.end() : following.start() if following else len(text)].partition("\0")[0]
        words = " ".join(said.split()).rstrip(".;").replace("`", "")
        for name in place[1].split(", "):
            found.setdefault(name, words[:1].upper() + words[1:])
    return found


def _kind(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The parameter's type without "or None"; that of its default where the annotation can't be evaluated."""
    where = getattr(function, "__globals__", None) or vars(sys.modules[function.__module__])
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        kind = typing.get_type_hints(holder, dict(where))["it"]
    except (NameError, TypeError, AttributeError, SyntaxError):
        kind = type(parameter.default)
    if kind is parameter.empty:
        kind = type(parameter.default)
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [each for each in get_args(kind) if each is not type(None)]
        kind = kinds[0] if len(kinds) == 1 else str
    return kind


def reader(kind: Any) -> tuple[Reader, str]:
    """How a value of this type is read from one word, and how it is called in the help. Readers raise ValueError."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is int:
        return int, "NUMBER"
    if kind is float:
        return _float, "NUMBER"
    if kind in (str, Path):
        return kind, "TEXT" if kind is str else "PATH"
    if origin is Literal:
        return _one_of(inside), "|".join(map(str, inside))
    if origin is tuple and inside and inside[-1] is not Ellipsis:
        return _fixed(inside), ",".join(["NUMBER"] * len(inside))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence) and inside:
        return (_words, "A,B,…|FILE") if inside[0] is str else (_several(_float if inside[0] is float else inside[0]), "NUMBER,…")
    return _literal, "VALUE"


def _float(text: str) -> float:
    """A decimal number, or a fraction: 1/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(text)
    except ZeroDivisionError as error:
        raise ValueError(text) from error


def _one_of(allowed: tuple[Any, ...]) -> Reader:
    def read(text: str) -> Any:
        for value in allowed:
            if text == str(value):
                return value
        raise ValueError(f"{text!r}: give one of {', '.join(map(str, allowed))}")

    return read


def _fixed(kinds: tuple[Any, ...]) -> Reader:
    def read(text: str) -> tuple[Any, ...]:
        parts = text.lower().replace("x", ",").split(",")
        if len(parts) != len(kinds):
            raise ValueError(f"{text!r}: give {len(kinds)} values with a comma between them")
        return tuple(kind(part) for kind, part in zip(kinds, parts, strict=True))

    return read


def _several(kind: Callable[[str], Any]) -> Reader:
    return lambda text: tuple(kind(part) for part in text.split(",") if part.strip())


def _words(text: str) -> tuple[str, ...]:
    """Words with commas between them, or a file with one on each line."""
    path = Path(text)
    if "," not in text and path.is_file():
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def with_options(function: Callable[..., Any], derived: Sequence[Option]) -> Callable[..., Any]:
    """`function(…, **given)` as typer wants it: `derived` as explicit options; those that were given arrive in `given` by name.

    Options of one name are one option: --seed is the task's and the search's.
    """
    import typer

    own = inspect.signature(function, eval_str=True)
    fixed = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    added = {option.name: option for option in reversed(derived) if option.name not in own.parameters}
    order = [name for name in dict.fromkeys(option.name for option in derived) if name in added]
    extra = []
    for name in order:
        option = added[name]
        common: dict[str, Any] = {"help": option.help.replace("[", r"\["), "rich_help_panel": option.panel, "hidden": option.hidden}
        if option.read is None:
            flags = f"{option.flag}/--no-{option.flag[2:]}" if option.on else option.flag
            annotation: Any = Annotated[bool | None, typer.Option(flags, show_default=False, **common)]
        else:
            annotation = Annotated[str | None, typer.Option(option.flag, parser=_told(option), metavar=option.metavar, **common)]
        extra.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def command(**arguments: Any) -> Any:
        own_arguments = {name: value for name, value in arguments.items() if name not in added}
        given = {name: arguments[name] for name in order if arguments.get(name) is not None}
        return function(**own_arguments, **given)

    command.__doc__, command.__name__, command.__module__ = function.__doc__, function.__name__, function.__module__
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in fixed]
    # What inspect.signature reads first; mypy doesn't know that a function may have it.
    command.__signature__ = own.replace(parameters=[*keyword_only, *extra])  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def _told(option: Option) -> Reader:
    """The option's reader for typer, which calls it once more on what it returned, and shows the text of a ValueError."""

    def read(text: Any) -> Any:
        if not isinstance(text, str) or option.read is None:
            return text
        try:
            return option.read(text)
        except InvalidInput:
            raise
        except ValueError as error:
            import typer

            said = str(error) if ": give" in str(error) else f"{text!r} is no {option.metavar}"
            raise typer.BadParameter(said) from error

    return read


def collect(derived: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for the function that `derived` came from. Raises InvalidInput where two options set the same one."""
    found: dict[str, Any] = {}
    by: dict[str, str] = {}
    for option in derived:
        if option.name not in given:
            continue
        for name, value in option.gives(given[option.name]).items():
            if name in found and found[name] != value:
                raise InvalidInput(f"{by[name]} and {option.flag} say the same thing differently; give one of them")
            found[name], by[name] = value, option.flag
    return found
