"""What a manifest may say of how texts are fed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgewise.data.text import TextPreprocess
from edgewise.errors import InvalidInput

DIGEST = "0123456789abcdef" * 4


def test_it_survives_the_manifest() -> None:
    whole = TextPreprocess(DIGEST, 64, 16, types="types", dtype="int32", pad_id=1, pad_to=64, pair=True)
    for each in (TextPreprocess(DIGEST), whole, TextPreprocess(DIGEST, lengths=(32, 128))):
        assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(each)), TextPreprocess) == each
    assert TextPreprocess(DIGEST).inputs == ("input_ids", "attention_mask")
    assert TextPreprocess(DIGEST, mask="", types="t").inputs == ("input_ids", "t")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokenizer": "abc"}, {"tokenizer": DIGEST.upper()}, {"max_length": 4}, {"max_length": 10**9}, {"stride": -1}, {"stride": 300},
        {"ids": ""}, {"mask": "input_ids"}, {"types": "attention_mask"}, {"dtype": "float32"}, {"pad_id": -1}, {"pad_id": 2**40},
        {"pad_to": 100}, {"pad_to": 10**9}, {"lengths": (8, 8)}, {"lengths": (0, 8)}, {"lengths": (8, 600)},
        {"lengths": tuple(range(1, 99))},
        {"lengths": (8,), "mask": ""}, {"lengths": (8,), "pad_to": 512},
    ],
)  # fmt: skip
def test_what_would_allocate_or_loop_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{next(iter(wrong))}=|inputs"):
        TextPreprocess(**{"tokenizer": DIGEST, **wrong})


def test_rows_are_made_as_long_as_the_next_length() -> None:
    made = TextPreprocess(DIGEST, lengths=(8, 32))
    assert [made.filled(longest) for longest in (1, 8, 9, 32, 33, 500)] == [8, 8, 32, 32, 33, 500]
    assert TextPreprocess(DIGEST).filled(9) == 9 and TextPreprocess(DIGEST, 64, 16, pad_to=64).filled(9) == 64
