"""From a file to a Runner: what a package or a plain graph holds, on which engine it runs here, and its forms as one model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgewise.errors import InvalidModel, NotTrusted
from edgewise.types import Execution, Inputs, Outputs, Runner, Signature, TensorSpec

if TYPE_CHECKING:
    from edgewise.data.postprocess import Classify, Embed, Extract, Regress
    from edgewise.data.preprocess import ImagePreprocess
    from edgewise.data.text import TextPreprocess
    from edgewise.package import Package
    from edgewise.package.signing import Trust

_CHUNK = 1 << 20

Shapes = tuple[tuple[int, ...], ...]  # of each input, in the signature's order


@dataclass(frozen=True)
class Model:
    """What a file gave: bytes for an engine, and what stands around them in a package.

    data: the graph, or the engine's own forms of it, the smallest first.
    """

    data: tuple[bytes, ...]
    execution: Execution
    preprocess: ImagePreprocess | TextPreprocess | None = None
    postprocess: Classify | Regress | Embed | Extract | None = None
    note: str = ""
    package: Package | None = None

    @property
    def classify(self) -> Classify | None:
        """What makes labels of scores, where that is what the package does."""
        from edgewise.data.postprocess import Classify

        return self.postprocess if isinstance(self.postprocess, Classify) else None


@dataclass(frozen=True)
class Facts:
    """What a file says of its model, without an engine: kept while the model itself is on disk.

    content_id: SHA-256, of the package as it names itself, or of a plain graph's file. weight_bytes: as an engine gets them.
    recorded_bytes: peak memory above an idle process when the package was measured; None where it wasn't.
    files: what preprocessing needs besides, by name. shapes: graphs of fixed shapes that stand beside the open one (`fixed_shapes`).
    """

    content_id: str
    signature: Signature
    execution: Execution
    size_bytes: int
    weight_bytes: int
    rows: Literal["independent", "dependent"] | None = None
    labels: tuple[str, ...] = ()
    preprocess: Any = None
    postprocess: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    recorded_bytes: int | None = None
    note: str = ""
    shapes: int = 0

    @property
    def batchable(self) -> bool:
        """Whether rows of strangers may share a call: only where somebody proved it."""
        return self.rows == "independent" and self.signature.batched


def look(file: Path, *, backend: str | None = None, threads: int | None = None, trust: Trust | None = None) -> Facts:
    """Check the file and read what it says, without its weights in memory. Raises InvalidInput and its kind, NotTrusted."""
    if file.suffix == ".onnx":
        _unsigned(file, trust)
        return _look_onnx(file, backend, threads)
    from edgewise import package

    found = package.open(file, trust=trust)
    execution, note = execution_here(found.execution, backend, threads)
    entries = [found.manifest.entry(name) for name in found.forms(execution.backend) or ("main",)]
    weights = sum(_decoded_bytes(found, entry.member) + sum(_plain_bytes(tensor) for tensor in entry.tensors) for entry in entries)
    measured = found.manifest.measured
    return Facts(
        content_id=found.content_id,
        signature=found.signature,
        execution=execution,
        size_bytes=found.size_bytes,
        weight_bytes=weights,
        rows=found.rows,
        labels=found.labels,
        preprocess=found.preprocess,
        postprocess=found.postprocess,
        files=found.files,
        recorded_bytes=measured.peak_memory_bytes if measured is not None and measured.execution.backend == execution.backend else None,
        note=note,
        shapes=len(fixed_shapes(found.signature, Model((), execution, found.preprocess))),
    )


def read(file: Path, *, backend: str | None = None, threads: int | None = None, trust: Trust | None = None) -> Model:
    """The model in `file` as an engine wants it. Raises InvalidInput and its kind, NotTrusted."""
    if file.suffix == ".onnx":
        _unsigned(file, trust)
        from edgewise.graph import Graph

        return Model((Graph.load(file).to_bytes(),), execution_here(None, backend, threads)[0])
    from edgewise import package

    found = package.open(file, trust=trust)
    execution, note = execution_here(found.execution, backend, threads)
    # Where an engine has a form of its own in the package, that one was measured.
    data = tuple(found.model_bytes(name) for name in found.forms(execution.backend) or ("main",))
    return Model(data, execution, found.preprocess, found.postprocess, note, found)


class Runners:
    """A model's forms as one Runner: a call is answered by the first that its inputs fit into. Each is loaded when it is needed.

    Where the engine compiles for shapes, a call of a shape that is timed (`fixed_shapes`) goes to a graph of that shape: what was measured
    is what answers. Of a model with one form, which is loaded, the bytes are given up: the engine has them.
    """

    def __init__(self, model: Model, *, eager: bool = False, signature: Signature | None = None) -> None:
        self._forms, self._execution = model.data, model.execution
        self._loaded: dict[int, Runner] = {}
        self._only: Runner | None = None
        self._fixed: dict[Shapes, Runner] = {}
        self._shapes: dict[Shapes, Mapping[str, int]] | None = None
        # The graph's own: a form may have fixed what another leaves open.
        if signature is None and model.package is not None:
            signature = model.package.manifest.entry("main").signature
        self.signature = signature if signature is not None else self._runner(0).signature
        self._names = [spec.name for spec in self.signature.inputs]
        self._shapes = {shapes_under(self.signature, axes): axes for axes in fixed_shapes(self.signature, model)}
        if eager:
            self._load_all()
        self._give_up()

    def run(self, inputs: Inputs) -> Outputs:
        if self._shapes:
            shapes = tuple(getattr(inputs.get(name), "shape", ()) for name in self._names)
            if (axes := self._shapes.get(shapes)) is not None:
                return (self._fixed.get(shapes) or self._of_shape(shapes, axes)).run(inputs)
        if self._only is not None:
            return self._only.run(inputs)
        from edgewise import backends

        taking = backends.first_taking(self._forms, inputs) if len(self._forms) > 1 else self._forms[0]
        return self._runner(next(place for place, form in enumerate(self._forms) if form is taking)).run(inputs)

    def _load_all(self) -> None:
        """Those of fixed shapes and the open one together: so they share what can be shared of the weights."""
        from edgewise import backends

        shapes = self._shapes or {}
        executions = [self._fixing(axes) for axes in shapes.values()]
        if 0 in self._loaded:
            self._fixed.update(zip(shapes, backends.load_all(self._forms[0], executions) if executions else (), strict=True))
        else:
            *fixed, self._loaded[0] = backends.load_all(self._forms[0], [*executions, self._execution])
            self._fixed.update(zip(shapes, fixed, strict=True))
        self._only = self._loaded[0] if len(self._forms) == 1 else None
        for place in range(1, len(self._forms)):
            self._runner(place)

    def _fixing(self, axes: Mapping[str, int]) -> Execution:
        batch = next(iter(self.signature.inputs)).shape[0]
        text = ",".join(f"{axis}={size}" for axis, size in axes.items() if axis != batch)
        wanted = {"batch": "1"} if batch in axes else {}
        return replace(self._execution, options={**self._execution.options, **wanted, **({"axes": text} if text else {})})

    def _of_shape(self, shapes: Shapes, axes: Mapping[str, int]) -> Runner:
        from edgewise import backends

        self._fixed[shapes] = backends.load(self._forms[0], self._fixing(axes))
        self._give_up()
        return self._fixed[shapes]

    def _runner(self, place: int) -> Runner:
        from edgewise import backends

        if place not in self._loaded:
            self._loaded[place] = backends.load(self._forms[place], self._execution)
            if len(self._forms) == 1:
                self._only = self._loaded[place]
                self._give_up()
        return self._loaded[place]

    def _give_up(self) -> None:
        if self._only is not None and self._shapes is not None and len(self._fixed) == len(self._shapes):
            self._forms = ()

    def close(self) -> None:
        for runner in (*self._loaded.values(), *self._fixed.values()):
            runner.close()


def fixed_shapes(signature: Signature, model: Model) -> list[dict[str, int]]:
    """What open axes are fixed to in graphs of their own, where the engine compiles for shapes: one row, of each length that rows are made.

    None where an axis is open that nothing says the sizes of, and where the execution fixes axes itself.
    """
    from edgewise import backends

    options = model.execution.options
    if not backends.compiles(model.execution.backend) or "axes" in options or "batch" in options:
        return []
    leading = {spec.shape[0] if spec.shape else 0 for spec in signature.inputs}
    others = {axis for spec in signature.inputs for axis in spec.shape[1:] if isinstance(axis, str)}
    first = {axis: 1 for axis in leading if isinstance(axis, str)}
    if not others:
        return [first] if first else []
    lengths: tuple[int, ...] = getattr(model.preprocess, "lengths", ())
    return [{**first, axis: length} for axis in others for length in lengths] if len(others) == 1 else []


def shapes_under(signature: Signature, axes: Mapping[str, int]) -> Shapes:
    """The inputs' shapes, in the signature's order, where named axes have these sizes."""
    return tuple(tuple(axes[axis] if isinstance(axis, str) else axis for axis in spec.shape) for spec in signature.inputs)


def execution_here(best: Execution | None, backend: str | None, threads: int | None) -> tuple[Execution, str]:
    """What to run on, and a remark when that isn't what measured best. An engine's options mean nothing to another one."""
    from edgewise import backends, registry

    installed = backends.installed()
    count = threads or (best.threads if best else 1)
    first = next(iter(installed), registry.names("backend")[0])
    if best is None:
        return Execution(backend or first, threads=count), ""
    if backend is not None and backend != best.backend:
        return Execution(backend, threads=count), ""
    if best.backend not in installed and backend is None and installed:
        extra = registry.EXTRAS.get(registry.module_of(best.backend), best.backend)
        return Execution(first, threads=count), f"{best.backend} measured best, but isn't installed here: pip install 'edgewise[{extra}]'"
    if best.backend in installed and best.precision not in installed[best.backend].precisions():
        return replace(best, precision="fp32", threads=count), f"{best.precision} measured best, but this CPU hasn't got it"
    return replace(best, threads=count), ""


def _unsigned(file: Path, trust: Trust | None) -> None:
    if trust is not None:
        raise NotTrusted(f"{file} is a plain model, which nobody can sign; give a package (.edgew), or leave --keys out")


def _look_onnx(file: Path, backend: str | None, threads: int | None) -> Facts:
    """Without the `onnx` package, which would copy every weight. The file's bytes are let go before this returns."""
    from edgewise.backends import signature

    digest = hashlib.sha256()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidModel(f"can't read {file}: {error.strerror}; check its permissions") from error
    digest.update(data)
    found = _leading(signature.read(data))
    beside = sum(other.stat().st_size for other in file.parent.glob(f"{file.name}*") if other != file and other.is_file())
    execution = execution_here(None, backend, threads)[0]
    return Facts(
        content_id=digest.hexdigest(),
        signature=found,
        execution=execution,
        size_bytes=len(data) + beside,
        weight_bytes=len(data) + beside,
        shapes=len(fixed_shapes(found, Model((), execution))),
    )


def _leading(signature: Signature) -> Signature:
    """Leading axes without a name share one, as in `graph.Graph`: they are the batch."""

    def renamed(spec: TensorSpec) -> TensorSpec:
        if not spec.shape or spec.shape[0] != f"{spec.name}_0":
            return spec
        return TensorSpec(spec.name, ("axis_0", *spec.shape[1:]), spec.dtype)

    return Signature(tuple(map(renamed, signature.inputs)), tuple(map(renamed, signature.outputs)))


def _decoded_bytes(package: Package, name: str) -> int:
    return package.manifest.member(name).decoded_bytes


def _plain_bytes(tensor: Any) -> int:
    from edgewise.package import stored_bytes

    return stored_bytes(tensor.dtype, tensor.shape)
