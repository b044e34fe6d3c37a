"""The network of one emulated device: a namespace, and a link between it and the host that is as slow and as lossy as asked.

What shapes the link is tried in this order: the kernel's netem; for a rate alone, its tbf; else TUN devices joined by a process (relay.py).
"""

from __future__ import annotations

import ipaddress
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgewise.errors import EdgewiseError
from edgewise.testing.emulate import relay, teardown
from edgewise.testing.emulate.limits import Link

# Set apart for measuring network devices (RFC 2544), so that it is nobody's network. Each device has four addresses of it.
POOL = ipaddress.ip_network("198.18.0.0/15")
INSIDE = "eth0"  # the interface's name as processes inside see it
FRAME_BYTES = 1514
BURST_S = 0.004  # tbf sends when the kernel's clock ticks, which it may do only 250 times a second


def qdiscs(link: Link) -> list[str]:
    """Kernel disciplines, in tc's words, that do to packets what `link` says, the best first; none where only the relay can."""
    if link == Link():
        return []
    packets_per_s = (link.mbit or math.inf) * 1e6 / 8 / FRAME_BYTES
    waiting = (link.delay_ms + link.jitter_ms) / 1e3 + link.queue_s
    netem = [f"netem limit {max(200, min(50_000, math.ceil(packets_per_s * waiting) if link.mbit else 50_000))}"]
    if link.mbit:
        netem.append(f"rate {round(link.mbit * 1e6)}bit")
    if link.delay_ms:
        netem.append(f"delay {link.delay_ms:.3f}ms" + (f" {link.jitter_ms:.3f}ms" if link.jitter_ms else ""))
    if link.loss:
        netem.append(f"loss {100 * link.loss:.6f}%")
    found = [" ".join(netem)]
    if link.mbit and not link.delays:
        burst = max(2 * FRAME_BYTES, round(link.mbit * 1e6 / 8 * BURST_S))
        found.append(f"tbf rate {round(link.mbit * 1e6)}bit burst {burst} latency {link.queue_s * 1e3:.0f}ms")
    return found


class Network:
    """Everything of it is removed by `teardown.everything(tag, …)`, at whatever point making it stopped."""

    def __init__(self, tag: str, link: Link) -> None:
        self.tag = tag
        self.link = link
        self.is_cut = False
        self.relay: subprocess.Popen[bytes] | None = None
        self.namespace = f"{tag}-0"
        self.host_address, self.address = _free_addresses(tag)
        self._outside = f"{tag}h"
        self._qdisc = "pfifo"  # of a link that nothing in the kernel shapes

    def make(self) -> None:
        """Raises EdgewiseError where the kernel refuses."""
        run("ip", "netns", "add", self.namespace)
        shaped = next((qdisc for qdisc in qdiscs(self.link) if _taken(qdisc, self.namespace)), None)
        other = f"{self.tag}d"
        if shaped or self.link == Link():
            # A link that drops or delays packets has to see them one by one, not 64 kB at a time as the kernel hands them on otherwise.
            single = " gso_max_segs 1" if shaped else ""
            batch([f"link add name {self._outside}{single} type veth peer name {other}{single}"])
            self._qdisc = shaped or self._qdisc
        else:
            self.relay = start_script(relay.__file__, str(os.getpid()), self._outside, other, *_relay_arguments(self.link))
        batch([f"addr add {self.host_address}/30 dev {self._outside}", f"link set {self._outside} up"])
        # Devices reach each other through the host; the system's own switch for that stays as it is.
        Path(f"/proc/sys/net/ipv4/conf/{self._outside}/forwarding").write_text("1")
        batch([f"link set {other} netns {self.namespace}"])
        batch([f"link set {other} name {INSIDE}"], self.namespace)
        self._configure()

    def boot(self) -> None:
        """A fresh namespace behind the same link. Connections of the old one are gone without a word to the other end."""
        old = self.namespace
        self.namespace = f"{self.tag}-{int(old.rpartition('-')[2]) + 1}"
        run("ip", "netns", "add", self.namespace)
        batch([f"link set {INSIDE} netns {self.namespace}"], old)
        run("ip", "netns", "delete", old)
        self._configure()

    def _configure(self) -> None:
        up = ["link set lo up", f"addr add {self.address}/30 dev {INSIDE}", f"link set {INSIDE} up"]
        batch([*up, f"route add {POOL} via {self.host_address}"], self.namespace)
        self.cut() if self.is_cut else self.restore()

    def cut(self) -> None:
        """Packets vanish, in both directions, and nobody is told: the interfaces stay up, as when a radio is out of reach."""
        self.is_cut = True
        self._send_through("blackhole")

    def restore(self) -> None:
        self.is_cut = False
        self._send_through(self._qdisc)

    def _send_through(self, qdisc: str) -> None:
        """Both ends send through this discipline from now on."""
        run("tc", "qdisc", "replace", "dev", self._outside, "root", *qdisc.split())
        run("tc", "-n", self.namespace, "qdisc", "replace", "dev", INSIDE, "root", *qdisc.split())


