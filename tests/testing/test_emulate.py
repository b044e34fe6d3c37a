"""Emulated devices on this machine: what they are held to, how their link is, and that nothing of them stays. Needs root.

Bounds are wide, because whatever else runs here takes its part: they tell a limit from none.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from edgewise.errors import InvalidInput
from edgewise.testing.emulate import EmulatedDevice, Link, cgroups, emulated, missing, teardown

PYTHON = [sys.executable, "-I", "-S", "-c"]
SLEEP = [*PYTHON, "import time; time.sleep(60)"]

# A connection begins with a letter: e, send back what comes; g, send until the other end has had enough; s, swallow it.
# A datagram is sent back.
PEER = """
import socket, sys, threading

def serve(connection):
    with connection:
        what = connection.recv(1)
        try:
            while what == b"g":
                connection.sendall(bytes(100_000))
            while data := connection.recv(65536):
                if what == b"e":
                    connection.sendall(data)
        except OSError:
            pass

def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind((sys.argv[1], 5000))
        print("ready", flush=True)
        while True:
            data, who = door.recvfrom(2000)
            door.sendto(data, who)

with socket.create_server((sys.argv[1], 5000)) as door:
    threading.Thread(target=datagrams, daemon=True).start()
    while True:
        threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
"""


@pytest.fixture(autouse=True, scope="module")
def _possible() -> None:
    if reason := missing():
        pytest.skip(reason)


def left_over(owner: int | None = None) -> list[str]:
    """Tags of what devices of a process, of this one if none is given, have in the kernel."""
    tops = cgroups.tops().values()
    names = [folder.name for top in tops for folder in top.glob("ew*")] + teardown.namespaces() + sorted(teardown.interfaces())
    return sorted({tag for name in names if (tag := teardown.tag_of(name)) and tag.startswith(f"ew{owner or os.getpid()}x")})


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert left_over() == []


def says(device: EmulatedDevice, code: str, *arguments: str) -> str:
    """What Python code prints that runs inside."""
    process = device.start([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said


def start_peer(device: EmulatedDevice) -> None:
    process = device.start([*PYTHON, PEER, device.address], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as pipe:
        assert pipe.readline() == b"ready\n"


@contextmanager
def connected(device: EmulatedDevice, what: bytes) -> Iterator[socket.socket]:
    with socket.create_connection((device.address, 5000), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(what)
        yield connection


def round_trip_ms(connection: socket.socket) -> float:
    begin = time.perf_counter()
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    return (time.perf_counter() - begin) * 1e3


def received_mbit(connection: socket.socket, seconds: float = 1.5, settle: float = 0.5) -> float:
    """The rate at which data comes in, once TCP has found it."""
    begin = time.perf_counter()
    counted = 0
    while (now := time.perf_counter()) < begin + settle + seconds:
        got = len(connection.recv(65536))
        counted += got if now > begin + settle else 0
    return counted * 8 / seconds / 1e6


def until(true: Callable[[], object], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_quarter_of_a_core_takes_four_times_as_long_and_does_not_stall() -> None:
    work = """
import time
begin = last = time.perf_counter()
gaps, end = [0.0], time.process_time() + 0.4
while time.process_time() < end:
    now = time.perf_counter()
    if now - last > 0.001:
        gaps.append(now - last)
    last = now
