"""What an engine brings into memory with its first model is none of that model's: a tiny one brings it before anything is measured.

Only of engines that models here run on, and that load ONNX: a form of an engine's own can't be made on a device.
"""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path

from edgewise.errors import EdgewiseError
from edgewise.host import curves, memory, repository
from edgewise.host.loading import execution_here
from edgewise.host.settings import Settings

SIZE = 64


def prepare(folder: Path, settings: Settings) -> None:
    """The engines of all models in `folder`; before it is told what an idle process has."""
    for name in sorted(engines(folder, settings)):
        warm(name)
    curves.device()
    memory.give_back()


def engines(folder: Path, settings: Settings) -> set[str]:
    """Engines that models in `folder` run on in this process, as their files say: none is read whole, or believed in any other way."""
    found = set()
    for model, files in repository.scan(folder).items():
        own = settings.of(model)
        if not own.process:
            found |= {_engine(file.path, own.backend) for file in files.values()}
    return found or {execution_here(None, None, None)[0].backend}


@cache
def warm(name: str) -> None:
    """Once a process. What is wrong with an engine is told to whoever loads a model on it."""
    from edgewise import backends
    from edgewise.types import Execution

    with contextlib.suppress(EdgewiseError):
        backend = backends.get(name)
        backend.version()
        if backends.form(name) == backends.ONNX:
            runner = backend.load(_tiny(), Execution(name))
            curves.measure(runner, runner.signature, shared=True, largest=2, budget_s=0.02)
            runner.close()


def _engine(file: Path, backend: str | None) -> str:
    from edgewise import package

    said = None
    if backend is None and file.suffix != ".onnx":
        with contextlib.suppress(EdgewiseError):  # it is looked at again, and refused then
            manifest = package.glance(file)
            said = manifest.execution if manifest is not None else None
    return execution_here(said, backend, None)[0].backend


def _tiny() -> bytes:
    """A product and a sum, as most models have."""
    from onnx import parser

    ones = ", ".join(["1"] * SIZE)
    return bytes(
        parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            tiny (float[batch, 1] x) => (float[batch, {SIZE}] y) <float[1, {SIZE}] w = {{ {ones} }}> {{ m = MatMul(x, w) y = Add(m, w) }}"""
        ).SerializeToString()
    )
