"""The door's workshop side: torch to ONNX, held against torch; and the forms that engines want.

torch is imported when one of the first four is first asked for, so that lowering a graph needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgewise import registry

if TYPE_CHECKING:
    from edgewise.export.exporting import export, export_program
    from edgewise.export.oracle import Parity, parity, run_torch

_WHERE = {
    "export": "exporting",
    "export_program": "exporting",
    "Parity": "oracle",
    "parity": "oracle",
    "run_torch": "oracle",
}

__all__ = ["Parity", "export", "export_program", "parity", "run_torch"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_WHERE[name]}")
    except ImportError as error:
        raise registry.missing(error) from error
    return getattr(module, name)
