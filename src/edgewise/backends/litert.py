"""LiteRT (TensorFlow Lite's successor) on its CPU kernels: an extra (`pip install 'edgewise[litert]'`)."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise import registry, tflite
from edgewise.backends import signature as signatures
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.types import Execution, Inputs, Outputs, Runner

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

OPTIONS = ("batch", "axes", "xnnpack")
ON_OFF = {"0": False, "1": True}
_STDERR = threading.Lock()


class LiteRt:
    """LiteRT's interpreter with XNNPACK, `threads` threads.

    It loads a form of its own, a flatbuffer ("TFL3"), which the package of a model that does best here has beside its graph. Shapes are
    fixed in it. Its card (`edgewise.tflite.Card`) says what stays open all the same: a batch is answered row by row, and inputs that are
    shorter along an axis whose end may be zeros are filled up. More than the form was made for is refused. A flatbuffer of another maker
    is loaded as it is, its signature read from it.

    Precisions: "fp32" is true fp32 (XNNPACK computes in half precision only where it is forced to, and nothing here does).

    Options, as text: `batch="1"` and `axes="batch=1,sequence=128"` fix open axes of the signature, within what the form was made for;
    `xnnpack` "0" leaves every operator to the built-in kernels, "1" is the default.

    Outputs are fresh arrays that the caller owns. A Runner serves one caller at a time.
    """

    name = "litert"
    form = "tflite"

    def version(self) -> str:
        _engine()
        import ai_edge_litert

        return str(ai_edge_litert.__version__)

    def precisions(self) -> tuple[str, ...]:
        return ("fp32",)

    def load(self, model: bytes, execution: Execution) -> Runner:
        """Raises InvalidModel for what isn't in the engine's form, or that it refuses; InvalidInput for an option that it hasn't got."""
        signatures.checked(self.name, execution, self.precisions(), OPTIONS)
        kernels = signatures.choice(self.name, execution, "xnnpack", ON_OFF, "1")
        if not tflite.recognised(model):
            raise InvalidModel(_no_form(self.name, model))
        engine = _engine()
        try:
            interface = tflite.interface(model)
        except InvalidModel as error:
            raise InvalidModel(f"{self.name} can't load the model: {error}") from error
        axes = signatures.fixed_axes(interface.signature, execution)
        resolver = engine.OpResolverType.AUTO if kernels else engine.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            with _silence():
                interpreter = engine.Interpreter(
                    model_content=bytes(model), num_threads=execution.threads, experimental_op_resolver_type=resolver
                )
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:  # as its bindings please
            raise InvalidModel(f"{self.name} can't load the model: {signatures.reason(error)}") from error
        return _Runner(interpreter, interface, axes)


def _engine() -> Any:
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise registry.missing(error) from error
    return interpreter


def _no_form(name: str, model: bytes) -> str:
    try:
        signatures.read(model)
    except InvalidModel as error:
        return f"{name} can't load the model: {error}"
    return (
        f"{name} can't load an ONNX graph: it has a form of its own, made where the model is compressed; `edgewise fit` puts it into the "
        "package, edgewise.export.litert.convert(graph, samples, execution) makes one"
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Standard error to nowhere for a moment: that XNNPACK was made is told there, once in a process, and no variable keeps it quiet.

    What goes wrong comes as an exception. The lock keeps two loads from putting each other's descriptor back.
    """
    with _STDERR:
        try:
            sys.stderr.flush()
            kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        except (OSError, ValueError, AttributeError):  # a process without standard error
            yield
            return
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


class _Runner:
    """A call of the shape that the form has goes straight through: three calls into the engine. Any other is taken apart first."""

    def __init__(self, interpreter: Interpreter, interface: tflite.Interface, fixed: Mapping[str, int]) -> None:
        self.signature = signatures.with_axes(interface.signature, fixed)
        self._interpreter: Interpreter | None = interpreter
        self._card = interface.card
        self._gate = signatures.Gate(self.signature)
        self._feeds = [(number, spec.name) for number, spec in zip(interface.inputs, self.signature.inputs, strict=True)]
        self._gives = [(number, spec.name) for number, spec in zip(interface.outputs, self.signature.outputs, strict=True)]
        self._axes: dict[str, int] = {}  # what the open axes are in this call
        self._whole = True
        self._check_sizes(fixed)

    def run(self, inputs: Inputs) -> Outputs:
        if self._interpreter is None:
            raise InvalidInput("this runner is closed; load the model again")
        try:
            if self._gate.check(inputs):
                self._look(self._interpreter, inputs)
            return self._once(self._interpreter, inputs) if self._whole else self._in_pieces(self._interpreter, inputs)
        except (RuntimeError, ValueError) as error:  # as its bindings please
            self._gate = signatures.Gate(self.signature)  # whatever was known of the shape, the next call is looked at again
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(f"litert can't run the model on these inputs: {signatures.reason(error)}") from error

    def _once(self, interpreter: Interpreter, inputs: Inputs) -> Outputs:
        for number, name in self._feeds:
            interpreter.set_tensor(number, inputs[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(number) for number, name in self._gives}

    def _look(self, interpreter: Interpreter, inputs: Inputs) -> None:
        """What this shape asks for. Raises InvalidInput for more than the form was made for."""
        if self._card is None:  # of another maker: its axes are open or they aren't
            for number, name in self._feeds:
                interpreter.resize_tensor_input(number, inputs[name].shape, strict=True)
            interpreter.allocate_tensors()
            return
        self._axes = signatures.bound_axes(self._card.signature, inputs)
        self._check_sizes(self._axes)
        self._whole = self._axes == self._card.sizes

    def _check_sizes(self, axes: Mapping[str, int]) -> None:
        """Raises InvalidInput where `axes` are no sizes that the form can be brought to."""
        if self._card is None or (axis := self._card.beyond(axes)) is None:
            return
        made, size = self._card.sizes[axis], axes[axis]
        raise InvalidInput(
            f"{axis}={size}: litert's form of this model was made for up to {made}; cut the input, or make a form for {axis}={size}"
        )

    def _in_pieces(self, interpreter: Interpreter, inputs: Inputs) -> Outputs:
        """Row by row, filled up with zeros; what is given back is cut to what was asked."""
        card = self._card
        assert card is not None  # for the type checker: without one, every call is whole
        count, step = self._axes.get(card.rows, 1), card.sizes.get(card.rows, 1)
        axes = {axis: size for axis, size in self._axes.items() if axis != card.rows}
        found: list[Outputs] = []
        for start in range(0, count, step):
            piece = {name: array[start : start + step] for name, array in inputs.items()} if card.rows else inputs
            filled = signatures.resized(card.signature, piece, card.sizes)
            found.append(signatures.cut(card.signature, self._once(interpreter, filled), axes))
        if not card.rows:
            return {name: np.ascontiguousarray(array) for name, array in found[0].items()}
        return {name: np.concatenate([one[name] for one in found])[:count] for name in found[0]}

    def close(self) -> None:
        self._interpreter = None
