"""What the protocol says of the server, its models and what they did, as plain data: JSON as it stands, and protobuf's fields by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgewise import __version__
from edgewise.host import Counted, Description, Statistics, Status
from edgewise.serve.tensors import datatype_of
from edgewise.types import TensorSpec

PLATFORM = "edgewise"
# Of a model whose rows have no known limit: what a client that asks `config` may take as one. Larger requests are answered too.
ROWS_WITHOUT_LIMIT = 128
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)

# The protocol's words for what the host says.
_STATES = {"ready": "READY", "absent": "UNAVAILABLE", "loading": "LOADING", "unloading": "UNLOADING", "failed": "UNAVAILABLE"}


def server(*, shared_memory: bool) -> dict[str, Any]:
    """Server metadata."""
    return {
        "name": "edgewise",
        "version": __version__,
        "extensions": [*EXTENSIONS, *(["system_shared_memory"] if shared_memory else [])],
    }


def metadata(model: Description, statuses: Iterable[Status]) -> dict[str, Any]:
    """Model metadata. statuses: of all models, for the versions that there are."""
    return {
        "name": model.name,
        "versions": [status.version for status in statuses if status.name == model.name] or [model.version],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in model.signature.inputs],
        "outputs": [_tensor(spec) for spec in model.signature.outputs],
    }


def config(model: Description) -> dict[str, Any]:
    """Model configuration, as Triton's clients and load tools read it: with a batch axis, `dims` leave it out."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": (model.largest or ROWS_WITHOUT_LIMIT) if model.batched else 0,
        "input": [_configured(spec, model.batched) for spec in model.signature.inputs],
        "output": [_configured(spec, model.batched) for spec in model.signature.outputs],
        "parameters": {
            "execution": {"string_value": model.execution},
            "size_bytes": {"string_value": str(model.size_bytes)},
            "independent_rows": {"string_value": str(model.independent).lower()},
        },
    }


def statistics(found: Mapping[tuple[str, str], Statistics]) -> dict[str, Any]:
    """Triton's statistics extension: counts and nanoseconds. Time before and after the engine isn't told apart from the engine's own."""
    return {"model_stats": [_statistics(name, version, each) for (name, version), each in found.items()]}


def index(statuses: Iterable[Status], *, ready: bool = False) -> list[dict[str, Any]]:
    """The model repository's index. ready: of those that are, alone."""
    return [
        {"name": status.name, "version": status.version, "state": _STATES[status.state], "reason": status.reason}
        for status in statuses
        if status.state == "ready" or not ready
    ]


def shape_of(spec: TensorSpec) -> list[int]:
    """With −1 for every open axis."""
    return [axis if isinstance(axis, int) else -1 for axis in spec.shape]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": shape_of(spec)}


def _configured(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    datatype = datatype_of(spec.dtype)
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
        "dims": shape_of(spec)[1:] if batched else shape_of(spec),
    }


def _statistics(name: str, version: str, found: Statistics) -> dict[str, Any]:
    nothing = _duration(Counted())
    failed = Counted()
    for each in (found.fail, found.refused, found.late):
        failed.add(each.seconds, each.count)
    return {
        "name": name,
        "version": version,
        "last_inference": round(found.last_s * 1e3),
        "inference_count": found.rows,
        "execution_count": sum(each.count for each in found.batches.values()),
        "inference_stats": {
            "success": _duration(found.success),
            "fail": _duration(failed),
            "queue": _duration(found.queue),
            "compute_input": nothing,
            "compute_infer": _duration(found.compute),
            "compute_output": nothing,
            "cache_hit": _duration(found.cache_hit),
            "cache_miss": _duration(found.cache_miss),
        },
        "batch_stats": [
            {"batch_size": rows, "compute_input": nothing, "compute_infer": _duration(each), "compute_output": nothing}
            for rows, each in sorted(found.batches.items())
        ],
    }


def _duration(counted: Counted) -> dict[str, int]:
    return {"count": counted.count, "ns": round(counted.seconds * 1e9)}
