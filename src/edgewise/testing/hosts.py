"""A host in memory: models that are functions, for tests of whoever speaks a protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.errors import InvalidInput
from edgewise.host import Answer, Description, NoModel, Request, Statistics, Status, Taken
from edgewise.types import Inputs, Outputs, Signature, TensorSpec

if TYPE_CHECKING:
    import asyncio


@dataclass
class FakeModel:
    """answer: makes the outputs, or raises; unless given, each output is the input at the same place. delay_s: awaited before.

    Further keywords are Description's.
    """

    signature: Signature
    answer: Callable[[Inputs], Outputs] | None = None
    delay_s: float = 0.0
    versions: tuple[str, ...] = ("1",)
    loaded: bool = True
    described: Mapping[str, Any] = field(default_factory=dict)

    def run(self, inputs: Inputs) -> Outputs:
        if self.answer is not None:
            return self.answer(inputs)
        pairs = zip(self.signature.inputs, self.signature.outputs, strict=False)
        return {out.name: inputs[spec.name] for spec, out in pairs}


def identity(dtype: str = "float32", shape: tuple[int | str, ...] = ("batch", "width"), **more: Any) -> FakeModel:
    """Input "x" comes back as output "y"."""
    return FakeModel(Signature((TensorSpec("x", shape, dtype),), (TensorSpec("y", shape, dtype),)), **more)


class _Waiting:
    """A request that is answered after its model's delay."""

    def __init__(self, host: FakeHost, request: Request, model: FakeModel, version: str) -> None:
        import asyncio

        self._host, self._given = host, (request, model, version)
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self._timer = loop.call_later(model.delay_s, self._run)

    def cancel(self) -> None:
        self._timer.cancel()
        self._host.cancelled += 1

    def _run(self) -> None:
        try:
            self.answer.set_result(self._host._run(*self._given))
        except Exception as error:  # the model's own: told to whoever asked
            self.answer.set_exception(error)


class FakeHost:
    """`edgewise.host.Host` over `FakeModel`s by name. `requests` holds what was asked, `cancelled` how many were given up."""

    def __init__(self, models: Mapping[str, FakeModel]) -> None:
        self.models = dict(models)
        self.requests: list[Request] = []
        self.cancelled = 0
        self._statistics = {(name, version): Statistics() for name, model in models.items() for version in model.versions}

    def take(self, request: Request) -> Answer | Taken | None:
        model, version = self._found(request.model, request.version)
        self._check(request, model)
        return _Waiting(self, request, model, version) if model.delay_s else self._run(request, model, version)

    async def infer(self, request: Request) -> Answer:
        import asyncio

        model, version = self._found(request.model, request.version)
        self._check(request, model)
        try:
            await asyncio.sleep(model.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self._run(request, model, version)

    def _check(self, request: Request, model: FakeModel) -> None:
        self.requests.append(request)
        wanted = {spec.name: spec for spec in model.signature.inputs}
        if set(wanted) != set(request.inputs):
            raise InvalidInput(f"inputs {sorted(request.inputs)} given, the model takes {sorted(wanted)}")
        for name, array in request.inputs.items():
            if array.dtype != np.dtype(wanted[name].dtype) or array.ndim != len(wanted[name].shape):
                raise InvalidInput(f"input {name!r} is {array.dtype} {array.shape}, the model takes {wanted[name]}")
        known = {spec.name for spec in model.signature.outputs}
        if not set(request.outputs) <= known:
            raise InvalidInput(f"outputs {list(request.outputs)} asked, the model gives {sorted(known)}")

    def _run(self, request: Request, model: FakeModel, version: str) -> Answer:
        kept = self._statistics[request.model, version]
        try:
            outputs = model.run(request.inputs)
        except Exception:
            kept.fail.add(0.0)
            raise
        kept.success.add(0.0)
        kept.compute.add(0.0)
        kept.rows += 1
        kept.last_s = time.time()
        return Answer(request.model, version, {name: outputs[name] for name in request.outputs or outputs})

    def index(self) -> list[Status]:
        return [
            Status(name, version, "ready" if model.loaded else "absent", "" if model.loaded else "unloaded")
            for name, model in self.models.items()
            for version in model.versions
        ]

    def ready(self, model: str, version: str = "") -> bool:
        return self._found(model, version)[0].loaded

    async def describe(self, model: str, version: str = "") -> Description:
        found, version = self._found(model, version)
        return Description(
            model,
            version,
            found.signature,
            **{"batched": found.signature.batched, "independent": found.signature.batched, **found.described},
        )

    def statistics(self, model: str = "", version: str = "") -> Mapping[tuple[str, str], Statistics]:
        if not model:
            return self._statistics
        found, _ = self._found(model, version)
        return {(model, each): self._statistics[model, each] for each in found.versions if version in ("", each)}

    async def load(self, model: str) -> None:
        self._found(model, "")[0].loaded = True

    async def unload(self, model: str) -> None:
        self._found(model, "")[0].loaded = False

    def _found(self, name: str, version: str) -> tuple[FakeModel, str]:
        model = self.models.get(name)
        if model is None:
            raise NoModel(f"there is no model {name!r}; there are {', '.join(self.models)}")
        if version and version not in model.versions:
            raise NoModel(f"model {name!r} has no version {version!r}")
        return model, version or model.versions[-1]
