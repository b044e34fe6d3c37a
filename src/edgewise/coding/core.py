"""The hot loops: the C extension where it could be built, else the same in Python and numpy. This is the only place that chooses."""

from __future__ import annotations

import os
from typing import Any

from edgewise.coding import fallback
from edgewise.errors import InvalidInput

# For tests, and for whoever suspects the extension: any value but "" and "0".
_UNWANTED = os.environ.get("EDGEWISE_NO_EXTENSION", "0") not in ("", "0")


def _native() -> Any:
    if _UNWANTED:
        return None
    try:
        from edgewise.coding import _native as extension  # type: ignore[attr-defined]  # compiled, where there is a compiler
    except ImportError:
        return None
    return extension


native = _native()
kernels: Any = native or fallback


def implementation() -> str:
    """What codes here, in words."""
    if kernels is native:
        return "C extension"
    return f"numpy fallback, slower: {'EDGEWISE_NO_EXTENSION is set' if _UNWANTED else 'no C compiler when installed'}"


def call(name: str, *arguments: Any) -> int:
    """A kernel's result. Raises InvalidInput for data that no encoder wrote."""
    try:
        return getattr(kernels, name)(*arguments)
    except ValueError as error:
        raise InvalidInput(f"coded data can't be read: {error}; copy or download it again") from error
