"""Small devices that aren't there: processes on this Linux machine under a small one's share of a core, memory and link.

    with emulated(cpu=0.25, memory_bytes=256_000_000, link=Link(mbit=20, delay_ms=20)) as device:
        device.start([sys.executable, "-m", "http.server", "--bind", device.address])

Needs root, and iproute2; `missing()` says what is not here. What is emulated is how much of this machine a device has, never which kind of
processor it is: figures are of this machine's cores, slowed down.
"""

from edgewise.testing.emulate.device import EmulatedDevice, emulated, missing
from edgewise.testing.emulate.limits import Link, parse_cpu, parse_link, parse_memory

__all__ = ["EmulatedDevice", "Link", "emulated", "missing", "parse_cpu", "parse_link", "parse_memory"]
