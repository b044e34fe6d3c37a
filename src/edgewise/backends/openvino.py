"""OpenVINO on its CPU plugin: an extra (`pip install 'edgewise[openvino]'`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise import registry
from edgewise.backends import signature as signatures
from edgewise.devices import isa, multiplies_bf16
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.types import Execution, Inputs, Outputs, Runner, Signature

if TYPE_CHECKING:
    import openvino

OPTIONS = ("batch", "axes", "dynamic_quantization")
HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVino:
    """OpenVINO's CPU plugin, one stream, LATENCY hint, exactly `threads` threads.

    Precisions: "fp32" sets INFERENCE_PRECISION_HINT=f32 (without it the plugin runs bf16 where the CPU has AVX-512 or AMX); "bf16"
    exists only where the CPU multiplies bfloat16 itself (avx512_bf16, amx_bf16): the plugin would emulate it on others.

    Options, as text: `batch="1"` and `axes="batch=1,sequence=128"` fix named axes before compilation (dynamic shapes are slower here);
    `dynamic_quantization` is the group size with which activations may be quantized on the fly when weights are compressed: "0" (default)
    keeps what is float in the graph float, where the engine's own default is 32.

    Thread pinning is off (ENABLE_CPU_PINNING is on by default): the plugin would place its threads itself, against the affinity of the
    process, which they inherit this way. Hyper-threads count as cores, so that `threads` means the same as for other engines.
    Outputs are fresh arrays that the caller owns. A Runner serves one caller at a time.
    """

    name = "openvino"
    compiles = True

    def version(self) -> str:
        return str(_engine().__version__).partition("-")[0]

    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "bf16") if multiplies_bf16(isa()) else ("fp32",)

    def load(self, model: bytes, execution: Execution) -> Runner:
        """Raises InvalidModel when the engine refuses the graph, InvalidInput for an option or a thread count that it doesn't have."""
        return self.load_all(model, [execution])[0]

    def load_all(self, model: bytes, executions: Sequence[Execution]) -> list[Runner]:
        """The same, under each of these executions. The graph is read once: its clones have their shapes alone to themselves, and share its
        constants, of which every compiled model keeps what its kernels take as it came."""
        for execution in executions:
            signatures.checked(self.name, execution, self.precisions(), OPTIONS)
            group = execution.options.get("dynamic_quantization", "0")
            if not group.isdigit():
                raise InvalidInput(f"{self.name} option dynamic_quantization={group!r}: give a group size, or 0 for none")
        engine = _engine()
        try:
            signature = signatures.read(model)
        except InvalidModel as error:
            raise InvalidModel(f"{self.name} can't load the model: {error}") from error
        fixed = [signatures.fixed_axes(signature, execution) for execution in executions]
        try:
            read = _core().read_model(model)
        except Exception as error:  # RuntimeError, TypeError and classes of its own
            raise InvalidModel(f"{self.name} can't load the model: {signatures.reason(error)}") from error
        return [_compiled(engine, read, signature, axes, execution) for axes, execution in zip(fixed, executions, strict=True)]


def _compiled(engine: Any, read: openvino.Model, signature: Signature, axes: Mapping[str, int], execution: Execution) -> _Runner:
    fixed = signatures.with_axes(signature, axes)
    try:
        if axes:
            read = read.clone()
            read.reshape({spec.name: engine.PartialShape([-1 if isinstance(d, str) else d for d in spec.shape]) for spec in fixed.inputs})
        compiled = _core().compile_model(read, "CPU", _config(execution))
    except Exception as error:  # RuntimeError, TypeError and classes of its own
        raise InvalidModel(f"openvino can't load the model: {signatures.reason(error)}") from error
    threads = compiled.get_property("INFERENCE_NUM_THREADS")
    if threads != execution.threads:
        raise InvalidInput(f"threads={execution.threads}: openvino can use {threads} here (the cores that this process may run on)")
    return _Runner(engine, compiled, fixed)


def _engine() -> Any:
    """OpenVINO, without its telemetry: importing it alone would write a client id into ~/intel and post an event to Google Analytics.

    It takes a stub of its own where `openvino_telemetry` can't be found, so that package is hidden while OpenVINO is imported.
    """
    hidden = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if hidden:
        # None there is what makes an import fail (Python's import system, 5.3.1); the stubs know modules alone.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise registry.missing(error) from error
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
    return openvino


@cache
def _core() -> openvino.Core:
    """One for the process, which is never given up. Each brings its CPU plugin, and that an alternate stack for the signals of the thread.

    Two of them, given up in the order in which they were made, leave that thread with a stack that is unmapped (2026.4
    puts back what it found): the next Ctrl-C is a segmentation fault.
    """
    return _engine().Core()


def _config(execution: Execution) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": HINTS[execution.precision],
        "INFERENCE_NUM_THREADS": execution.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": True,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": int(execution.options.get("dynamic_quantization", "0")),
        "LOG_LEVEL": "LOG_NONE",
    }


class _Runner:
    """Inputs are copied into memory that is bound to the request once per shape; binding per call would cost more than a tiny model."""

    def __init__(self, engine: Any, compiled: openvino.CompiledModel, signature: Signature) -> None:
        self.signature = signature
        self._tensor = engine.Tensor
        self._compiled: openvino.CompiledModel | None = compiled
        self._request = compiled.create_infer_request()
        self._gate = signatures.Gate(signature)
        self._bound: dict[str, np.ndarray] = {}
        ports = [port.names for port in compiled.outputs]
        self._outputs = [(spec.name, next(i for i, names in enumerate(ports) if spec.name in names)) for spec in signature.outputs]

    def run(self, inputs: Inputs) -> Outputs:
        if self._compiled is None:
            raise InvalidInput("this runner is closed; load the model again")
        if self._gate.check(inputs):
            self._bind(inputs)
        for name, memory in self._bound.items():
            np.copyto(memory, inputs[name])
        try:
            results = self._request.infer(share_outputs=True).to_tuple()  # by position: looking a port up costs 7 µs
        except Exception as error:  # RuntimeError and classes of its own
            raise InvalidInput(f"openvino can't run the model on these inputs: {signatures.reason(error)}") from error
        # share_outputs gives views of memory that the next call overwrites
        return {name: np.array(results[i]) for name, i in self._outputs}

    def _bind(self, inputs: Inputs) -> None:
        self._bound = {spec.name: np.empty(inputs[spec.name].shape, spec.dtype) for spec in self.signature.inputs}
        for name, memory in self._bound.items():
            self._request.set_tensor(name, self._tensor(memory, shared_memory=True))

    def close(self) -> None:
        self._request = self._compiled = None
        self._bound = {}
        self._outputs = []
