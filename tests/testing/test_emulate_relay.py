"""What the relay does to packets, on a clock of its own and between sockets. Needs no root."""

from __future__ import annotations

import os
import socket
import threading
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.testing.emulate import relay


def way(mbit: float = float("inf"), delay: float = 0.0, jitter: float = 0.0, loss: float = 0.0, queue: float = 0.1) -> relay.Way:
    return relay.Way(mbit, delay, jitter, loss, queue, Random(0))


def test_a_packet_takes_its_length_over_the_rate_and_the_delay() -> None:
    slow = way(mbit=8, delay=0.02)  # 1000 bytes take 1 ms
    for packet in (b"a" * 1000, b"b" * 500):
        slow.take(packet, 1.0)
    assert slow.next() == pytest.approx(1.021)
    assert list(slow.arriving(1.0209)) == []
    assert [packet[:1] for packet in slow.arriving(1.0211)] == [b"a"]
    assert slow.next() == pytest.approx(1.0215)
    assert [packet[:1] for packet in slow.arriving(2.0)] == [b"b"]
    assert slow.next() == float("inf")


def test_a_full_queue_drops_what_comes_last() -> None:
    slow = way(mbit=8, queue=0.0105)
    for number in range(30):
        slow.take(bytes([number]) * 1000, 0.0)
    assert [packet[0] for packet in slow.arriving(1.0)] == list(range(11))


def test_lost_packets_have_taken_their_time() -> None:
    lossy = way(mbit=8, loss=0.25, queue=100)
    for _ in range(4000):
        lossy.take(bytes(1000), 0.0)
    arrived = list(lossy.arriving(3.999))
    assert 2880 < len(arrived) < 3120
    assert len(arrived) + len(list(lossy.arriving(4.001))) < 3121
    dead = way(loss=1.0)
    dead.take(b"x", 0.0)
    assert dead.next() == float("inf")


@given(st.lists(st.floats(0, 0.01), min_size=1, max_size=50), st.floats(0, 0.02))
def test_with_jitter_packets_keep_their_order_and_its_bounds(gaps: list[float], jitter: float) -> None:
    shaky = way(delay=0.02, jitter=jitter)
    sent = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    for number, when in enumerate(sent):
        shaky.take(bytes([number]), when)
    arrived = []
    while (now := shaky.next()) < float("inf"):
        arrived += [(now, packet[0]) for packet in shaky.arriving(now)]
    assert [number for _, number in arrived] == list(range(len(gaps)))
    for when, (now, _) in zip(sent, arrived, strict=True):
        assert when + 0.02 - jitter - 1e-9 <= now <= when + 0.02 + jitter + 1e-9


def test_the_relay_carries_both_ways_and_ends_with_its_owner() -> None:
    """Datagram sockets stand in for the interfaces: a read is a packet."""
    host, host_side = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    device_end, device_side = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    watched, owner = os.pipe()
    for end in (host_side, device_side):
        end.setblocking(False)
    carrying = threading.Thread(
        target=relay.join, args=(watched, host_side.fileno(), device_side.fileno(), way(delay=0.02), way(delay=0.05))
    )
    carrying.start()
    try:
        begin = time.monotonic()
        for number in range(100):
            host.send(bytes([number]))
        assert [device_end.recv(10)[0] for _ in range(100)] == list(range(100))
        assert time.monotonic() - begin >= 0.02
        begin = time.monotonic()
        device_end.send(b"back")
        assert host.recv(10) == b"back"
        assert time.monotonic() - begin >= 0.05
    finally:
        os.close(owner)
        carrying.join(5)
        assert not carrying.is_alive()
        os.close(watched)
        for end in (host, host_side, device_end, device_side):
            end.close()
