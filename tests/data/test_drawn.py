"""Inputs for whoever has nothing to ask."""

import numpy as np
import pytest

from edgewise.data import drawn
from edgewise.errors import InvalidData
from edgewise.types import Signature, TensorSpec


def signature(*inputs):
    return Signature(tuple(TensorSpec(name, shape, dtype) for name, shape, dtype in inputs), ())


def test_open_axes_are_filled_and_the_same_seed_draws_the_same():
    known = signature(("x", ("batch", 3, "length"), "float32"), ("n", (4,), "int64"), ("picture", ("batch", 2), "uint8"))
    found = drawn.inputs(known, batch=2, tokens=5, seed=1)
    assert {name: (array.shape, str(array.dtype)) for name, array in found.items()} == {
        "x": ((2, 3, 5), "float32"),
        "n": ((4,), "int64"),
        "picture": ((2, 2), "uint8"),
    }
    assert set(np.unique(found["n"])) <= {0, 1}
    assert all((array == drawn.inputs(known, batch=2, tokens=5, seed=1)[name]).all() for name, array in found.items())
    assert (found["x"] != drawn.inputs(known, batch=2, tokens=5, seed=2)["x"]).all()


def test_a_mask_has_no_holes():
    known = signature(("ids", ("batch", "tokens"), "int64"), ("attention_mask", ("batch", "tokens"), "int64"))
    found = drawn.inputs(known, batch=8, tokens=16)
    assert found["attention_mask"].all() and not found["ids"].all()
    assert not drawn.inputs(signature(("mask", ("batch", 16, 1), "int64")), batch=8)["mask"].all()  # something else that is called so


def test_what_can_not_be_drawn():
    with pytest.raises(InvalidData, match="object"):
        drawn.inputs(signature(("text", ("batch",), "object")))
