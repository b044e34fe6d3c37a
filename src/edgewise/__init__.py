"""edgewise makes a deep-learning model fit a device, proves that it fits, and runs it there.

    import edgewise as ew
    task = ew.tasks.image_classification("data/")
    result = ew.fit(model, task, budget=ew.Budget(speedup=2.5, max_drop=0.01), device=ew.devices.local())
    result.best.save("model.edgew")

Names are imported when first used: `import edgewise` alone costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewise import backends, data, devices, export, graph, measure, models, package, report, tasks
    from edgewise.fitting import Result, family, fit
    from edgewise.records import Device
    from edgewise.tuning import Tuned, tune
    from edgewise.types import Budget, Execution

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "Device",
    "Execution",
    "Result",
    "Tuned",
    "backends",
    "data",
    "devices",
    "export",
    "family",
    "fit",
    "graph",
    "measure",
    "models",
    "package",
    "report",
    "tasks",
    "tune",
]

_NAMES = {
    "Budget": "types", "Device": "records", "Execution": "types", "Result": "fitting", "Tuned": "tuning", "family": "fitting",
    "fit": "fitting", "tune": "tuning",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgewise' has no attribute {name!r}")
    module = importlib.import_module(f"edgewise.{_NAMES.get(name, name)}")
    found = getattr(module, name) if name in _NAMES else module
    globals()[name] = found
    return found
