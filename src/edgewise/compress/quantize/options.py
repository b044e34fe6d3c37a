"""Options of the pass, checked before any work is done."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from edgewise.compress.quantize.estimators import ESTIMATORS
from edgewise.compress.quantize.place import RESIDUAL
from edgewise.devices import isa
from edgewise.errors import InvalidInput
from edgewise.records import Device

CHOICES = {
    "mode": ("static", "dynamic"),
    "estimator": tuple(ESTIMATORS),
    "granularity": ("channel", "tensor"),
    "rounding": ("nearest", "adaptive"),
    "residual": RESIDUAL,
}
TABLE_BITS = (0, 2, 3, 4, 5, 6, 7, 8)
# x86 cores with one of these add products of 8-bit integers in 32 bits; others add pairs in 16 bits, which saturate (vpmaddubsw).
EXACT_ISA = frozenset(("avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8"))


@dataclass(frozen=True, kw_only=True)
class Options:
    """The static pass's options, checked; `quantize` says what they mean."""

    estimator: str = "mse"
    granularity: str = "channel"
    symmetric: bool = False
    weight_symmetric: bool = True
    reduce_range: bool = False
    bias_correction: bool = True
    rounding: str = "adaptive"
    residual: str = "both"
    embeddings: int = 8
    skip: tuple[str, ...] = ()


def checked(*, mode: str = "static", skip: Collection[str] = (), **options: Any) -> Options:
    """Options as given, or InvalidInput with the values allowed."""
    for name, value in (("mode", mode), *options.items()):
        if name in CHOICES and value not in CHOICES[name]:
            raise InvalidInput(f"{name}={value!r} is unknown; use one of {', '.join(CHOICES[name])}")
    if isinstance(skip, str):
        raise InvalidInput(f"skip={skip!r} is one string; give a tuple of node names: skip=({skip!r},)")
    if not options.get("weight_symmetric", True) and options.get("granularity") != "tensor":
        raise InvalidInput('weight_symmetric=False needs granularity="tensor": integer kernels take one zero point for a weight')
    if (bits := options.get("embeddings", 8)) not in TABLE_BITS:
        raise InvalidInput(f"embeddings={bits!r}: give the bits of tables, 2 to 8, or 0 to leave them in float")
    return Options(skip=tuple(skip), **options)


def saturates(device: Device | None) -> bool:
    """Whether sums of two 8-bit products saturate there: x86 without VNNI. ARM's kernels add in 32 bits."""
    arch, features = (device.arch, device.isa) if device else (platform.machine(), isa())
    return arch.lower() in ("x86_64", "amd64", "x86", "i686") and not EXACT_ISA & set(features)
