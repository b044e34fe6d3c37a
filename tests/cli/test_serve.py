"""`edgewise serve` from the shell: models of a folder, asked over HTTP; keys made; what can't be served is told."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgewise import cli, package
from edgewise.graph import Graph
from edgewise.serve import keys, logs, starting
from edgewise.testing import graphs

pytest.importorskip("uvicorn")


@contextmanager
def served(*words: str) -> Iterator[str]:
    """Its address; ended by SIGTERM, which has to end it well."""
    code = f"from edgewise.cli import main; main(['serve', *{list(words)!r}, '--port', '0', '--grpc-port', '0'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        found = re.search(r"https?://[^ ;]+:\d+", line)
        assert found, line + process.stderr.read()
        yield found[0]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.wait()


def ask(address: str, path: str, body: Any = None, key: str = "") -> Any:
    request = urllib.request.Request(address + path, None if body is None else json.dumps(body).encode())
    if key:
        request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        data = answer.read()
    return json.loads(data) if data.startswith((b"{", b"[")) else data


@pytest.fixture
def models(tmp_path: Path) -> Path:
    model, _ = graphs.mlp()
    (tmp_path / "models" / "mlp" / "1").mkdir(parents=True)
    onnx.save(model, tmp_path / "models" / "mlp" / "1" / "model.onnx")
    return tmp_path / "models"


def test_traces_go_where_they_are_told_to(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs opentelemetry: pip install 'edgewise[otel]'")
    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        with served(str(models), "--otlp", f"http://127.0.0.1:{collector.server_address[1]}") as address:
            ask(address, "/v2/models/mlp")
        collector.shutdown()  # what waited was sent before the server ended
    assert got and {path for path, _ in got} == {"/v1/traces"} and any(b"GET /v2/models/{model}" in data for _, data in got)
    with pytest.raises(SystemExit):
        cli.main(["serve", str(models), "--otlp", "collector"])
    assert "http://collector:4318" in capsys.readouterr().err


def test_a_folder_is_served(models: Path, tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text("[models.mlp]\nqueue = 10\n")
    with served(str(models), "--config", str(tmp_path / "serve.toml"), "--memory", "500MB") as address:
        told = ask(address, "/v2/models/mlp")
        (spec,) = told["inputs"]
        shape = [1 if axis < 0 else axis for axis in spec["shape"]]
        values = np.zeros(shape, np.float32).reshape(-1).tolist()
        given = {"inputs": [{"name": spec["name"], "datatype": "FP32", "shape": shape, "data": values}]}
        until = time.monotonic() + 60
        answer = ask(address, "/v2/models/mlp/infer", given)
        assert time.monotonic() < until and answer["outputs"][0]["datatype"] == "FP32"
        assert ask(address, "/v2/models/mlp/stats")["model_stats"][0]["inference_stats"]["success"]["count"] >= 1
        assert b"<html" in ask(address, "/").lower() and ask(address, "/page/figures")["models"][0]["name"] == "mlp"
        assert b"edgewise_requests_total" in ask(address, "/metrics")


def test_an_upstream_without_an_index_leaves_what_came_before_serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Garbage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>moved</html>")

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Garbage) as upstream:
        thread = threading.Thread(target=upstream.serve_forever, daemon=True)
        thread.start()
        address, cache = f"http://127.0.0.1:{upstream.server_address[1]}/", tmp_path / "cache"
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main(["serve", address, "--cache", str(cache)])
            assert ended.value.code == 2 and "index.json is none" in capsys.readouterr().err  # nothing came before
            (cache / "mlp" / "1").mkdir(parents=True)
            package.build(Graph.from_proto(graphs.mlp()[0]), created="").save(cache / "mlp" / "1" / "model.edgew")
            with served(address, "--cache", str(cache)) as own:
                assert ask(own, "/v2/models/mlp")["name"] == "mlp"
        finally:
            upstream.shutdown()
            thread.join(10)


def test_keys_are_made_and_asked_for(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.toml"
    made = []
    for words in (("one",), ("two", "--admin")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["serve", "--new-key", *words, "--keys", str(file)])
        assert ended.value.code == 0
        made.append(capsys.readouterr().out.split()[0])
    known = keys.parse(file.read_text())
    assert [known.client(key).scopes for key in made] == [{"infer"}, {"infer", "admin"}]  # type: ignore[union-attr]
    assert file.stat().st_mode & 0o077 == 0
    with served(str(models), "--keys", str(file)) as address:
        assert ask(address, "/v2", key=made[0])["name"] == "edgewise"
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, "/v2")
        assert refused.value.code == 401
        refused.value.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give the folder"),
        (["missing/"], "does not exist"),
        (["MODELS", "--memory", "lots"], "256MB"),
        (["MODELS", "--keys", "none.toml"], "can't read"),
        (["MODELS", "--client-ca", "ca.pem"], "--tls"),
        (["MODELS", "--log", "xml"], "json or plain"),
        (["--new-key", "a"], "--keys"),
        (["--new-key", "a b", "--keys", "keys.toml"], "letters"),
        (["MODELS", "--config", "wrong.toml"], "did you mean 'port'"),
    ],
)
def test_what_cannot_be_served(
    words: list[str], said: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text("prt = 1\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", *(str(models) if word == "MODELS" else word for word in words)])
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "keys.toml").exists()


def test_options_of_tls_leave_the_rest_of_it_as_the_file_has_it(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all who may connect: a certificate of its own on the command line lets nobody in besides."""
    told: list[Any] = []

    class Ended:
        def run(self, ready: Any) -> None:
            pass

    def edge(folder: Path, file: Any, **_: Any) -> Ended:
        told.append(file.server.tls)
        return Ended()

    monkeypatch.setattr(starting, "edge", edge)
    monkeypatch.setattr(logs, "set_up", lambda **_: None)
    config = tmp_path / "serve.toml"
    config.write_text('[tls]\ncertificate = "c.pem"\nkey = "k.pem"\nclients = "ca.pem"\n')
    for options in (["--tls", "d.pem", "l.pem"], ["--client-ca", "other.pem"], []):
        with pytest.raises(SystemExit) as ended:
            cli.main(["serve", str(models), "--config", str(config), *options])
        assert ended.value.code == 0
    assert [(tls.certificate.name, tls.clients.name) for tls in told] == [
        ("d.pem", "ca.pem"),
        ("c.pem", "other.pem"),
        ("c.pem", "ca.pem"),
    ]
