"""bf16 without a CPU that has it: the flags are faked, and what the engines are told is read back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edgewise import backends
from edgewise.backends import onnxruntime, openvino
from edgewise.cli import measure
from edgewise.errors import InvalidInput
from edgewise.host.loading import execution_here
from edgewise.search import Climb, climb
from edgewise.testing import graphs
from edgewise.types import Execution

MODEL, INPUTS = graphs.mlp()
BYTES = MODEL.SerializeToString()
# What each engine needs of a CPU before it offers bf16.
NEEDS = {"onnxruntime": ("asimd", "bf16"), "openvino": ("avx512_bf16",)}
HERE = [pytest.param(name, marks=pytest.mark.skipif(name not in backends.installed(), reason=f"{name} isn't installed")) for name in NEEDS]
FASTMATH = "mlas.enable_gemm_fastmath_arm64_bfloat16"


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the engines believe that the CPU has these flags."""

    def has(*flags: str, platform: str = "linux") -> None:
        for module in (onnxruntime, openvino):
            monkeypatch.setattr(module, "isa", lambda: flags)
        monkeypatch.setattr("sys.platform", platform)

    return has


@pytest.mark.parametrize(
    ("flags", "by_onnxruntime", "by_openvino"),
    [
        ((), False, False),
        (("avx2", "avx512f", "avx512_vnni"), False, False),
        (("avx512_bf16",), False, True),
        (("amx_bf16",), False, True),
        (("asimd", "bf16"), True, False),
        (("asimd",), False, False),
    ],
)
def test_offered_only_where_the_cpu_multiplies_it(
    cpu: Callable[..., None], flags: tuple[str, ...], by_onnxruntime: bool, by_openvino: bool
) -> None:
    cpu(*flags)
    assert onnxruntime.OnnxRuntime().precisions() == (("fp32", "bf16") if by_onnxruntime else ("fp32",))
    assert openvino.OpenVino().precisions() == (("fp32", "bf16") if by_openvino else ("fp32",))


def test_onnxruntimes_switch_exists_on_linux_alone(cpu: Callable[..., None]) -> None:
    cpu("asimd", "bf16", platform="darwin")
    assert onnxruntime.OnnxRuntime().precisions() == ("fp32",)


@pytest.mark.parametrize("name", HERE)
def test_refused_where_the_cpu_lacks_it(cpu: Callable[..., None], name: str) -> None:
    cpu("avx2")
    with pytest.raises(InvalidInput, match=r"bf16.*fp32"):
        backends.load(BYTES, Execution(name, "bf16"))


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
def test_openvino_is_told_the_precision_by_name(
    cpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch, precision: str, hint: str
) -> None:
    pytest.importorskip("openvino", reason="openvino isn't installed")
    told: list[dict[str, Any]] = []
    inner = openvino._core()

    def core() -> Any:
        def compile_model(model: Any, device: str, config: dict[str, Any]) -> Any:
            told.append(config)
            # This CPU may have no bf16: what is compiled is fp32 then, and what was asked for is what counts.
            return inner.compile_model(model, device, {**config, "INFERENCE_PRECISION_HINT": "f32"})

        return SimpleNamespace(read_model=inner.read_model, compile_model=compile_model)

    cpu(*NEEDS["openvino"])
    monkeypatch.setattr(openvino, "_core", core)
    backends.load(BYTES, Execution("openvino", precision)).close()
    assert [config["INFERENCE_PRECISION_HINT"] for config in told] == [hint]


def test_openvinos_fp32_is_f32_when_it_is_asked_back() -> None:
    pytest.importorskip("openvino", reason="openvino isn't installed")
    runner = cast(Any, backends.load(BYTES, Execution("openvino")))
    assert runner._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_onnxruntime_is_told_to_multiply_in_bf16_only_when_that_is_asked_for(cpu: Callable[..., None]) -> None:
    cpu(*NEEDS["onnxruntime"])
    switched = cast(Any, backends.load(BYTES, Execution("onnxruntime", "bf16")))
    assert switched._session.get_session_options().get_session_config_entry(FASTMATH) == "1"
    plain = cast(Any, backends.load(BYTES, Execution("onnxruntime")))
    with pytest.raises(RuntimeError, match=FASTMATH):
        plain._session.get_session_options().get_session_config_entry(FASTMATH)
    expected, got = plain.run(INPUTS)["y"], switched.run(INPUTS)["y"]
    assert np.linalg.norm(got - expected) <= 2e-2 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", HERE)
def test_the_climb_and_measure_try_it_where_it_is_offered(cpu: Callable[..., None], name: str) -> None:
    def searched(*sets: str) -> tuple[Climb, Any]:
        device = SimpleNamespace(isa=sets, address="local")
        bench = SimpleNamespace(device=device)
        made = SimpleNamespace(baseline=SimpleNamespace(execution=Execution(name, threads=2)), engines=(name,), bench=bench)
        return cast(Climb, made), device

    cpu("avx2")
    without, plain = searched("avx2")
    native, device = searched(*NEEDS[name])
    assert list(climb.precisions(without)) == list(climb.precisions(native)) == []  # the device has it, and this machine can't judge it
    assert measure._executions(name, [2], plain) == [Execution(name, "fp32", 2)]
    cpu(*NEEDS[name])
    assert list(climb.precisions(without)) == []
    assert list(climb.precisions(native)) == [("precision", "", [Execution(name, "bf16", 2)])]
    assert measure._executions(name, [2], device) == [Execution(name, "fp32", 2), Execution(name, "bf16", 2)]


@pytest.mark.parametrize("name", HERE)
def test_a_package_that_did_best_in_bf16_runs_elsewhere_in_fp32_and_says_so(cpu: Callable[..., None], name: str) -> None:
    best = Execution(name, "bf16", 2)
    cpu(*NEEDS[name])
    assert execution_here(best, None, None) == (best, "")
    cpu("avx2")
    assert execution_here(best, None, None) == (Execution(name, "fp32", 2), "bf16 measured best, but this CPU hasn't got it")
