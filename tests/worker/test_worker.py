"""A worker as its client sees it: the figures of a device elsewhere, and what happens when something breaks."""

from __future__ import annotations

import hashlib
import importlib.util
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgewise import backends, devices, measure
from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.graph import Graph, parts
from edgewise.measure import Subject, elsewhere, requests
from edgewise.measure.messages import pack
from edgewise.measure.recorded import Log
from edgewise.measure.remote import Remote, packaged
from edgewise.measure.scenarios import scenario
from edgewise.measure.table import latency_table
from edgewise.records import Device, LatencyTable
from edgewise.testing import graphs
from edgewise.testing.tap import replayed, tap
from edgewise.types import Execution
from edgewise.wire import client, keys, messages

ORT = Execution("onnxruntime")


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return true()


def asked(graph: Graph, inputs: Any, execution: Execution = ORT, **options: float) -> tuple[str, dict[str, Any], dict[str, bytes]]:
    """A profile as a job: its kind, arguments and packages."""
    package = packaged(graph.to_bytes())
    digest = hashlib.sha256(package).hexdigest()
    return *requests.plain(requests.Profile(requests.Model(digest, execution), pack(inputs), None, options)), {digest: package}


@pytest.fixture(scope="module")
def mlp() -> tuple[Graph, dict[str, np.ndarray]]:
    model, inputs = graphs.mlp(batch=1)
    return Graph.from_proto(model), inputs


def test_it_says_what_it_is(worker: Any, there: Device) -> None:
    here = devices.local()
    assert there.name == "there" and there.address == worker.url
    assert replace(there, name=here.name, address="local") == here
    told = worker.link().here()
    assert told.queue == 0 and told.memory_free_bytes and told.boot


def test_figures_come_back_as_at_home(there: Device, mlp: Any) -> None:
    graph, inputs = mlp
    subject = Subject(graph.to_bytes(), ORT)
    ratio = measure.compare(subject, subject, inputs, there, block_ms=2, min_pairs=6, max_seconds=20)
    assert 0.2 < ratio.ratio.value < 5 and len(ratio.pairs) >= 6
    assert ratio.reference_conditions.device == "there"
    first, second = measure.race([subject, subject], inputs, there, block_ms=2, min_rounds=3, rounds=3)
    assert first.subject is subject and first.ratio and second.ratio and len(second.block_ms) == 3
    found = measure.profile(graph.to_bytes(), ORT, inputs, there, seconds=0.05, min_samples=20, work=measure.work(graph, inputs))
    assert len(found.latency.samples_ms) >= 20 and found.size_bytes == len(graph.to_bytes()) and found.conditions.device == "there"
    assert found.peak_memory_bytes > 100_000


def test_a_latency_table_is_made_there(there: Device, mlp: Any) -> None:
    graph, inputs = mlp
    said: list[str] = []
    kept: list[LatencyTable] = []
    table = latency_table(
        graph, parts(graph), ORT, inputs, there, ladder={parts(graph).parts[0].name: [16, 8]}, seconds=1.0,
        keep=kept.append, progress=lambda what, share: said.append(what),
    )  # fmt: skip
    assert table.device == there.key != devices.local().key and table.graph == graph.sha256
    assert {entry.width for entry in table.entries} == {16, 8} and kept[-1] == table
    assert any("latency table" in text for text in said)
    known = latency_table(graph, parts(graph), ORT, inputs, there, ladder={parts(graph).parts[0].name: [16, 8]}, seconds=1.0, known=table)
    assert known.entries == table.entries


def test_answers_are_those_of_the_engine(there: Device, mlp: Any) -> None:
    graph, inputs = mlp
    found = elsewhere.of(there)
    assert found is not None
    expected = backends.load(graph.to_bytes(), ORT).run(inputs)["y"]
    for answer in found.answers(graph.to_bytes(), ORT, [inputs, inputs]):
        assert np.array_equal(answer, expected)


def test_errors_are_those_of_home(there: Device, mlp: Any) -> None:
    graph, inputs = mlp
    with pytest.raises(InvalidInput, match="threads"):
        measure.profile(graph.to_bytes(), replace(ORT, threads=99), inputs, there)
    with pytest.raises(InvalidInput, match="the model takes"):
        measure.profile(graphs.mlp(batch=1)[0].SerializeToString(), ORT, {"x": np.zeros((1, 3), np.float32)}, there)


def test_a_worker_that_is_killed_and_comes_back_does_the_job_again(worker: Any, mlp: Any) -> None:
    graph, inputs = mlp
    told: list[str] = []
    there = measure.connect(worker.link(tell=told.append), "there")

    def break_it() -> None:
        time.sleep(1.0)
        worker.kill()
        time.sleep(0.5)
        worker.start()

    breaking = threading.Thread(target=break_it)
    breaking.start()
    found = measure.profile(graph.to_bytes(), ORT, inputs, there, seconds=2.5)
    breaking.join()
    assert len(found.latency.samples_ms) > 100
    assert any("started anew" in text for text in told) and measure.interruptions(there)

    def those() -> list[psutil.Process]:
        return [process for process in psutil.process_iter(["cmdline"]) if str(worker.folder) in " ".join(process.info["cmdline"] or [])]

    assert eventually(lambda: len(those()) == 1)  # the worker: no job outlived the one that was killed