print(time.perf_counter() - begin, sorted(gaps)[len(gaps) // 2])
"""
    alone = subprocess.run([*PYTHON, work], capture_output=True, text=True, check=True).stdout  # 0.4 s, where nobody else is at work
    with emulated(cpu=0.25) as device:
        took, gap = map(float, says(device, work).split())
    assert 1.3 < took < 3 * max(1.6, float(alone.split()[0]))
    assert gap < 0.06  # a quota at the usual period of 100 ms stands still for 75 of them


def test_limits_are_seen_inside_and_memory_ends() -> None:
    look = "from edgewise.devices import cpu, probe; print(cpu.quota(), probe.memory())"
    hog = "held = [b'x' * 1_000_000 for _ in range(300)]; print(len(held))"
    with emulated(cpu=0.8, memory_bytes=200_000_000) as device:
        share, memory = says(device, look).split()
        assert float(share) == 0.8
        assert 199_990_000 < int(memory) <= 200_000_000  # whole pages
        assert says(device, hog.replace("300", "100")) == "100\n"
        assert device.memory_kills() == 0
        process = device.start([*PYTHON, hog], stdout=subprocess.DEVNULL)
        assert process.wait(30) == -signal.SIGKILL
        assert device.memory_kills() == 1


def test_a_link_has_its_delay_and_its_rate_each_way() -> None:
    with emulated(link=Link(mbit=20, delay_ms=20)) as device:
        start_peer(device)
        with connected(device, b"e") as connection:
            assert statistics.median(round_trip_ms(connection) for _ in range(15)) == pytest.approx(40, rel=0.2)
        with connected(device, b"g") as connection:
            assert received_mbit(connection) == pytest.approx(20, rel=0.2)
        sink = """
import socket, time, sys
with socket.create_server((sys.argv[1], 5001)) as door:
    print("ready", flush=True)
    connection, _ = door.accept()
    begin = time.perf_counter()
    count = sum(len(data) for data in iter(lambda: connection.recv(65536), b""))
    print(count * 8 / (time.perf_counter() - begin) / 1e6)
"""
        process = device.start([*PYTHON, sink, device.address], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as pipe:
            assert pipe.readline() == "ready\n"
            with socket.create_connection((device.address, 5001)) as connection:
                connection.sendall(bytes(4_000_000))
            assert float(pipe.readline()) == pytest.approx(20, rel=0.2)


def test_a_rate_alone() -> None:
    with emulated(link=Link(mbit=50)) as device:
        start_peer(device)
        with connected(device, b"g") as connection:
            assert received_mbit(connection, 0.6) == pytest.approx(50, rel=0.2)


def test_a_plain_link_is_as_fast_as_the_machine() -> None:
    with emulated() as device:
        start_peer(device)
        with connected(device, b"e") as connection:
            assert statistics.median(round_trip_ms(connection) for _ in range(50)) < 2


def test_packets_are_lost_in_both_directions() -> None:
    with emulated(link=Link(delay_ms=1, loss=0.3)) as device:
        start_peer(device)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.settimeout(0.5)
            for number in range(400):
                door.sendto(str(number).encode(), (device.address, 5000))
                time.sleep(0.0005)
            back = []
            with pytest.raises(TimeoutError):
                while True:
                    back.append(int(door.recv(100)))
    assert back == sorted(back)
    assert 150 < len(back) < 242  # 0.7² of 400 is 196, with a standard deviation of 10


@pytest.mark.parametrize("link", [Link(), Link(delay_ms=5)], ids=["plain", "slow"])
def test_a_cut_link_is_silent_and_comes_back(link: Link) -> None:
    with emulated(link=link) as device:
        start_peer(device)
        with connected(device, b"e") as connection:
            round_trip_ms(connection)
            with device.without_link():
                connection.settimeout(0.3)
                connection.sendall(b"a")
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            connection.settimeout(20)
            assert connection.recv(1) == b"a"  # TCP sends it again


@pytest.mark.parametrize("link", [Link(), Link(mbit=100), Link(delay_ms=5)], ids=["plain", "rate", "slow"])
def test_a_reboot_ends_all_at_once_and_tells_nobody(link: Link) -> None:
    with emulated(cpu=0.9, link=link) as device:
        quota = cgroups.tops()["cpu"] / left_over()[0] / "cpu.cfs_quota_us"
        held = quota.read_text() if quota.exists() else ""
        start_peer(device)
        fork = "import os, time; print(os.fork(), flush=True); time.sleep(60)"
        process = device.start([*PYTHON, fork], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as pipe:
            child = max(int(pipe.readline()) for _ in range(2))
        with connected(device, b"e") as connection:
            round_trip_ms(connection)
            device.reboot()
            assert process.returncode == -signal.SIGKILL
            assert until(lambda: not psutil.pid_exists(child))
            assert held == (quota.read_text() if quota.exists() else "")
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):  # a process that was killed alone would have its connections closed
                connection.recv(1)
            start_peer(device)
            connection.settimeout(20)
            with pytest.raises(ConnectionResetError):  # who never heard of the connection says so when asked
                round_trip_ms(connection)
        with connected(device, b"e") as connection:
            assert round_trip_ms(connection) < 1000


def test_a_cut_outlasts_a_reboot() -> None:
    with emulated() as device:
        device.cut()
        device.reboot()
        start_peer(device)
        with pytest.raises(OSError), socket.create_connection((device.address, 5000), timeout=0.3):
            pass
        device.restore()
        with connected(device, b"e") as connection:
            round_trip_ms(connection)


def test_two_devices_reach_the_host_and_each_other() -> None:
    with emulated() as one, emulated(link=Link(delay_ms=10)) as other, socket.create_server(("0.0.0.0", 0)) as door:
        assert len({one.address, one.host_address, other.address, other.host_address}) == 4
        start_peer(one)
        start_peer(other)
        call = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).getpeername()[0])"
        assert says(one, call, other.address, "5000").strip() == other.address
        assert says(other, call, other.host_address, str(door.getsockname()[1])).strip() == other.host_address
        other.reboot()
        with connected(one, b"e") as connection:
            round_trip_ms(connection)


def test_a_command_that_cannot_be_started_says_why() -> None:
    with emulated() as device:
        with pytest.raises(InvalidInput, match=r"/no/such/thing can't be started .* No such file"):
            device.start(["/no/such/thing"])
        process = device.start(["sh", "-c", "exit $CODE"], env={**os.environ, "CODE": "5"})
        assert process.wait(10) == 5


def test_an_error_ends_everything_even_what_hid() -> None:
    hide = "import os, time\nif not os.fork():\n    os.setsid()\n    print(os.getpid(), flush=True)\n    time.sleep(60)"
    with pytest.raises(RuntimeError, match="mine"), emulated(memory_bytes=100_000_000, link=Link(delay_ms=1)) as device:
        process = device.start([*PYTHON, hide], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as pipe:
            hidden = int(pipe.readline())
        sleeper = device.start(SLEEP)
        raise RuntimeError("mine")
    assert sleeper.returncode == -signal.SIGKILL
    assert until(lambda: not psutil.pid_exists(hidden))


OWNER = """
import sys, time
from edgewise.testing.emulate import Link, emulated
with emulated(cpu=0.5, memory_bytes=100_000_000, link=Link(delay_ms=1)) as device:
    process = device.start([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
    print(process.pid, flush=True)
    time.sleep(60)
"""


@contextmanager
def owner(code: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process that has a device, and all of its processes: the guard, the relay, and what runs inside."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        with process.stdout as pipe:
            int(pipe.readline())
            yield process, psutil.Process(process.pid).children()
    finally:
        process.kill()
        process.wait(10)


def test_when_the_owner_is_killed_its_guard_cleans_up() -> None:
    with owner(OWNER) as (process, children):
        assert len(children) == 3
        process.kill()
        process.wait(10)
        assert until(lambda: not left_over(process.pid) and not any(child.is_running() for child in children))


def test_when_the_guard_is_killed_too_the_next_device_cleans_up() -> None:
    with owner(OWNER) as (process, children):
        (guard,) = (child for child in children if any(word.endswith("teardown.py") for word in child.cmdline()))
        guard.kill()
        process.kill()
        process.wait(10)
        assert until(lambda: not any(child.is_running() for child in children))  # the kernel ends what was started inside
        assert len(left_over(process.pid)) == 1
        with emulated():
            assert left_over(process.pid) == []
            assert len(left_over()) == 1


@pytest.mark.parametrize("impatient", [False, True], ids=["once", "twice"])
def test_ctrl_c_ends_a_command_in_the_foreground(impatient: bool) -> None:
    code = """
import sys
from edgewise.cli.emulating import emulate
sleep = [sys.executable, "-I", "-S", "-c", "import time; print('1', flush=True); time.sleep(60)"]
sys.exit(emulate("50%", "100M", "20mbit,5ms", sleep))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "1\n":
            break
    os.killpg(process.pid, signal.SIGINT)
    if impatient:
        time.sleep(0.05)  # the command has ended, its device is being taken down
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert impatient or process.returncode == 130
    assert until(lambda: not left_over(process.pid))


def test_a_command_in_the_foreground(capfd: pytest.CaptureFixture[str]) -> None:
    from edgewise.cli.emulating import emulate

    assert emulate("100%", "100M", "none", ["sh", "-c", "echo inside; exit 3"]) == 3
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["device", "host"]
    assert "100 MB of memory, link as fast as this machine" in lines[2]
    assert lines[3:] == ["inside"]
    assert emulate("none", "none", "none", ["sh", "-c", "kill -9 $$"]) == 137
