"""Recipes: which passes a model goes through, in order, as data and as one line of text.

    quantize(estimator="mse", skip=("head",)) > lower(to="s8")

The text is Python call syntax with keywords and literals, read by `ast` and never evaluated. A pass's own signature is its schema: the
arguments that a recipe may give, their names and defaults. What a pass needs beyond them (`SUPPLIED`) is handed in by `apply`, by name.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgewise import registry
from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.types import Compressed

Level = Literal["module", "graph", "package"]

# In the order in which a model is one after the other.
LEVELS: tuple[Level, ...] = ("module", "graph", "package")

# Parameters that `apply` supplies and a recipe's text doesn't: what the model is for, where it will run, what it learns from, what is
# known of inner tensors, where an interrupted pass keeps its state and a teacher's answers, when it is hopeless, how to tell of progress.
SUPPLIED = ("task", "device", "table", "calibration", "execution", "teacher", "kept", "checkpoint", "cache", "stopper", "progress")


@dataclass(frozen=True)
class Step:
    """One pass with its arguments: literals (numbers, strings, booleans, None, tuples of these)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


@dataclass(frozen=True)
class Recipe:
    """Steps in order. The empty recipe leaves a model as it came; its text is ""."""

    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return " > ".join(str(step) for step in self.steps)


def parse(text: str) -> Recipe:
    """Read a recipe's text, and check every step against the signature of its pass.

    Raises InvalidInput with the place and what was expected there.
    """
    if not text.strip():
        return Recipe()
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InvalidInput(f"recipe {text!r} can't be read ({error}); write it as quantize(bits=8) > lower(to='u8')") from error
    if isinstance(tree, ast.Compare):
        if any(not isinstance(operator, ast.Gt) for operator in tree.ops):
            raise InvalidInput(f"recipe {text!r}: join its steps with '>'")
        calls = [tree.left, *tree.comparators]
    else:
        calls = [tree]
    recipe = Recipe(tuple(_step(call, text) for call in calls))
    check(recipe)
    return recipe


def _step(node: ast.expr, text: str) -> Step:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise InvalidInput(f"recipe {text!r}: {ast.unparse(node)!r} is no step; write a pass's name and its arguments: quantize(bits=8)")
    if node.args:
        raise InvalidInput(f"recipe {text!r}: {ast.unparse(node)} has an argument without a name; write name=value")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise InvalidInput(f"recipe {text!r}: '**' isn't read; write each argument as name=value")
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError) as error:
            value = ast.unparse(keyword.value)
            raise InvalidInput(
                f"recipe {text!r}: {keyword.arg}={value} is no literal; give a number, a string or a tuple of them"
            ) from error
    return Step(node.func.id, arguments)


def check(recipe: Recipe) -> None:
    """Raise InvalidInput for a pass that doesn't exist, an argument that its signature lacks, or or a step behind one of a later level."""
    reached: Level = "module"
    for step in recipe.steps:
        function = registry.load("pass", step.name)
        allowed = options(function)
        for name in step.arguments:
            if name not in allowed:
                raise InvalidInput(f"{step.name} has no argument {name!r}; it has {', '.join(allowed)}")
        if LEVELS.index(level(function)) < LEVELS.index(reached):
            then = {"graph": "the exported graph", "package": "the package"}[reached]
            where = "first" if level(function) == "module" else "before that"
            raise InvalidInput(f"{step.name} changes the {level(function)} and stands after a step on {then}; put it {where}")
        reached = level(function)


def options(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names that a recipe may give to this pass: its keyword parameters without those that `apply` supplies."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in SUPPLIED)


def epochs(step: Step) -> int:
    """How often a step goes through the training data: what it says, or its pass's default; 0 for one that doesn't train."""
    usual = inspect.signature(registry.load("pass", step.name)).parameters.get("epochs")
    return int(step.arguments.get("epochs", usual.default if usual else 0))


def level(function: Callable[..., Any]) -> Level:
    """What a pass takes first: a torch module, an exported graph, or a package. Its annotation says so."""
    first = next(iter(inspect.signature(function).parameters.values()))
    annotation = first.annotation if isinstance(first.annotation, str) else getattr(first.annotation, "__name__", "")
    levels: dict[str, Level] = {"Graph": "graph", "Package": "package"}
    return levels.get(annotation.rpartition(".")[2], "module")


def divided(recipe: Recipe) -> tuple[Recipe, Recipe]:
    """What makes the graph, and what is done to its package."""
    on_package = [level(registry.load("pass", step.name)) == "package" for step in recipe.steps]
    first = on_package.index(True) if True in on_package else len(on_package)
    return Recipe(recipe.steps[:first]), Recipe(recipe.steps[first:])


@dataclass(frozen=True)
class Applied:
    """A model after a recipe, and what each step reported."""

    model: Any
    results: tuple[Compressed, ...]


def apply(
    recipe: Recipe,
    model: Any,
    *,
    export: Callable[[Any], Any] = lambda model: model,
    pack: Callable[[Any], Any] = lambda model: model,
    **supplies: Any,
) -> Applied:
    """Send `model` through the steps in order. `export` turns a module into a graph, once, before the first step that takes one; `pack`
    turns a graph into a package.

    supplies: values for the names in SUPPLIED; each pass gets those that its signature names. A callable given for `calibration` is called
    only when a pass asks for it; `checkpoint`, a folder, gets one of its own for each step. Raises what a pass raises, with the step named.
    """
    results = []
    reached: Level = "module"
    for number, step in enumerate(recipe.steps, 1):
        function = registry.load("pass", step.name)
        if level(function) != "module" and reached == "module":
            model, reached = export(model), "graph"
        if level(function) == "package" and reached == "graph":
            model, reached = pack(model), "package"
        wanted = inspect.signature(function).parameters
        given = {name: value for name, value in supplies.items() if name in wanted}
        if callable(given.get("calibration")):
            given["calibration"] = given["calibration"]()
        if given.get("checkpoint") is not None:
            given["checkpoint"] = Path(given["checkpoint"]) / f"{number}-{step.name}"
        try:
            done: Compressed = function(model, **given, **step.arguments)
        except EdgewiseError as error:
            raise type(error)(f"step {step}: {error}") from error
        model = done.model
        results.append(done)
    return Applied(export(model) if reached == "module" else model, tuple(results))