def test_only_engines_of_edgewise_are_loaded(worker: Any, mlp: Any) -> None:
    """A client's "module:Class" would be code that it chose."""
    kind, arguments, packages = asked(*mlp, Execution("os:system"))
    with pytest.raises(InvalidInput, match="no engine of edgewise"):
        list(worker.link().job(kind, arguments, packages, 30.0, None))


def test_a_job_that_was_left_is_cancelled(worker: Any, mlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLL_S", 0.5)
    kind, arguments, packages = asked(*mlp, seconds=30.0)
    link, told = worker.link(), []

    def wait() -> None:
        with pytest.raises(KeyboardInterrupt):
            told.extend(link.job(kind, arguments, packages, 100.0, None))

    def interrupted(*args: Any, **given: Any) -> bytes:
        raise KeyboardInterrupt

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert eventually(lambda: worker.link().here().queue == 1)
    assert eventually(lambda: len(psutil.Process(worker.process.pid).children(recursive=True)) == 2)
    call = link.call
    link.call = lambda method, *rest, **given: interrupted() if method == "GET" else call(method, *rest, **given)
    waiter.join(30)
    assert eventually(lambda: worker.link().here().queue == 0)
    assert eventually(lambda: psutil.Process(worker.process.pid).children(recursive=True) == [])
    assert not told


def test_a_job_whose_process_dies_is_told_and_the_worker_lives(worker: Any, mlp: Any) -> None:
    kind, arguments, packages = asked(*mlp, seconds=30.0)
    failed: list[str] = []

    def wait() -> None:
        with pytest.raises(MeasurementFailed) as error:
            list(worker.link().job(kind, arguments, packages, 100.0, None))
        failed.append(str(error.value))

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert eventually(lambda: bool(psutil.Process(worker.process.pid).children()))
    psutil.Process(worker.process.pid).children()[0].kill()
    waiter.join(20)
    assert "died on the device (signal 9; the device may have run out of memory)" in failed[0]
    assert worker.link().here().queue == 0


def test_the_limit_of_a_job_holds(worker: Any, mlp: Any) -> None:
    kind, arguments, packages = asked(*mlp, seconds=60.0)
    began = time.monotonic()
    with pytest.raises(MeasurementFailed, match="took over 2 s"):
        list(worker.link().job(kind, arguments, packages, 2.0, None))
    assert time.monotonic() - began < 15
    assert eventually(lambda: psutil.Process(worker.process.pid).children(recursive=True) == [])


def test_two_clients_wait_for_each_other(worker: Any, mlp: Any) -> None:
    graph, inputs = mlp
    place = measure.connect(worker.link(), "there")
    found: list[Any] = []

    def ask() -> None:
        own = Remote(worker.link(), place, Log(worker.folder))
        found.append(own.profile(Subject(graph.to_bytes(), ORT), inputs, None, (), {"seconds": 0.3}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert eventually(lambda: worker.log.count("profile ") == 3)  # each a job of its own
    begun = sorted(datetime.fromisoformat(one.conditions.started) for one in found)
    assert begun[2] > begun[0]  # the third waited for the first, which took more than a second


def test_a_job_asked_twice_is_done_once(worker: Any) -> None:
    link = worker.link()
    job = messages.encode(messages.Job("ab" * 16, "nothing", {}, (), 10.0))
    for _ in range(2):
        assert messages.decode(link.call("POST", "/v1/jobs", job), messages.Missing) == messages.Missing(())
    status = messages.decode(link.call("GET", f"/v1/jobs/{'ab' * 16}?after=0&wait=20"), messages.Status)
    while status.state in ("queued", "running"):
        status = messages.decode(link.call("GET", f"/v1/jobs/{'ab' * 16}?after=0&wait=20"), messages.Status)
    assert (status.state, status.error) == ("failed", "InvalidInput")
    assert eventually(lambda: "nothing abababab" in worker.log)
    assert worker.log.count("nothing abababab") == 1


def test_another_key_is_refused(worker: Any, tmp_path: Path) -> None:
    other = keys.make(tmp_path / "other.key")
    with pytest.raises(InvalidInput, match="another key"):
        client.link(worker.url, other).here()
    plain = socket.create_connection(("127.0.0.1", worker.port), timeout=5)
    plain.sendall(b"GET /v1/device HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"session" not in plain.recv(4096)
    plain.close()
    assert worker.link().here().version == messages.VERSION


def test_nonsense_is_refused_and_the_worker_lives(worker: Any) -> None:
    link = worker.link()
    for method, path, body in [
        ("GET", "/v1/blobs/..%2f..%2fetc%2fpasswd", b""),
        ("PUT", "/v1/blobs/" + "a" * 64 + "?from=-1&of=3", b"abc"),
        ("PUT", "/v1/blobs/" + "a" * 64 + "?from=0&of=1e30", b"abc"),
        ("PUT", "/v1/blobs/" + "b" * 64 + "?from=0&of=3", b"abc"),
        ("POST", "/v1/jobs", b"\xc1"),
        ("POST", "/v1/jobs", messages.encode(messages.Job("xy", "profile", {}, (), 1.0))),
        ("POST", "/v1/jobs", messages.encode(messages.Job("ab" * 16, "profile", {}, (), 1e9))),
        ("GET", "/v2/anything", b""),
        ("DELETE", "/v1/device", b""),
    ]:
        with pytest.raises((InvalidInput, MeasurementFailed)):
            link.call(method, path, body)
    assert link.here().queue == 0


def test_it_ends_when_told(make_worker: Callable[..., Any]) -> None:
    worker = make_worker()
    process = worker.process
    began = time.monotonic()
    worker.kill(signal.SIGTERM)
    assert time.monotonic() - began < 8 and process.returncode in (0, -signal.SIGTERM)
    with pytest.raises(MeasurementFailed, match="can't be reached"):
        worker.link(patience_s=0.5).here()


def test_an_address_has_to_be_one(device_key: keys.Key) -> None:
    assert client.link("pi.local", device_key).address == "https://pi.local:7070"
    assert client.link("http://pi.local:9", device_key).address == "https://pi.local:9"
    for wrong in ("ftp://pi", "https://pi/path", "https://:7070", "https://pi:99999", "https://me@pi"):
        with pytest.raises(InvalidInput, match="no address"):
            client.link(wrong, device_key)
    assert isinstance(device_key.client(), ssl.SSLContext)


@pytest.mark.skipif(importlib.util.find_spec("mlperf_loadgen") is None, reason="needs MLPerf's LoadGen: pip install 'edgewise[loadgen]'")
def test_loadgen_asks_there(there: Device, mlp: Any) -> None:
    graph, inputs = mlp
    run = scenario(graph.to_bytes(), ORT, inputs, there, name="offline", seconds=0.2)
    assert run.conditions.device == "there" and run.summary.scenario == "Offline" and run.samples > 100
    assert "MLPerf Results Summary" in run.summary_text
    with pytest.raises(InvalidInput, match="there is no scenario 'server'"):
        scenario(graph.to_bytes(), ORT, inputs, there, name="server", seconds=0.2)


def test_answers_are_held_against_those_of_home(there: Device, mlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs = mlp
    rows = np.random.default_rng(0).normal(size=(40, *next(iter(inputs.values())).shape[1:])).astype(np.float32)

    class Rows:
        def __len__(self) -> int:
            return 1000

        def batches(self, size: int) -> Any:
            for at in range(1000):
                yield dict.fromkeys(inputs, rows[at % 40 : at % 40 + size]), None

    outputs = backends.load(graph.to_bytes(), ORT).run(inputs)["y"]
    labels = [str(n) for n in range(outputs.shape[1])]
    subject = Subject(graph.to_bytes(), ORT)
    spot = measure.spot_check(subject, Rows(), there, labels)
    assert spot is not None and spot.samples == 250 and spot.same == 250 and spot.relative_l2 < 1e-6
    assert "the same class on 250 of 250 test samples" in spot.told("there")
    plain = measure.spot_check(subject, Rows(), there)
    assert plain is not None and plain.same is None and "class" not in plain.told("there")
    assert measure.spot_check(subject, Rows(), devices.local()) is None
    found = elsewhere.of(there)
    monkeypatch.setattr(found, "answers", lambda model, execution, batches: [np.ones_like(outputs) for _ in batches])
    other = measure.spot_check(subject, Rows(), there, labels)
    assert other is not None and other.relative_l2 > 0.01 and "may not hold there" in other.told("there")


def test_a_recording_played_again_asks_nothing(worker: Any, mlp: Any) -> None:
    """Both ends take new random numbers for every connection: what somebody recorded on the wire means nothing on another."""
    with tap("127.0.0.1", worker.port) as wire:
        link = client.link(f"https://127.0.0.1:{wire.port}", worker.key)
        kind, arguments, packages = asked(*mlp, seconds=0.02)
        assert list(link.job(kind, arguments, packages, 30.0, None))
        link.close()
    assert eventually(lambda: worker.log.count("profile") == 1) and sum(map(len, wire.heard)) > 1000
    for pieces in (wire.heard, [b"".join(wire.heard)]):
        assert b"HTTP/1.1" not in replayed(pieces, "127.0.0.1", worker.port)
    assert worker.link().here().queue == 0 and worker.log.count("profile") == 1
