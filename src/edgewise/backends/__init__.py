"""Engines behind one protocol (`edgewise.types.Backend`). Nobody outside this room asks which engine it has.

A backend is a small class whose `load` returns a Runner; its engine is imported only when it loads a model. To add one: write the class,
name it in `edgewise.registry` (or pass "your.module:Class"), and let its test inherit `edgewise.testing.BackendConformance`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence

from edgewise import registry
from edgewise.backends import signature
from edgewise.devices import multiplies_bf16
from edgewise.errors import InvalidInput
from edgewise.types import Backend, Execution, Inputs, Runner

__all__ = ["ONNX", "compiles", "first_taking", "form", "get", "installed", "load", "load_all", "plain", "precisions", "taking"]

ONNX = "onnx"  # the form that a graph is


def get(name: str) -> Backend:
    """The backend of that name (or "module:Class"). Its engine may still be missing: `load` and `version` say so."""
    backend: Backend = registry.load("backend", name)()
    return backend


def installed() -> dict[str, Backend]:
    """Every registered backend whose engine is installed, in the registry's order. Imports no engine."""
    found = {name: get(name) for name in registry.names("backend")}
    return {name: backend for name, backend in found.items() if importlib.util.find_spec(registry.module_of(name)) is not None}


def form(name: str) -> str:
    """What that backend loads: "onnx", or a form of its own by the name under which `registry` has its maker. Yours need not say "onnx".

    A name that is none is an error where it is loaded, not here.
    """
    if name not in registry.names("backend") and ":" not in name:
        return ONNX
    return str(getattr(get(name), "form", ONNX))


def compiles(name: str) -> bool:
    """Whether that backend compiles for shapes: a graph whose axes are fixed is faster there than one whose axes are open."""
    return bool(getattr(get(name), "compiles", False))


def taking(wanted: str = ONNX) -> tuple[str, ...]:
    """Installed engines that load this form, in the registry's order."""
    return tuple(name for name, backend in installed().items() if getattr(backend, "form", ONNX) == wanted)


def precisions(name: str, sets: Collection[str]) -> tuple[str, ...]:
    """Floating precisions that a CPU with these instruction sets (`Device.isa`) runs natively, and this one too, which judges them."""
    native = multiplies_bf16(sets) or {"asimd", "bf16"} <= set(sets)
    return tuple(precision for precision in get(name).precisions() if precision != "bf16" or native)


def plain(execution: Execution) -> Execution:
    """`execution`, or where its engine has a form of its own, as many threads of the first engine that loads a graph as it is."""
    return execution if form(execution.backend) == ONNX else Execution(taking()[0], threads=execution.threads)


def first_taking(forms: Sequence[bytes], inputs: Inputs) -> bytes:
    """The first of one model's forms that `inputs` fit into: each is made for shapes up to some size. The last where they fit into none."""
    return next((form for form in forms[:-1] if signature.takes(form, inputs)), forms[-1])


def load(model: bytes, execution: Execution) -> Runner:
    """`model` (serialized ONNX with its weights inside, or the engine's own form) as a Runner under `execution`.

    Raises InvalidModel when the engine can't load it, MissingExtra when the engine isn't installed, InvalidInput for a precision, option
    or thread count that it doesn't have.
    """
    if execution.threads < 1:
        raise InvalidInput(f"threads={execution.threads}: give 1 or more")
    return get(execution.backend).load(model, execution)


def load_all(model: bytes, executions: Sequence[Execution]) -> list[Runner]:
    """`model` under each of these executions, which differ in options alone; all of them, or none. Raises as `load` does.

    Where the engine can, they share the weights as they came; what it lays out for its kernels is each one's own.
    """
    together = getattr(get(executions[0].backend), "load_all", None) if len(executions) > 1 else None
    if together is not None and all(execution.threads >= 1 for execution in executions):
        return list(together(model, executions))
    loaded: list[Runner] = []
    try:
        loaded.extend(load(model, execution) for execution in executions)  # what was loaded is in there, should another fail
    except BaseException:
        for runner in loaded:
            runner.close()
        raise
    return loaded
