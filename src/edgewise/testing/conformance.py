"""What every backend must do. A backend's test inherits `BackendConformance` and supplies one fixture."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.testing import graphs
from edgewise.types import Backend, Execution, Inputs, Runner

Options = dict[str, str]


def reference(model: onnx.ModelProto, inputs: Inputs) -> list[np.ndarray]:
    """The outputs by onnx's reference evaluator, in the graph's order."""
    return [np.asarray(output) for output in ReferenceEvaluator(model).run(None, dict(inputs))]


class BackendConformance:
    """Inherit, and give the fixture `backend`:

        class TestMine(BackendConformance):
            @pytest.fixture
            def backend(self):
                return MyBackend()

    Numbers are held against onnx's reference evaluator. A Runner serves one caller at a time; two Runners may be used by two threads.
    An engine with a form of its own gives `form` too.
    """

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError("the inheriting test gives the backend")

    def form(self, model: bytes) -> bytes:
        """What the engine loads of an ONNX model: that, or its own form of it; what it has none of comes back as it is."""
        return model

    def load(self, backend: Backend, model: bytes, options: Options | None = None, precision: str = "fp32", threads: int = 1) -> Runner:
        return backend.load(self.form(model), Execution(backend.name, precision, threads, options or {}))

    def test_states_its_version_and_precisions(self, backend: Backend) -> None:
        assert backend.version()[0].isdigit()
        assert backend.precisions()[0] == "fp32"

    @pytest.mark.parametrize("name", sorted(graphs.FLOAT))
    def test_fp32_is_true_fp32(self, backend: Backend, name: str) -> None:
        model, inputs = graphs.FLOAT[name]()
        expected = reference(model, inputs)
        runner = self.load(backend, model.SerializeToString())
        outputs = runner.run(inputs)
        runner.close()
        assert list(outputs) == [value.name for value in model.graph.output]
        for got, wanted in zip(outputs.values(), expected, strict=True):
            assert got.dtype == wanted.dtype
            assert got.shape == wanted.shape
            # bf16 would be off by 4e-3, tf32 by 5e-4
            assert np.linalg.norm(got.astype(float) - wanted) <= 2e-6 * np.linalg.norm(wanted)

    def test_other_precisions_are_close(self, backend: Backend) -> None:
        model, inputs = graphs.convolution()
        expected = reference(model, inputs)[0]
        for precision in backend.precisions()[1:]:
            got = self.load(backend, model.SerializeToString(), precision=precision).run(inputs)["y"]
            assert np.linalg.norm(got - expected) <= 2e-2 * np.linalg.norm(expected)

    @pytest.mark.parametrize("name", sorted(graphs.QUANTIZED))
    def test_qdq_is_right_within_a_step(self, backend: Backend, name: str) -> None:
        """Fused integer kernels may round a tie the other way: one step of the output's scale."""
        model, inputs, step = graphs.QUANTIZED[name]()
        expected = reference(model, inputs)[0]
        got = self.load(backend, model.SerializeToString()).run(inputs)["y"]
        assert np.abs(got - expected).max() <= 1.01 * step
        assert np.mean(np.abs(got - expected) > 0.01 * step) <= 0.05

    def test_named_axes_are_dynamic(self, backend: Backend) -> None:
        model, inputs = graphs.mlp()
        runner = self.load(backend, model.SerializeToString())
        assert runner.signature.inputs[0].shape == ("batch", 16)
        assert runner.signature.outputs[0].shape == ("batch", 4)
        whole = runner.run(inputs)["y"]
        for n in (1, 3, 2):  # smaller, larger, smaller: whatever is kept between calls follows
            np.testing.assert_allclose(runner.run({"x": inputs["x"][:n]})["y"], whole[:n], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("options", [{"batch": "3"}, {"axes": "batch=3"}])
    def test_named_axes_can_be_fixed(self, backend: Backend, options: Options) -> None:
        model, inputs = graphs.mlp()
        runner = self.load(backend, model.SerializeToString(), options)
        assert runner.signature.inputs[0].shape == (3, 16)
        assert runner.signature.outputs[0].shape == (3, 4)
        assert runner.run({"x": inputs["x"][:3]})["y"].shape == (3, 4)
        with pytest.raises(InvalidInput, match="shape"):
            runner.run({"x": inputs["x"][:2]})

    @pytest.mark.parametrize("options", [{"batch": "0"}, {"batch": "x"}, {"axes": "rows=3"}, {"no_such_option": "1"}])
    def test_wrong_options_are_refused(self, backend: Backend, options: Options) -> None:
        with pytest.raises(InvalidInput):
            self.load(backend, graphs.mlp()[0].SerializeToString(), options)

    @pytest.mark.parametrize("precision", ["int3", "", "FP32"])
    def test_unknown_precision_is_refused(self, backend: Backend, precision: str) -> None:
        with pytest.raises(InvalidInput, match="fp32"):
            self.load(backend, graphs.mlp()[0].SerializeToString(), precision=precision)

    def test_threads_below_one_are_refused(self, backend: Backend) -> None:
        with pytest.raises(InvalidInput, match="threads"):
            self.load(backend, graphs.mlp()[0].SerializeToString(), threads=0)

    @pytest.mark.parametrize("name", sorted(graphs.BROKEN))
    def test_unloadable_models_are_named(self, backend: Backend, name: str) -> None:
        with pytest.raises(InvalidModel, match=backend.name) as caught:
            self.load(backend, graphs.BROKEN[name]())
        assert len(str(caught.value).splitlines()) <= 2

    @pytest.mark.parametrize("name", sorted(graphs.WRONG_INPUTS))
    def test_wrong_inputs_are_refused_and_the_runner_lives(self, backend: Backend, name: str) -> None:
        model, inputs = graphs.mlp()
        runner = self.load(backend, model.SerializeToString())
        before = runner.run(inputs)["y"]
        with pytest.raises(InvalidInput):
            runner.run(graphs.WRONG_INPUTS[name])
        np.testing.assert_array_equal(runner.run(inputs)["y"], before)

    def test_views_and_readonly_inputs_work(self, backend: Backend) -> None:
        model, inputs = graphs.mlp()
        runner = self.load(backend, model.SerializeToString())
        expected = runner.run(inputs)["y"]
        strided = np.asfortranarray(inputs["x"])
        strided.flags.writeable = False
        np.testing.assert_array_equal(runner.run({"x": strided})["y"], expected)

    @pytest.mark.parametrize("options", [{}, {"batch": "5"}])
    def test_outputs_belong_to_the_caller(self, backend: Backend, options: Options) -> None:
        model, inputs = graphs.mlp()
        runner = self.load(backend, model.SerializeToString(), options)
        given = {name: array.copy() for name, array in inputs.items()}
        first = runner.run(given)["y"]
        kept = first.copy()
        np.testing.assert_array_equal(given["x"], inputs["x"])
        second = runner.run({"x": -inputs["x"]})["y"]
        np.testing.assert_array_equal(first, kept)
        assert not np.array_equal(first, second)
        first[:] = 7  # writeable, and nobody else's
        np.testing.assert_array_equal(runner.run(inputs)["y"], kept)
        runner.close()
        assert second.sum() == second.copy().sum()

    def test_close_is_idempotent_and_final(self, backend: Backend) -> None:
        model, inputs = graphs.mlp()
        runner = self.load(backend, model.SerializeToString())
        runner.close()
        runner.close()
        with pytest.raises(InvalidInput, match="closed"):
            runner.run(inputs)

    def test_two_runners_serve_two_threads(self, backend: Backend) -> None:
        model, inputs = graphs.mlp()
        runners = [self.load(backend, model.SerializeToString()) for _ in range(2)]
        expected = runners[0].run(inputs)["y"]
        wrong: list[object] = []

        def work(runner: Runner) -> None:
            try:
                for _ in range(50):
                    np.testing.assert_array_equal(runner.run(inputs)["y"], expected)
            except Exception as error:  # any error at all is what the test looks for
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(runner,)) for runner in runners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_says_nothing_on_its_own(self, backend: Backend, capfd: pytest.CaptureFixture[str]) -> None:
        model, inputs = graphs.mlp()
        runner = self.load(backend, model.SerializeToString())
        runner.run(inputs)
        with pytest.raises(InvalidModel):
            self.load(backend, graphs.BROKEN["unknown operator"]())
        assert capfd.readouterr() == ("", "")
