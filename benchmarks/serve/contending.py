"""The servers of the comparison, each with a model that hands back what it gets: how each is set up, started and asked.

All models take and give a numpy array, as any that computes has to. What each can't be asked (`lacks`) is told instead of a figure.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from asking import BINARY, FORMS, INPUT, MODEL, OUTPUT, Client, Rest, client, digits
from servers import Server, Unavailable, free_ports, python_of, running

from edgewise.graph import Graph
from edgewise.testing import graphs

OURS = "edgewise"

MLSERVER_MODEL = f"""
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Echo(MLModel):
    async def predict(self, payload):
        array = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("{OUTPUT}", array)])
"""

LITSERVE = """
import sys
import litserve
import numpy as np

class Echo(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return np.asarray(request["data"], np.float32)

    def predict(self, x):
        return x

    def encode_response(self, output):
        return {"data": output.tolist()}

if __name__ == "__main__":
    server = litserve.LitServer(Echo(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning")
"""

TRITON_MODEL = f"""
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "{INPUT}").as_numpy()
            answers.append(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("{OUTPUT}", array)]))
        return answers
"""

TRITON_CONFIG = f"""
backend: "python"
max_batch_size: 0
input [{{ name: "{INPUT}" data_type: TYPE_FP32 dims: [ -1, -1 ] }}]
output [{{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ -1, -1 ] }}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
"""


@dataclass
class Running:
    """A server that answers. version: of what answers."""

    name: str
    server: Server
    rest_port: int
    grpc_port: int
    version: str
    lacks: Mapping[str, str] = field(default_factory=dict)

    def client(self, form: str, array: np.ndarray) -> Client:
        """Raises Unavailable for a form that it hasn't got."""
        if form in self.lacks:
            raise Unavailable(self.lacks[form])
        return client(form, array, self.rest_port, self.grpc_port)


class LitServe(Running):
    """Its protocol is its own: {"data": […]} at /predict."""

    def client(self, form: str, array: np.ndarray) -> Client:
        if form in self.lacks:
            raise Unavailable(self.lacks[form])
        body = json.dumps({"data": [digits(array)]}).encode()
        return Rest(self.rest_port, "/predict", body, ["content-type: application/json"], _data)


def _data(head: bytes, body: bytes) -> np.ndarray:
    return np.asarray(json.loads(body)["data"], np.float32).ravel()


@contextlib.contextmanager
def edgewise(folder: Path, core: int, limit_s: int) -> Iterator[Running]:
    """`edgewise serve` as a user starts it, over an ONNX graph of one Identity."""
    models = folder / "models" / MODEL / "1"
    models.mkdir(parents=True)
    axes = ("batch", "width")
    Graph.from_proto(graphs.build([("Identity", [INPUT], [OUTPUT])], {INPUT: axes}, {OUTPUT: axes}, {})).save(models / "model.onnx")
    with serving(folder / "models", folder, core, limit_s) as (server, rest, grpc):
        yield Running(OURS, server, rest, grpc, _version(sys.executable, "edgewise"))


@contextlib.contextmanager
def serving(models: Path, folder: Path, core: int, limit_s: int, config: str = "", model: str = MODEL) -> Iterator[tuple[Server, int, int]]:
    """`edgewise serve` over a folder of models; with its ports of REST and gRPC. config: a serve.toml's text."""
    rest, grpc = free_ports(2)
    (folder / "serve.toml").write_text(config)
    where = ["--port", str(rest), "--grpc-port", str(grpc), "--config", str(folder / "serve.toml"), "--log", "json"]
    command = [sys.executable, "-m", "edgewise", "serve", str(models), *where]
    with running(command, folder / "log", core, f"http://127.0.0.1:{rest}/v2/models/{model}/ready", limit_s) as server:
        yield server, rest, grpc


