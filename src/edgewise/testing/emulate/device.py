"""An emulated small device: processes under a small machine's limits, behind a slow link."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.testing.emulate import cgroups, inside, limits, network, teardown
from edgewise.testing.emulate.limits import Link
from edgewise.testing.emulate.network import Network

_counter = itertools.count()
_live: set[str] = set()


def missing() -> str | None:
    """Why no device can be emulated here and what to do about it, or None where it can."""
    if not sys.platform.startswith("linux"):
        return f"devices are emulated with Linux's namespaces and control groups, and this is {sys.platform}; run on Linux"
    if os.geteuid() != 0:
        return "network namespaces and control groups need root; run with sudo"
    if not hasattr(os, "pidfd_open"):
        return "this Python can't watch a process (os.pidfd_open); run one that was built for Linux 5.3 or later"
    absent = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if absent:
        return f"{' and '.join(absent)} of iproute2 can't be found on the PATH; install it (apt-get install iproute2)"
    return cgroups.obstacle() or _no_namespaces()


def _no_namespaces() -> str | None:
    name = f"ew{os.getpid()}x{next(_counter)}-0"
    try:
        network.run("ip", "netns", "add", name)
        network.run("ip", "netns", "delete", name)
    except EdgewiseError as error:
        return f"no network namespace can be made: {error}; in a container, start it privileged"
    return None


class EmulatedDevice:
    """Processes in here see its network and are held to its limits; made by `emulated`.

    address: where what listens inside is reached from the host, and from other devices. host_address: where the host is reached from
    inside. There is no way from inside to other networks.
    """

    def __init__(self, net: Network, groups: tuple[Path, ...], cpu: float | None) -> None:
        self.address = net.address
        self.host_address = net.host_address
        self.link = net.link
        self._net = net
        self._groups = groups
        self._cpu = cpu
        self._processes: list[subprocess.Popen[Any]] = []

    def start(
        self, command: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None, **popen: Any
    ) -> subprocess.Popen[Any]:
        """Start a command inside; `env`, `stdout`, `stderr` and the rest are those of subprocess.Popen.

        It ends with the device at the latest. Raises InvalidInput where the command can't be started.
        """
        if self._net.relay is not None and self._net.relay.poll() is not None:
            raise EdgewiseError("the relay of this device's link has ended; make a new device")
        heard, report = os.pipe()
        # When the parent's thread ends, the kernel takes it for the parent's end; the guard, which there is anyway, asks for the process.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        namespace = teardown.NAMESPACES / self._net.namespace
        line = [sys.executable, "-I", "-S", inside.__file__, namespace, str(parent), str(report), *self._groups, "--", *command]
        try:
            process = subprocess.Popen(line, env=env, pass_fds=(*popen.pop("pass_fds", ()), report), **popen)
        except BaseException:
            os.close(heard)
            raise
        finally:
            os.close(report)
        self._processes = [known for known in self._processes if known.poll() is None]
        self._processes.append(process)
        with os.fdopen(heard, "rb") as pipe:
            said = pipe.read().decode()
        if said:
            process.wait()
            raise InvalidInput(f"{os.fspath(command[0])} can't be started in an emulated device: {said}")
        return process

    def cut(self) -> None:
        """Nothing gets through any more, and neither end is told. What is under way already may still arrive."""
        self._net.cut()

    def restore(self) -> None:
        self._net.restore()

    @contextmanager
    def without_link(self) -> Iterator[None]:
        self.cut()
        try:
            yield
        finally:
            self.restore()

    def reboot(self) -> None:
        """As a power cut: every process inside is gone at once, and so are its connections, without a word to whoever was connected.

        The device is up again when this returns, with the same addresses and nothing running; a link that was cut stays cut.
        """
        was_cut = self._net.is_cut
        self._net.cut()
        teardown.kill(self._groups)
        self.reap()
        self._net.boot()
        if self._cpu is not None:
            cgroups.limit_cpu(self._groups[0], self._cpu)  # which `kill` lifted
        if not was_cut:
            self._net.restore()

    def memory_kills(self) -> int:
        """How many processes the kernel has ended because the device's memory was used up."""
        return cgroups.memory_kills(self._groups)

    def reap(self) -> None:
        """Take leave of processes that were killed, so that none stays as a zombie."""
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(teardown.PATIENCE_S)
        self._processes = []


@contextmanager
def emulated(*, cpu: float | None = None, memory_bytes: int | None = None, link: Link | None = None) -> Iterator[EmulatedDevice]:
    """A small device on this machine, as long as the context lasts. Linux only, and root only.

    cpu: the share of one core that all processes inside have together, 0.25 is a quarter; it is paid out every 5 ms (1 ms / cpu where that
    is longer), so that work takes longer rather than stalls. The kernel looks when its clock ticks: with 250 ticks a second, a quarter is
    4 ms of work and 12 ms of pause in turn, so that what takes less than some 50 ms there varies by that much. memory_bytes: what they
    may use together, without swap; whoever goes beyond is killed. link: rate, ONE-WAY delay, jitter and loss between host and device;
    left out, it is as fast as this machine. What is None is unlimited. Processes inside find their limits where
    `edgewise.devices.local()` looks; /proc/meminfo still tells of the machine. A firewall of this machine stands between host and
    device too.

    However it ends, by an error, Ctrl-C or the death of this process, the processes inside are killed and everything is removed.
    Raises InvalidInput where it can't be done here (`missing()` says why) or for figures that this machine hasn't got.
    """
    if cpu is not None:
        limits.check_cpu(cpu)
    if memory_bytes is not None:
        limits.check_memory(memory_bytes)
    reason = missing()
    if reason is not None:
        raise InvalidInput(f"no device can be emulated here: {reason}")
    tops = list(dict.fromkeys(cgroups.tops().values()))
    for leftover in teardown.stale(tops, _live):
        teardown.everything(leftover, tops)
    tag = f"ew{os.getpid()}x{next(_counter)}"
    _live.add(tag)
    device: EmulatedDevice | None = None
    net: Network | None = None
    guard: subprocess.Popen[bytes] | None = None
    try:
        guard = network.start_script(teardown.__file__, str(os.getpid()), tag, *map(str, tops))
        groups = cgroups.make(tag, cpu=cpu, memory_bytes=memory_bytes)
        net = Network(tag, link or Link())
        net.make()
        device = EmulatedDevice(net, groups, cpu)
        yield device
    finally:
        _close(tag, tops, guard, net, device)


def _close(
    tag: str, tops: Sequence[Path], guard: subprocess.Popen[bytes] | None, net: Network | None, device: EmulatedDevice | None
) -> None:
    """The guard does it, whom a second Ctrl-C doesn't stop; what it failed at is tried once more here, and raised."""
    if guard is not None:
        network.end_script(guard)
    if guard is None or guard.returncode:
        teardown.everything(tag, tops)
    if net is not None and net.relay is not None:
        network.end_script(net.relay)
    if device is not None:
        device.reap()
    _live.discard(tag)
