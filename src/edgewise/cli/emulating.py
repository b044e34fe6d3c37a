"""A command in an emulated device, in the foreground."""

from __future__ import annotations

import subprocess
from typing import Any

INTERRUPTED = 130
GRACE_S = 5.0


def emulate(cpu: str, memory: str, link: str, command: list[str]) -> int:
    """Run `command` inside an emulated device until it ends; its exit code, 128 + the signal's number where it was killed.

    cpu: "25%". memory: "256M". link: "20mbit,20ms" (the delay is one way). "none" leaves any of them unlimited. Says first where the
    device is reached. Ctrl-C ends the command, and after 5 s whatever is left of it. Raises InvalidInput where no device can be emulated.
    """
    from edgewise.errors import InvalidInput
    from edgewise.report.numbers import size
    from edgewise.testing.emulate import emulated, parse_cpu, parse_link, parse_memory

    if not command:
        raise InvalidInput("no command is given; say what is to run in the device after --, as in: -- edgewise doctor")
    share = None if cpu == "none" else parse_cpu(cpu)
    size_bytes = None if memory == "none" else parse_memory(memory)
    with emulated(cpu=share, memory_bytes=size_bytes, link=parse_link(link)) as device:
        print(f"device  {device.address:<15}  as it is reached from the host")
        print(f"host    {device.host_address:<15}  as it is reached from inside")
        held = [f"{share:.3g} of a core" if share else "", f"{size(size_bytes)} of memory" if size_bytes else "", f"link {device.link}"]
        print(f"        {', '.join(filter(None, held))}", flush=True)
        code = _foreground(device.start(command))
        if device.memory_kills():
            print(f"the device's memory was used up: {device.memory_kills()} of its processes were killed", flush=True)
        return code


def _foreground(process: subprocess.Popen[Any]) -> int:
    """A terminal's Ctrl-C reaches the command too; it gets time to end by itself."""
    try:
        code = process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            print(f"it did not end in {GRACE_S:.0f} s and is killed", flush=True)
        return INTERRUPTED
    return code if code >= 0 else 128 - code