def _taken(qdisc: str, namespace: str) -> bool:
    """Whether the kernel has the discipline and takes these figures: tried on the loopback of a namespace that nobody uses yet."""
    done = subprocess.run(
        ["tc", "-n", namespace, "qdisc", "replace", "dev", "lo", "root", *qdisc.split()], capture_output=True, check=False
    )
    if done.returncode:
        return False
    run("tc", "-n", namespace, "qdisc", "delete", "dev", "lo", "root")
    return True


def _relay_arguments(link: Link) -> list[str]:
    return [str(figure) for figure in (link.mbit or math.inf, link.delay_ms, link.jitter_ms, link.loss, link.queue_s)]


def _free_addresses(tag: str) -> tuple[str, str]:
    """Addresses of the host and of the device that no interface here has. Processes begin to look at different places."""
    taken = run("ip", "-4", "-o", "addr", "show")
    owner, _, count = tag.removeprefix("ew").partition("x")
    blocks = POOL.num_addresses // 4
    for step in range(blocks):
        first = POOL.network_address + 4 * ((8 * int(owner) + int(count) + step) % blocks)
        if f" {first + 1}/" not in taken:
            return str(first + 1), str(first + 2)
    raise EdgewiseError(f"all addresses of {POOL} are taken; delete interfaces that nobody uses (`ip link`)")


def run(*command: str, given: str | None = None) -> str:
    """What a command of iproute2 prints. Raises EdgewiseError with what it says when it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        asked = f"{' '.join(command)}{f' ({given.strip()})' if given else ''}"
        raise EdgewiseError(f"`{asked}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def batch(lines: Sequence[str], namespace: str | None = None) -> None:
    """Lines of `ip`, in one process, on the host or in a namespace."""
    run("ip", *(["-n", namespace] if namespace else []), "-batch", "-", given="\n".join(lines) + "\n")


def start_script(file: str | None, *arguments: str) -> subprocess.Popen[bytes]:
    """A helper of this package as a process of its own, once it has said that it is ready. A Ctrl-C in the terminal doesn't reach it.

    Raises EdgewiseError where it ends before that.
    """
    line = [sys.executable, "-I", "-S", str(file), *arguments]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdin is not None
    try:
        said = process.stdout.readline()
    except BaseException:
        end_script(process)
        raise
    if said != b"ready\n":
        end_script(process)
        raise EdgewiseError(
            f"{Path(str(file)).name} of an emulated device didn't start (exit code {process.returncode}); see its error above"
        )
    return process


def end_script(process: subprocess.Popen[bytes]) -> None:
    """Close its input, and end it where that (or that its interfaces are gone) doesn't."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(teardown.PATIENCE_S * 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
