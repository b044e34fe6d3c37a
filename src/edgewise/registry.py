"""One registry: short names to `"module:attribute"`, and the one loader that resolves them.

A user's own `"their_package.module:thing"`, or the object itself, goes wherever a short name goes.
"""

from __future__ import annotations

import importlib
from typing import Any

from edgewise.errors import InvalidInput, MissingExtra

REGISTRY: dict[str, dict[str, str]] = {
    "backend": {
        "onnxruntime": "edgewise.backends.onnxruntime:OnnxRuntime",
        "openvino": "edgewise.backends.openvino:OpenVino",
        "litert": "edgewise.backends.litert:LiteRt",
    },
    # What makes, of a graph and some samples, the form that an engine loads instead of ONNX.
    "form": {
        "tflite": "edgewise.export.litert:Flatbuffers",
    },
    "pass": {
        "prune": "edgewise.compress.prune.pruning:prune",
        "sparsify": "edgewise.compress.prune.sparsify:sparsify",
        "share": "edgewise.compress.share.sharing:share",
        "distill": "edgewise.compress.distill:distill",
        "quantize": "edgewise.compress.quantize:quantize",
        "factorize": "edgewise.compress.factorize:factorize",
        "penalize": "edgewise.compress.rate.penalize:penalize",
        "rdoq": "edgewise.compress.rate.rdoq:rdoq",
        "lower": "edgewise.compress.lower:lower",
        "code": "edgewise.compress.code:code",
    },
    "task": {
        "image-classification": "edgewise.tasks.image_classification:image_classification",
        "text-classification": "edgewise.tasks.text_classification:text_classification",
        "text-regression": "edgewise.tasks.text_regression:text_regression",
        "question-answering": "edgewise.tasks.question_answering:question_answering",
        "sentence-embedding": "edgewise.tasks.sentence_embedding:sentence_embedding",
    },
}

# The module of an engine, where it is called otherwise than its backend.
MODULES: dict[str, str] = {"litert": "ai_edge_litert"}

# Which extra brings a module that is optional. Anything else that is missing is a broken install, and says so as it is.
EXTRAS: dict[str, str] = {
    "openvino": "openvino",
    "ai_edge_litert": "litert",
    "cryptography": "keys",
    "starlette": "worker",
    "uvicorn": "worker",
    "httptools": "serve",
    "prometheus_client": "serve",
    "grpc": "grpc",
    "grpc_health": "grpc",
    "grpc_reflection": "grpc",
    "opentelemetry": "otel",
    "tokenizers": "text",
    "pyarrow": "parquet",
    "torch": "workshop",
    "onnxscript": "workshop",
    "safetensors": "workshop",
    "transformers": "workshop",
    "huggingface_hub": "workshop",
    "mlxtend": "demo",
}


def names(kind: str) -> tuple[str, ...]:
    return tuple(REGISTRY[kind])


def module_of(backend: str) -> str:
    """The module that a registered backend's engine is."""
    return MODULES.get(backend, backend)


def load(kind: str, name: str | Any) -> Any:
    """The object registered as `name`, or what `"module:attribute"` names, or `name` itself when it is no string.

    Raises InvalidInput for an unknown name, MissingExtra when an optional part isn't installed.
    """
    if not isinstance(name, str):
        return name
    target = REGISTRY[kind].get(name, name)
    module, colon, attribute = target.partition(":")
    if not colon or not module or not attribute:
        raise InvalidInput(f"unknown {kind} {name!r}; use one of {', '.join(names(kind)) or '(none)'}, or your own as 'module:attribute'")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise missing(error) from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise InvalidInput(f"{target!r}: module {module} has no {attribute!r}") from error


def need(module: str) -> None:
    """Import an optional module, for its own sake. Raises MissingExtra with the pip line where it isn't installed."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise missing(error) from error


def missing(error: ImportError) -> Exception:
    """A MissingExtra with the pip line, when `error` is about an optional part; else an InvalidInput that names the module."""
    top = (error.name or "").partition(".")[0]
    if top in EXTRAS:
        return MissingExtra(f"{top} isn't installed, and this needs it: pip install 'edgewise[{EXTRAS[top]}]'")
    return InvalidInput(f"can't import {error.name or error}: check the spelling, and that it is importable from here ({error})")
