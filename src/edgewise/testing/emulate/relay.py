"""Two TUN devices, and between them what a wireless link does to packets: a rate, a delay, jitter, loss. For kernels without netem.

Run as a script, with the standard library alone:

    relay.py OWNER HOST_INTERFACE DEVICE_INTERFACE MBIT DELAY_MS JITTER_MS LOSS QUEUE_S

It makes both interfaces, says "ready", and goes on until the process OWNER or one of the interfaces is gone.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
LONGEST_PACKET = 2048  # the interfaces carry 1500 bytes at a time
AT_ONCE = 64  # packets of one direction before the other has its turn
MOST_WAITING = 50_000  # packets on a link without a rate, whose queue never fills: 75 MB
PRIORITY = -10  # a link doesn't slow down when the machine is busy


class Way:
    """One direction. Times are seconds of one clock.

    mbit: 10^6 bits a second, inf: no limit. delay_s, jitter_s: a packet is under way for delay_s, up to jitter_s more or less. loss: the
    part that never arrives. queue_s: a packet that would wait longer for its turn is dropped.
    """

    def __init__(self, mbit: float, delay_s: float, jitter_s: float, loss: float, queue_s: float, random: Random) -> None:
        self._bytes_per_s = mbit * 1e6 / 8
        self._delay, self._jitter, self._loss, self._queue = delay_s, jitter_s, loss, queue_s
        self._random = random
        self._free = 0.0  # when the sender will have sent all that it was given
        self._last = 0.0  # when the last packet arrives: none overtakes another
        self._under_way: deque[tuple[float, bytes]] = deque()

    def take(self, packet: bytes, now: float) -> None:
        begins = max(now, self._free)
        if begins - now > self._queue or len(self._under_way) >= MOST_WAITING:
            return
        self._free = begins + len(packet) / self._bytes_per_s
        if self._loss and self._random.random() < self._loss:
            return  # after it was sent: a lost packet has taken its time of the link
        under_way = self._delay + (self._random.uniform(-self._jitter, self._jitter) if self._jitter else 0.0)
        self._last = max(self._last, self._free + under_way)
        self._under_way.append((self._last, packet))

    def arriving(self, now: float) -> Iterator[bytes]:
        """Packets whose time has come, in order; they are taken out."""
        while self._under_way and self._under_way[0][0] <= now:
            yield self._under_way.popleft()[1]

    def next(self) -> float:
        """When the next packet arrives; inf where none is under way."""
        return self._under_way[0][0] if self._under_way else math.inf


def join(owner: int, host: int, device: int, forth: Way, back: Way, clock: Callable[[], float] = time.monotonic) -> None:
    """Carry packets between two file descriptors, until `owner` can be read or one of them can't be any more."""
    ways = ((host, forth, device), (device, back, host))
    while True:
        soonest = min(forth.next(), back.next())
        readable, _, _ = select.select([owner, host, device], [], [], max(0.0, soonest - clock()) if soonest < math.inf else None)
        if owner in readable:
            return
        for source, way, _ in ways:
            if source in readable:
                try:
                    for _ in range(AT_ONCE):
                        way.take(os.read(source, LONGEST_PACKET), clock())
                except BlockingIOError:
                    pass
                except OSError:
                    return  # the interface was deleted
        now = clock()
        for _, way, target in ways:
            for packet in way.arriving(now):
                with suppress(OSError):  # an interface that isn't up takes nothing: the packet is lost, as on any link
                    os.write(target, packet)


def interface(name: str) -> int:
    """A new TUN device; what is sent through it can be read from the file descriptor, without waiting, and the other way round."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def main(owner: int, names: list[str], mbit: float, delay_ms: float, jitter_ms: float, loss: float, queue_s: float) -> None:
    alive = os.pidfd_open(owner)
    if os.getppid() != owner:
        return
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    forth, back = (Way(mbit, delay_ms / 1e3, jitter_ms / 1e3, loss, queue_s, Random()) for _ in range(2))
    host, device = map(interface, names)
    print("ready", flush=True)
    join(alive, host, device, forth, back)


if __name__ == "__main__":
    figures = [float(word) for word in sys.argv[4:]]
    main(int(sys.argv[1]), sys.argv[2:4], *figures)
