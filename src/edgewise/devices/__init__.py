"""Where a model must run: what this machine is (`local`), how it is doing while something is measured (`Watch`), what meters it has."""

from edgewise.devices.cpu import affinity, cores, isa, multiplies_bf16
from edgewise.devices.meters import Meter
from edgewise.devices.probe import local
from edgewise.devices.watch import Watch

__all__ = ["Meter", "Watch", "affinity", "cores", "isa", "local", "multiplies_bf16"]
