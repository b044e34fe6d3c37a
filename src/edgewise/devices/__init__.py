"""Where a model must run: what this machine is (`local`), how it is doing while something is measured (`Watch`, `Health`), its meters."""

from edgewise.devices.cpu import affinity, cores, isa, multiplies_bf16
from edgewise.devices.health import Disturbance, Health
from edgewise.devices.meters import Meter
from edgewise.devices.probe import local, stated
from edgewise.devices.watch import Watch

__all__ = ["Disturbance", "Health", "Meter", "Watch", "affinity", "cores", "isa", "local", "multiplies_bf16", "stated"]
