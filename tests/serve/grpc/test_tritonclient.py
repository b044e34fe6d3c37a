"""tritonclient's own clients, unchanged: what the issue of a third party's library is here is a failing test."""

from __future__ import annotations

import asyncio
import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.serve.access import Gate
from edgewise.serve.rest import Served
from edgewise.testing.hosts import FakeHost, identity

triton = pytest.importorskip("tritonclient.grpc", reason="needs Triton's client: pip install 'tritonclient[grpc]'")
LIMIT_S = 20.0


@pytest.fixture
def client(running: Any) -> Any:
    with triton.InferenceServerClient(running.address) as made:
        yield made


def given(array: np.ndarray, datatype: str, name: str = "x") -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


@pytest.mark.parametrize(
    ("model", "array", "datatype"),
    [
        ("same", np.arange(6, dtype=np.float32).reshape(2, 3), "FP32"),
        ("half", np.arange(6, dtype=np.float16).reshape(2, 3), "FP16"),
        ("whole", np.array([[-(2**62), 5]]), "INT64"),
        ("flags", np.array([[True, False]]), "BOOL"),
        ("words", np.array([[b"a", b"", "æ".encode()]], object), "BYTES"),
    ],
)
def test_tensors_come_back_as_they_went(client: Any, model: str, array: np.ndarray, datatype: str) -> None:
    answer = client.infer(model, [given(array, datatype)], request_id="9", client_timeout=LIMIT_S)
    assert np.array_equal(answer.as_numpy("y"), array)
    assert answer.get_response().id == "9"


def test_outputs_classes_priority_and_timeout(client: Any, running: Any) -> None:
    x = np.array([[1, 5, 3]], np.float32)
    answer = client.infer("two", [given(x, "FP32")], outputs=[triton.InferRequestedOutput("less")], priority=2, timeout=5_000_000)
    assert answer.as_numpy("more") is None and np.array_equal(answer.as_numpy("less"), x - 1)
    assert running.host.requests[0].deadline is not None and running.host.requests[0].priority > 0
    answer = client.infer("classes", [given(x, "FP32")], outputs=[triton.InferRequestedOutput("y", class_count=1)])
    assert answer.as_numpy("y").tolist() == [[b"5.000000:1:dog"]]


def test_what_it_asks_besides(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("same")
    assert client.get_server_metadata(as_json=True)["name"] == "edgewise"
    assert client.get_model_metadata("two", as_json=True)["outputs"][1]["name"] == "less"
    assert client.get_model_config("two").config.input[0].name == "x"
    client.infer("two", [given(np.zeros((1, 3), np.float32), "FP32")])
    assert client.get_inference_statistics("two").model_stats[1].inference_stats.success.count == 1
    client.unload_model("same")
    assert not client.is_model_ready("same")
    client.load_model("same")
    assert {model.name for model in client.get_model_repository_index().models} >= {"same", "two"}


def test_errors_are_its_exceptions(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="nowhere") as caught:
        client.infer("nowhere", [given(np.zeros((1, 3), np.float32), "FP32")])
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_system_shared_memory(serve: Any, tmp_path: Path) -> None:
    """As tritonclient.utils.shared_memory does it, whose library needs librt of the system: the region is made here."""
    (tmp_path / "r").write_bytes(np.arange(4, dtype=np.float32).tobytes() + bytes(16))
    with triton.InferenceServerClient(serve(shared=True, folder=tmp_path).address) as client:
        client.register_system_shared_memory("r", "/r", 32)
        x, y = triton.InferInput("x", [1, 4], "FP32"), triton.InferRequestedOutput("y")
        x.set_shared_memory("r", 16)
        y.set_shared_memory("r", 16, offset=16)
        answer = client.infer("same", [x], outputs=[y])
        assert answer.get_output("y").parameters["shared_memory_region"].string_param == "r"
        assert (tmp_path / "r").read_bytes()[16:] == np.arange(4, dtype=np.float32).tobytes()
        assert client.get_system_shared_memory_status().regions["r"].byte_size == 32
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions


def test_its_stream(client: Any) -> None:
    got: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: got.put((result, error)))
    for number in range(3):
        client.async_stream_infer("same", [given(np.full((1, 2), number, np.float32), "FP32")], request_id=str(number))
    client.async_stream_infer("nowhere", [given(np.zeros((1, 2), np.float32), "FP32")])
    for number in range(3):
        result, error = got.get(timeout=LIMIT_S)
        assert error is None and result.get_response().id == str(number) and result.as_numpy("y")[0, 0] == number
    result, error = got.get(timeout=LIMIT_S)
    assert result is None and "nowhere" in str(error)
    client.stop_stream()


def test_its_asyncio_client() -> None:
    from tritonclient.grpc import aio

    from edgewise.serve.grpc import GrpcServer, Settings

    async def asked() -> list[float]:
        host = FakeHost({"same": identity(delay_s=0.01)})
        server = GrpcServer(Served(host, Gate(None)), Settings(port=0))
        port = await server.start()
        try:
            async with aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
                assert await client.is_server_ready()
                calls = [client.infer("same", [given(np.full((1, 2), number, np.float32), "FP32")]) for number in range(20)]
                return [float(answer.as_numpy("y")[0, 0]) for answer in await asyncio.gather(*calls)]
        finally:
            await server.drain(1.0)

    assert asyncio.run(asyncio.wait_for(asked(), LIMIT_S)) == list(range(20))
