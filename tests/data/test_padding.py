import numpy as np

from edgewise.data.padding import Padding
from edgewise.types import Signature, TensorSpec

IDS, MASK = (TensorSpec(name, ("batch", "tokens"), "int64") for name in ("input_ids", "attention_mask"))
SIGNATURE = Signature((IDS, MASK), (TensorSpec("logits", ("batch", 2), "float32"),))
SAMPLE = {"input_ids": np.array([[5, 6, 0], [7, 8, 9]]), "attention_mask": np.array([[1, 1, 0], [1, 1, 1]])}


def test_the_mask_is_found_by_name_rank_and_content() -> None:
    assert Padding.of(SIGNATURE, [SAMPLE]).mask == "attention_mask"
    assert Padding.of(Signature((IDS,), SIGNATURE.outputs), [SAMPLE]).mask is None
    for other in (np.array([[0, 0, 0], [1, 1, 1]]), np.array([[2, 1, 0], [1, 1, 1]])):
        assert Padding.of(SIGNATURE, [SAMPLE, {**SAMPLE, "attention_mask": other}]).mask is None


def test_positions_without_a_token_are_left_out() -> None:
    padding = Padding.of(SIGNATURE, [SAMPLE])
    values = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(padding.without(values, SAMPLE), values.reshape(6, 4)[[0, 1, 3, 4, 5]])
    for other in (values[0], values[:, :2], np.zeros((2, 3, 4, 5))):
        assert padding.without(other, SAMPLE) is other
    assert Padding().without(values, SAMPLE) is values
