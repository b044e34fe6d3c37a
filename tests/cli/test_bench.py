"""`edgewise bench` against a server of ours."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewise.host import Refused
from edgewise.testing.hosts import FakeHost, FakeModel, identity
from edgewise.types import Inputs, Outputs

Edgewise = Callable[..., tuple[int, str, str]]

pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'edgewise[serve]'")
needs_loadgen = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None, reason="needs MLPerf's LoadGen: pip install 'edgewise[loadgen]'"
)
BRIEF = ("--seconds", "0.2")


def every_fifth() -> FakeModel:
    calls = 0

    def answer(inputs: Inputs) -> Outputs:
        nonlocal calls
        calls += 1
        if calls > 40 and calls % 5 == 0:
            raise Refused("full")
        return {"y": inputs["x"]}

    return identity(shape=("batch", 4), answer=answer)


@pytest.fixture
def url() -> Iterator[str]:
    from edgewise.serve.config import Server
    from edgewise.serve.server import Edge, listening, standing

    host = FakeHost(
        {"same": identity(shape=("batch", 4)), "fixed": identity(shape=(1, 4)), "words": identity("object"), "full": every_fifth()}
    )
    edge = Edge(Server(port=0), lambda: standing(host))
    listener, up = listening("127.0.0.1", 0), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(edge.serve(listener, lambda address: up.set())), daemon=True)
    thread.start()
    assert up.wait(10)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    edge.stop()
    thread.join(20)


@needs_loadgen
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            ("--qps", "100", "--latency-ms", "5000", "--queries", "30"),
            ("Server", "100 queries a second, 99 % within 5000 ms", "32 connections"),
        ),
        (("--scenario", "single-stream"), ("SingleStream", "VALID", "1 connection,", "x 1×4")),
        (("--scenario", "multi-stream", "--queries", "20"), ("MultiStream", "x 8×4")),
        (("--scenario", "offline", "--batch", "4", "--connections", "2"), ("Offline", "2 connections", "x 4×4")),
    ],
)
def test_each_scenario(edgewise: Edgewise, url: str, line: tuple[str, ...], said: tuple[str, ...]) -> None:
    code, out, err = edgewise("bench", url, "same", *line, *BRIEF)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    flat = " ".join(out.split())
    for words in (*said, "Not a compliant run: 0.2 s where MLPerf asks for 600", "Not verified by MLCommons", "raw tensors"):
        assert words in flat, out


@needs_loadgen
def test_refusals_are_told_and_make_a_run_invalid(edgewise: Edgewise, url: str) -> None:
    code, out, err = edgewise("bench", url, "full", "--qps", "100", "--latency-ms", "50", "--queries", "50", *BRIEF)
    assert code == 0, err
    flat = " ".join(out.split())
    assert "INVALID" in flat and "queries were refused or given up: they count as late" in flat


@needs_loadgen
def test_as_json_with_inputs_of_ones_own(edgewise: Edgewise, url: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    line = ("--scenario", "single-stream", "--queries", "5", "--input", tmp_path / "x.npy", "--json")
    code, out, err = edgewise("bench", url + "/", "fixed", *line, *BRIEF)
    assert code == 0, err
    run = json.loads(out)
    assert (run["model"], run["connections"], run["lost"], run["inputs"]) == ("fixed", 1, 0, {"x": [1, 4]})
    assert run["queries"] >= 5 and run["summary"]["scenario"] == "SingleStream" and run["server"].startswith("edgewise")


@needs_loadgen
@pytest.mark.parametrize(
    ("model", "line", "said"),
    [
        ("same", (), "--qps 200 --latency-ms 50"),
        ("same", ("--scenario", "fast"), "one of server, single-stream"),
        ("same", ("--scenario", "offline", "--qps", "5"), "leave them out"),
        ("same", ("--qps", "5", "--latency-ms", "5", "--batch", "4"), "one sample at a time"),
        ("words", ("--scenario", "single-stream"), "--input x.npz"),
        ("nowhere", ("--scenario", "single-stream"), "nowhere"),
        ("same", ("--scenario", "single-stream", "--input", "nowhere.npy"), "does not exist"),
    ],
)
def test_what_can_not_be_asked(edgewise: Edgewise, url: str, model: str, line: tuple[str, ...], said: str) -> None:
    code, _, err = edgewise("bench", url, model, *line)
    assert code == 2 and said in " ".join(err.split()), err


@needs_loadgen
def test_no_server(edgewise: Edgewise) -> None:
    code, _, err = edgewise("bench", "http://127.0.0.1:1", "same", "--scenario", "single-stream")
    assert code == 4 and "is the server there?" in err
