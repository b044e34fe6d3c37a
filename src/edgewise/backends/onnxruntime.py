"""ONNX Runtime on its CPU provider: the engine that every install has."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise import registry
from edgewise.backends import signature as signatures
from edgewise.devices import isa
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.types import Execution, Inputs, Outputs, Runner, Signature

if TYPE_CHECKING:
    import onnxruntime

OPTIONS = ("batch", "axes", "optimization", "spinning", "avx2_precise")
ON_OFF = {"0": "0", "1": "1"}


class OnnxRuntime:
    """ONNX Runtime, CPU provider only, sequential execution, `threads` threads inside an operator and one across.

    Precisions: "fp32" is true fp32 (no fast-math switch is ever on); "bf16" exists on ARM cores with `bf16`, where the engine's
    fast-math GEMM (`mlas.enable_gemm_fastmath_arm64_bfloat16`) computes fp32 products in bfloat16.

    Options, as text: `batch="1"` and `axes="batch=1,sequence=128"` fix named axes before the graph is optimized (free-dimension
    overrides); `optimization` is the graph optimization level: "all" (default), "extended", "basic" or "off"; `spinning` "1" (the
    engine's default) lets idle threads of the pool spin: 1.8x faster at two threads on tiny models, but it costs a core that is shared;
    `avx2_precise` "1" turns on `session.x64quantprecision`: on x86 without VNNI, u8×s8 products saturate in 16 bits unless it does.

    Outputs are fresh arrays that the caller owns. A Runner serves one caller at a time.
    """

    name = "onnxruntime"

    def version(self) -> str:
        return str(_engine().__version__)

    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "bf16") if sys.platform == "linux" and {"asimd", "bf16"} <= set(isa()) else ("fp32",)

    def load(self, model: bytes, execution: Execution) -> Runner:
        """Raises InvalidModel when the engine refuses the graph, InvalidInput for an option that it doesn't have."""
        signatures.checked(self.name, execution, self.precisions(), OPTIONS)
        engine = _engine()
        try:
            signature = signatures.read(model)
        except InvalidModel as error:
            raise InvalidModel(f"{self.name} can't load the model: {error}") from error
        axes = signatures.fixed_axes(signature, execution)
        try:
            session = engine.InferenceSession(model, _session_options(engine, execution, axes), providers=["CPUExecutionProvider"])
        except Exception as error:  # pybind exceptions of a dozen classes, none of them documented
            raise InvalidModel(f"{self.name} can't load the model: {signatures.reason(error)}") from error
        return _Runner(session, signatures.with_axes(signature, axes))


def _engine() -> Any:
    """ONNX Runtime, without its telemetry: since 1.29 it would keep a device id and post events to Microsoft from its first moment on.

    It reads the variable once, when it is first imported; `disable_telemetry_events` comes too late for the first event (its Privacy.md).
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise registry.missing(error) from error
    onnxruntime.set_default_logger_severity(4)  # fatal only: what matters comes as an exception, which has our words around it
    return onnxruntime


def _session_options(engine: Any, execution: Execution, axes: dict[str, int]) -> Any:
    level = engine.GraphOptimizationLevel
    levels = {
        "all": level.ORT_ENABLE_ALL,
        "extended": level.ORT_ENABLE_EXTENDED,
        "basic": level.ORT_ENABLE_BASIC,
        "off": level.ORT_DISABLE_ALL,
    }
    options = engine.SessionOptions()
    options.intra_op_num_threads = execution.threads
    options.inter_op_num_threads = 1
    options.execution_mode = engine.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = signatures.choice("onnxruntime", execution, "optimization", levels, "all")
    options.log_severity_level = 4
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", signatures.choice("onnxruntime", execution, "spinning", ON_OFF, "1")
    )
    options.add_session_config_entry("session.x64quantprecision", signatures.choice("onnxruntime", execution, "avx2_precise", ON_OFF, "0"))
    if execution.precision == "bf16":
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    for axis, size in axes.items():
        options.add_free_dimension_override_by_name(axis, size)
    return options


class _Runner:
    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature) -> None:
        self.signature = signature
        self._session: onnxruntime.InferenceSession | None = session
        self._gate = signatures.Gate(signature)
        self._names = [spec.name for spec in signature.outputs]

    def run(self, inputs: Inputs) -> Outputs:
        if self._session is None:
            raise InvalidInput("this runner is closed; load the model again")
        self._gate.check(inputs)
        try:
            outputs: list[np.ndarray] = self._session.run(self._names, inputs)
        except Exception as error:  # as above: pybind exceptions without a documented base
            raise InvalidInput(f"onnxruntime can't run the model on these inputs: {signatures.reason(error)}") from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        self._session = None
