"""`Graph`: an ONNX model together with its signature."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import external_data_helper, helper

from edgewise.errors import InvalidModel
from edgewise.types import Signature, TensorSpec


@dataclass(frozen=True, eq=False)
class Graph:
    """An ONNX model with its weights inside. `proto` is never changed in place: every function of this room copies it first."""

    proto: onnx.ModelProto
    signature: Signature
    notes: tuple[str, ...] = ()  # what making it did and could not do, for people

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, notes: tuple[str, ...] = ()) -> Graph:
        """Take `proto` over (not copied: don't change it afterwards)."""
        return cls(proto, signature_of(proto), notes)

    def copy_proto(self) -> onnx.ModelProto:
        """A copy that the caller may change."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        return copy

    @classmethod
    def from_bytes(cls, data: bytes) -> Graph:
        """Parse a serialized ModelProto. Raises InvalidModel when it is none, or when its weights lie outside of it."""
        proto = parse(data, f"{len(data)} bytes")
        for tensor in proto.graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                raise InvalidModel(f"the weights of {tensor.name!r} lie in another file; load the model from its path instead")
        return cls.from_proto(proto)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Graph:
        """Read `path` as it is, external data pulled in. For a user's own file, `edgewise.graph.read` checks it and makes it canonical."""
        return cls.from_proto(load_proto(path))

    @cached_property
    def _serialized(self) -> bytes:
        try:
            return self.proto.SerializeToString(deterministic=True)
        except (EncodeError, ValueError) as error:
            raise InvalidModel("the model is over 2 GB, which one ONNX file can't hold; give a smaller model, or split it") from error

    def to_bytes(self) -> bytes:
        return self._serialized

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`: the whole file, or none of it."""
        target = Path(path)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.to_bytes())
            # mkstemp makes the file private; a model gets the permissions that any written file would.
            mask = os.umask(0)
            os.umask(mask)
            Path(temporary).chmod(0o666 & ~mask)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @cached_property
    def sha256(self) -> str:
        """Of `to_bytes()`, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return len(self.to_bytes())

    def __repr__(self) -> str:
        return f"Graph({self.proto.graph.name!r}, {len(self.proto.graph.node)} nodes, {self.signature})"


def parse(data: bytes, what: str) -> onnx.ModelProto:
    """`data` as a ModelProto. `what` names it in the error."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModel(
            f"not an ONNX model: {what} ({error}); expected a serialized ModelProto, as torch.onnx.export writes it"
        ) from error
    # Protobuf accepts almost anything that looks like fields: an empty file parses, and so may a text.
    if not proto.ir_version or not proto.HasField("graph") or not proto.graph.output:
        raise InvalidModel(f"not an ONNX model: {what} (no IR version, graph or outputs); expected what torch.onnx.export writes")
    return proto


def load_proto(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model at `path` with external weights pulled in. Raises InvalidModel."""
    file = Path(path)
    if not file.is_file():
        reason = "is a folder" if file.is_dir() else "does not exist"
        raise InvalidModel(f"{file} {reason}; give the path of an .onnx file")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidModel(f"can't read {file}: {error.strerror}; check its permissions") from error
    proto = parse(data, str(file))
    try:
        # onnx itself refuses locations that leave the model's folder.
        external_data_helper.load_external_data_for_model(proto, str(file.parent))
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        outside = [tensor for tensor in proto.graph.initializer if external_data_helper.uses_external_data(tensor)]
        where = {entry.key: entry.value for tensor in outside[:1] for entry in tensor.external_data}.get("location", "another file")
        raise InvalidModel(f"{file}: its weights lie in {where}, which can't be read; put that file beside the model ({error})") from error
    return proto


def signature_of(proto: onnx.ModelProto) -> Signature:
    """Names, shapes and dtypes as the file declares them; initializers that are listed as inputs don't count."""
    weights = {tensor.name for tensor in proto.graph.initializer} | {tensor.values.name for tensor in proto.graph.sparse_initializer}
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            raise InvalidModel(f"{value.name!r} has no shape, not even its number of axes; export the model with shapes")
    return Signature(
        inputs=tuple(_spec(value) for value in proto.graph.input if value.name not in weights),
        outputs=tuple(_spec(value) for value in proto.graph.output),
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise InvalidModel(
            f"{value.name!r} is a {(kind or 'value of unknown type').removesuffix('_type')}; every input and output has to be a tensor"
        )
    tensor = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except (KeyError, TypeError) as error:
        raise InvalidModel(f"{value.name!r} has the unknown element type {tensor.elem_type}; export the model again") from error
    return TensorSpec(value.name, tuple(axis_name(dim, index, value.name) for index, dim in enumerate(tensor.shape.dim)), dtype)


def axis_name(dim: onnx.TensorShapeProto.Dimension, index: int, tensor: str) -> int | str:
    """A fixed axis as a number, a named one by its name; one that the file leaves open as "axis_0" or "<tensor>_axis_<index>".

    Open leading axes share a name, because they are the batch; other open axes of two tensors need not be the same.
    Zero and below, and "?", are how some exporters write "unknown".
    """
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    if dim.dim_param and dim.dim_param != "?":
        return str(dim.dim_param)
    return f"{tensor}_axis_{index}" if index else "axis_0"
