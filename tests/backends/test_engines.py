"""What is particular to one engine, and the room's front door."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from edgewise import backends
from edgewise.errors import InvalidInput, MissingExtra
from edgewise.testing import graphs
from edgewise.types import Execution

MODEL, INPUTS = graphs.mlp()
BYTES = MODEL.SerializeToString()


def test_installed_is_in_the_order_of_the_registry():
    assert next(iter(backends.installed())) == "onnxruntime"
    assert all(backend.name == name for name, backend in backends.installed().items())


def test_looking_for_engines_imports_none():
    engines = "{'onnxruntime', 'openvino', 'ai_edge_litert', 'onnx', 'torch'}"
    script = f"import sys, edgewise.backends as b; b.installed(); print({engines} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_missing_engine_says_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[openvino\]'"):
        backends.load(BYTES, Execution("openvino"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else object())
    assert list(backends.installed()) == ["onnxruntime", "litert"]


@pytest.mark.parametrize("name", ["nonsense", "no_such_module_at_all:Thing"])
def test_an_unknown_engine(name):
    with pytest.raises(InvalidInput):
        backends.load(BYTES, Execution(name))


def test_ones_own_engine_goes_where_a_name_goes():
    runner = backends.load(BYTES, Execution("edgewise.backends.onnxruntime:OnnxRuntime"))
    assert runner.run(INPUTS)["y"].shape == (5, 4)


@pytest.mark.parametrize("options", [{"optimization": "off"}, {"optimization": "basic"}, {"spinning": "0"}, {"avx2_precise": "1"}])
def test_onnxruntime_options_keep_the_answer(options):
    expected = backends.load(BYTES, Execution("onnxruntime")).run(INPUTS)["y"]
    got = backends.load(BYTES, Execution("onnxruntime", options=options)).run(INPUTS)["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"optimization": "fast"}, {"spinning": "yes"}])
def test_onnxruntime_refuses_other_values(options):
    with pytest.raises(InvalidInput, match="use one of"):
        backends.load(BYTES, Execution("onnxruntime", options=options))


def test_avx2_precise_keeps_eight_bit_weights_exact():
    """u8 × s8 with all bits in use: right with the option on every machine, and without it where the CPU doesn't saturate."""
    model, inputs, step = graphs.quantized_matmul(bits=8)
    inputs = {"x": np.full((1, 32), 10.0, np.float32)}
    from onnx.reference import ReferenceEvaluator

    expected = ReferenceEvaluator(model).run(None, inputs)[0]
    got = backends.load(model.SerializeToString(), Execution("onnxruntime", options={"avx2_precise": "1"})).run(inputs)["y"]
    assert np.abs(got - expected).max() <= 1.01 * step


@pytest.mark.skipif("openvino" not in backends.installed(), reason="openvino isn't installed")
class TestOpenVino:
    def test_threads_that_it_would_cut_silently_are_refused(self):
        with pytest.raises(InvalidInput, match="threads=4096"):
            backends.load(BYTES, Execution("openvino", threads=4096))

    def test_dynamic_quantization_is_a_number(self):
        with pytest.raises(InvalidInput, match="dynamic_quantization"):
            backends.load(BYTES, Execution("openvino", options={"dynamic_quantization": "on"}))
        assert backends.load(BYTES, Execution("openvino", options={"dynamic_quantization": "32"})).run(INPUTS)["y"].shape == (5, 4)


def test_ctrl_c_after_engines_were_closed_in_any_order_is_an_interrupt():
    """OpenVINO's plugins could leave the thread's signals a stack that is unmapped: the next Ctrl-C ended the process."""
    pytest.importorskip("openvino")
    script = """
import gc, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that runs in the background ignores it
from edgewise import backends
from edgewise.testing import graphs
from edgewise.types import Execution
model = graphs.mlp()[0].SerializeToString()
first, second = (backends.load(model, Execution("openvino")) for _ in range(2))
first.close()
del first
gc.collect()
second.close()
del second
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.skipif("openvino" not in backends.installed(), reason="openvino isn't installed")
def test_openvino_shares_the_weights_as_they_came_among_graphs_of_several_shapes() -> None:
    story = """
import numpy as np
from edgewise import backends
from edgewise.host import memory
from edgewise.testing import graphs
from edgewise.types import Execution

weights = {"w": np.random.default_rng(0).standard_normal((1024, 4096), dtype=np.float32)}  # 16 MB
model = graphs.build([("MatMul", ["x", "w"], ["y"])], {"x": ("batch", 1024)}, {"y": ("batch", 4096)}, weights).SerializeToString()
executions = [Execution("openvino", options={"batch": str(rows)} if rows else {}) for rows in (1, 2, 3, 0)]
inputs = [{"x": np.ones((rows or 5, 1024), np.float32)} for rows in (1, 2, 3, 0)]
memory.keep_apart()
backends.load(model, executions[0]).close()

def taken(load):
    memory.give_back()
    before = memory.rss_bytes()
    runners = load()
    answers = [runner.run(given)["y"] for runner, given in zip(runners, inputs)]
    memory.give_back()
    return memory.rss_bytes() - before, answers, runners

together, answers, kept = taken(lambda: backends.load_all(model, executions))
apart, expected, others = taken(lambda: [backends.load(model, execution) for execution in executions])
assert all((one == other).all() for one, other in zip(answers, expected))
assert together < apart - (2 << 24), (together, apart)
"""
    done = subprocess.run([sys.executable, "-c", story], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
