"""The dense model as a teacher that remembers."""

import numpy as np
import pytest
import torch

from edgewise import backends
from edgewise.graph import Graph, Index, infer_shapes
from edgewise.models.network import Network
from edgewise.search.origin import Teacher
from edgewise.testing import graphs
from edgewise.types import Execution

MODEL, INPUTS = graphs.mlp()
DENSE = infer_shapes(Graph.from_proto(MODEL))


@pytest.fixture
def runs(monkeypatch):
    """How often the engine was asked, and runners that are open."""
    count = {"asked": 0, "open": 0}
    load = backends.load

    def loaded(*arguments):
        runner = load(*arguments)
        run, close = runner.run, runner.close
        count["open"] += 1

        def counted(inputs):
            count["asked"] += 1
            return run(inputs)

        def closed():
            count["open"] -= 1
            close()

        monkeypatch.setattr(runner, "run", counted, raising=False)
        monkeypatch.setattr(runner, "close", closed, raising=False)
        return runner

    monkeypatch.setattr(backends, "load", loaded)
    return count


def other():
    return {name: value + 1 for name, value in INPUTS.items()}


def test_it_answers_as_the_engine_does_and_asks_once(runs):
    teacher = Teacher(DENSE, Execution("onnxruntime"))
    direct = backends.load(DENSE.to_bytes(), Execution("onnxruntime"))
    for inputs in (INPUTS, other(), INPUTS, {name: value.copy() for name, value in INPUTS.items()}):
        answers = teacher(inputs)
        for name, value in direct.run(inputs).items():
            np.testing.assert_allclose(answers[name], value, rtol=1e-5, atol=1e-6)
    assert runs["asked"] == 2 + 4  # the teacher's two, and the four direct ones
    direct.close()
    teacher.close()
    assert runs["open"] == 0


def test_what_does_not_fit_into_its_memory_is_asked_again(runs):
    teacher = Teacher(DENSE, Execution("onnxruntime"), most_bytes=0)
    first, again = teacher(INPUTS), teacher(INPUTS)
    assert runs["asked"] == 2
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    teacher.close()


def test_one_that_was_never_asked_loads_nothing(runs):
    Teacher(DENSE, Execution("onnxruntime")).close()
    assert runs["open"] == 0


def test_it_can_be_looked_into(runs):
    teacher = Teacher(DENSE, Execution("onnxruntime"), structure=lambda: DENSE)
    inner = Index(teacher.graph()).tensors[0]
    answers = [teacher.tapped([inner])(INPUTS) for _ in range(2)]
    assert runs["open"] == 1 and [*answers[0]] == [*teacher(INPUTS), inner]
    with torch.no_grad():
        expected = Network(DENSE).run({name: torch.from_numpy(value) for name, value in INPUTS.items()}, [inner])
    for name, value in expected.items():
        np.testing.assert_allclose(answers[1][name], value, rtol=1e-4, atol=1e-5)
    teacher.close()
    assert runs["open"] == 0
