"""A worker on this machine's loopback, as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgewise import measure
from edgewise.records import Device
from edgewise.wire import client, keys

pytest.importorskip("uvicorn", reason="pip install 'edgewise[worker]'")
pytest.importorskip("cryptography", reason="pip install 'edgewise[keys]'")


@dataclass
class Worker:
    """start, stop and kill it; the port and the key stay."""

    key: keys.Key
    folder: Path
    port: int
    cache_bytes: int = 1 << 28
    env: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    start_s: float = 30.0
    process: subprocess.Popen[bytes] | None = None
    links: list[client.Link] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> Worker:
        line = [self.python, "-m", "edgewise.worker", "127.0.0.1", str(self.port), self.key.path, self.folder, str(self.cache_bytes)]
        with (self.folder.parent / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log, env={**os.environ, **self.env}, start_new_session=True)
        until = time.monotonic() + self.start_s
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self.process.poll() is None, self.log
            time.sleep(0.05)
        raise AssertionError(f"the worker never listened: {self.log}")

    @property
    def log(self) -> str:
        return (self.folder.parent / "worker.log").read_text()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def link(self, **options: object) -> client.Link:
        found = client.link(self.url, self.key)
        for name, value in {"patience_s": 20.0, **options}.items():
            setattr(found, name, value)
        self.links.append(found)
        return found


@pytest.fixture(scope="session")
def device_key(tmp_path_factory: pytest.TempPathFactory) -> keys.Key:
    return keys.make(tmp_path_factory.mktemp("key") / "device.key")


@pytest.fixture
def make_worker(tmp_path: Path, device_key: keys.Key) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(**options: object) -> Worker:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder = tmp_path / f"worker-{len(made)}"
        folder.mkdir()
        made.append(Worker(device_key, folder / "kept", port, **options))  # type: ignore[arg-type]
        return made[-1].start()

    yield make
    for worker in made:
        for link in worker.links:
            link.close()
        worker.kill(signal.SIGTERM)


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()


@pytest.fixture
def there(worker: Worker) -> Device:
    return measure.connect(worker.link(), "there")
