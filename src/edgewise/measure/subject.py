"""What is measured: a model under an execution."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgewise.backends import signature
from edgewise.types import Execution, Inputs


@dataclass(frozen=True)
class Subject:
    """`model`: serialized ONNX with its weights inside, as it lies in its file."""

    model: bytes
    execution: Execution

    def fixed(self, inputs: Inputs) -> Execution:
        """The execution with every named axis fixed to what it is in `inputs`: engines compile for the shape that is measured.

        One that has `batch` or `axes` among its options is left as it is; `axes=""` measures the graph with its axes open.
        Raises InvalidModel or InvalidInput when the model can't be read or `inputs` don't fit it.
        """
        axes = signature.bound_axes(signature.read(self.model), inputs)
        options = self.execution.options
        if not axes or "axes" in options or "batch" in options:
            return self.execution
        text = ",".join(f"{name}={size}" for name, size in axes.items())
        return replace(self.execution, options={**options, "axes": text})
