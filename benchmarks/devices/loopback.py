"""A worker for the scripts here, in a process and on a folder of its own: on the loopback, or in an emulated device."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewise.testing.emulate import EmulatedDevice
from edgewise.wire import client, keys


@dataclass
class Loopback:
    key: keys.Key
    folder: Path
    port: int
    device: EmulatedDevice | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return "127.0.0.1" if self.device is None else self.device.address

    def start(self, cache_bytes: int = 1 << 30) -> None:
        line = [sys.executable, "-m", "edgewise.worker", self.host, str(self.port), self.key.path, self.folder / "kept", str(cache_bytes)]
        with (self.folder / "log").open("ab") as log:
            start = subprocess.Popen if self.device is None else self.device.start
            self.process = start(line, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit((self.folder / "log").read_text())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def link(self, tell: client.Tell = lambda text: None) -> client.Link:
        return client.link(f"https://{self.host}:{self.port}", self.key, tell)


@contextlib.contextmanager
def worker(folder: Path, device: EmulatedDevice | None = None) -> Iterator[Loopback]:
    """folder: empty, for the key, the log and what is kept."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Loopback(keys.make(folder / "device.key"), folder, port, device)
    made.start()
    try:
        yield made
    finally:
        made.stop()
