"""The field install: `pip install .` in an empty environment. Its size, that no torch came along, and how long `edgewise --help` takes;
then with the server in it (the extras serve and grpc), and what each other extra that a device may want adds, one after the other.
Last, what docs/serving.md says for a device that is short of disk: the same without bytecode made in advance, after the server has answered
over REST and gRPC, so that the bytecode of all that it uses is there.

python benchmarks/field.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import onnx
import tritonclient.grpc
import tritonclient.http
from common import record
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[1]
SERVER = ("serve", "grpc")
PORT = 18_431
EXTRAS = ("keys", "otel", "text", "litert", "parquet", "openvino")


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 2**20


def identity(folder: Path) -> None:
    """A model that gives back what it gets, in `folder`."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", ports[:1], ports[1:])
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")


def served_mb(scratch: Path) -> float:
    """Of site-packages with the server and gRPC, without bytecode made in advance, after one answer by each and a look at the page."""
    subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
    wanted = f"{ROOT}[{','.join(SERVER)}]"
    install: list[str | Path] = [scratch / "bin" / "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt", wanted]
    subprocess.run(install, check=True)
    identity(scratch / "models" / "identity" / "1")
    rest, grpc = f"127.0.0.1:{PORT}", f"127.0.0.1:{PORT + 1}"
    command: list[str | Path] = [
        scratch / "bin" / "edgewise",
        "serve",
        scratch / "models",
        "--port",
        str(PORT),
        "--grpc-port",
        str(PORT + 1),
    ]
    with subprocess.Popen(["timeout", "60", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 30
            while subprocess.run(["curl", "-sf", f"http://{rest}/v2/health/ready"], capture_output=True).returncode:
                if time.monotonic() > until:
                    raise SystemExit("the server isn't ready after 30 s")
                time.sleep(0.2)
            sent = np.arange(4, dtype=np.float32)[None]
            for client in (tritonclient.http, tritonclient.grpc):
                asked = client.InferInput("x", sent.shape, "FP32")
                asked.set_data_from_numpy(sent)
                with client.InferenceServerClient(rest if client is tritonclient.http else grpc) as at:
                    assert np.array_equal(at.infer("identity", [asked]).as_numpy("y"), sent)
            for path in ("/", "/metrics", "/docs"):
                subprocess.run(["curl", "-sf", f"http://{rest}{path}"], check=True, capture_output=True)
        finally:
            server.terminate()
    return megabytes(next(scratch.glob("lib/python*/site-packages")))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        tools = Path(scratch) / "bin"
        packages = next(Path(scratch).glob("lib/python*/site-packages"))
        empty = megabytes(packages)
        install: list[str | Path] = [tools / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
        subprocess.run(install, check=True)
        subprocess.run([tools / "pip", "check"], check=True)
        listed = subprocess.run([tools / "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout.lower()
        times = []
        for _ in range(11):
            began = time.perf_counter()
            subprocess.run([tools / "edgewise", "--help"], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        whole = megabytes(packages)
        extras, before, server, bytecode = {}, whole, whole, 0.0
        for extra in (*SERVER, *EXTRAS):
            subprocess.run([tools / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{ROOT}[{extra}]"], check=True)
            now = megabytes(packages)
            extras[extra], before = round(now - before), now
            if extra == SERVER[-1]:
                subprocess.run([tools / "edgewise", "serve", "--help"], check=True, capture_output=True)
                server, bytecode = now, sum(megabytes(folder) for folder in packages.rglob("__pycache__"))
    with tempfile.TemporaryDirectory() as scratch:
        bare = served_mb(Path(scratch))
    result = {
        "bar": "no torch; at most 250 MB, with the server in it too; edgewise --help in at most 0.3 s",
        "site_packages_mb": round(whole),
        "with_the_server_mb": round(server),
        "of_which_bytecode_mb": round(bytecode),
        "with_the_server_no_compile_after_use_mb": round(bare),
        "empty_environment_mb": round(empty),
        "extras_add_mb": extras,
        "torch": any(line.startswith("torch==") for line in listed.splitlines()),
        "help_seconds": {"median": round(statistics.median(times), 3), "most": round(max(times), 3), "n": len(times)},
    }
    print(f"with {' and '.join(SERVER)} {server:.0f} MB, of which {bytecode:.0f} MB are compiled bytecode (pip install --no-compile)")
    print(f"the same with --no-compile, after the server has answered: {bare:.0f} MB")
    print(f"extras, one after the other: {extras} MB more")
    print(f"{whole:.0f} MB, of which {empty:.0f} MB are the empty environment's; --help {statistics.median(times):.2f} s (n={len(times)})")
    record("field", result)


if __name__ == "__main__":
    main()