@contextlib.contextmanager
def mlserver(folder: Path, core: int, limit_s: int) -> Iterator[Running]:
    """One process (parallel_workers 0), which costs it least; without metrics and logs of requests."""
    python = python_of("mlserver", "mlserver==1.7.1")
    rest, grpc, metrics = free_ports(3)
    told = {"host": "127.0.0.1", "http_port": rest, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(told | {"metrics_endpoint": None}))
    (folder / "model-settings.json").write_text(json.dumps({"name": MODEL, "implementation": "echo_runtime.Echo"}))
    (folder / "echo_runtime.py").write_text(MLSERVER_MODEL)
    command = [str(Path(python).parent / "mlserver"), "start", str(folder)]
    with running(command, folder / "log", core, f"http://127.0.0.1:{rest}/v2/models/{MODEL}/ready", limit_s) as server:
        yield Running("mlserver", server, rest, grpc, _version(python, "mlserver"), {BINARY: "has no binary tensors over REST"})


@contextlib.contextmanager
def litserve(folder: Path, core: int, limit_s: int) -> Iterator[Running]:
    python = python_of("litserve", "litserve==0.2.19", "numpy")
    (port,) = free_ports(1)
    (folder / "serve_echo.py").write_text(LITSERVE)
    lacks = {BINARY: "has no binary tensors"} | dict.fromkeys((form for form in FORMS if form.startswith("gRPC")), "has no gRPC")
    command = [python, str(folder / "serve_echo.py"), str(port)]
    with running(command, folder / "log", core, f"http://127.0.0.1:{port}/health", limit_s) as server:
        yield LitServe("litserve", server, port, 0, _version(python, "litserve"), lacks)


@contextlib.contextmanager
def triton(folder: Path, core: int, limit_s: int) -> Iterator[Running]:
    """The tritonserver inside nvidia-pytriton, by itself: pytriton's own proxy of models isn't between."""
    python = python_of("pytriton", "nvidia-pytriton==0.7.0")
    found = subprocess.run([python, "-c", WHERE_TRITON], capture_output=True, text=True, timeout=60)
    if found.returncode:
        raise Unavailable(f"nvidia-pytriton isn't in {python}: {found.stderr.strip().splitlines()[-1:]}")
    packages, python_version = found.stdout.split()
    root = Path(packages) / "pytriton" / "tritonserver"
    # The backend looks for its stub beside itself; the package has one for each Python.
    backends = folder / "backends"
    shutil.copytree(root / "backends", backends)
    shutil.copy(root / "python_backend_stubs" / python_version / "triton_python_backend_stub", backends / "python")
    version = folder / "models" / MODEL / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(TRITON_MODEL)
    (version.parent / "config.pbtxt").write_text(TRITON_CONFIG)
    rest, grpc = free_ports(2)
    command = [str(root / "bin" / "tritonserver"), f"--model-repository={folder / 'models'}", f"--backend-directory={backends}"]
    command += ["--http-address=127.0.0.1", f"--http-port={rest}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}"]
    command += ["--allow-metrics=false", "--allow-gpu-metrics=false"]
    # The stub finds its environment as Python does: by the first python3 on the path.
    path = f"{Path(python).parent}:{os.environ['PATH']}"
    env = {"LD_LIBRARY_PATH": f"{packages}/nvidia_pytriton.libs", "PATH": path}
    with running(command, folder / "log", core, f"http://127.0.0.1:{rest}/v2/models/{MODEL}/ready", limit_s, env) as server:
        yield Running("triton", server, rest, grpc, _version(python, "nvidia-pytriton"))


WHERE_TRITON = """
import importlib.util, pathlib, sys
print(pathlib.Path(importlib.util.find_spec("pytriton").origin).parents[1], f"{sys.version_info[0]}.{sys.version_info[1]}")
"""

CONTENDERS = {OURS: edgewise, "mlserver": mlserver, "litserve": litserve, "triton": triton}


def _version(python: str, distribution: str) -> str:
    line = [python, "-c", f"import importlib.metadata as m; print(m.version({distribution!r}))"]
    found = subprocess.run(line, capture_output=True, text=True, timeout=60)
    return f"{distribution} {found.stdout.strip() or '(version unknown)'}"
