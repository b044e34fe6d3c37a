import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.measure import Subject
from edgewise.testing import graphs
from edgewise.types import Execution


def test_every_named_axis_is_fixed_to_the_inputs():
    model, inputs = graphs.two_inputs()
    fixed = Subject(model.SerializeToString(), Execution("onnxruntime", options={"spinning": "0"})).fixed(inputs)
    assert fixed.options == {"spinning": "0", "axes": "batch=2,sequence=7"}


@pytest.mark.parametrize("options", [{"axes": ""}, {"batch": "1"}])
def test_what_the_caller_fixed_is_left(options):
    model, inputs = graphs.mlp()
    execution = Execution("onnxruntime", options=options)
    assert Subject(model.SerializeToString(), execution).fixed(inputs) == execution


def test_inputs_that_disagree_are_refused():
    model, inputs = graphs.two_inputs()
    with pytest.raises(InvalidInput, match=r"\(2, 7\)"):
        Subject(model.SerializeToString(), Execution("onnxruntime")).fixed({**inputs, "scale": np.ones((2, 6), np.float32)})
