"""Texts to ids: the ids of transformers, windows that leave nothing out, and whatever text comes."""

from __future__ import annotations

import hashlib
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgewise.data.text import TextEncoder, TextPreprocess, encoder, read_tokenizer
from edgewise.data.text.rows import Rows
from edgewise.errors import InvalidData, InvalidInput, MissingExtra
from edgewise.testing.texts import VOCABULARY, tokenizer

pytest.importorskip("tokenizers", reason="tokenizers isn't installed: pip install 'edgewise[text]'")

Template = Literal["bert", "roberta", "none"]


def encoding(template: Template = "bert", *, max_length: int = 12, stride: int = 3, pair: bool = False) -> TextEncoder:
    data = tokenizer(template, padded=True)
    return TextEncoder(read_tokenizer(data).preprocess(max_length=max_length, stride=stride, pair=pair), data)


def ids(rows: Rows) -> list[list[int]]:
    return [rows.ids[start:end].tolist() for start, end in pairwise(rows.starts)]


def words(*tokens: str) -> list[int]:
    return [VOCABULARY.index(token) for token in tokens]


def drawn(count: int) -> str:
    chosen = random.Random(0)
    return " ".join(chosen.choice(VOCABULARY[5:33]) for _ in range(count))


def test_by_hand() -> None:
    rows = encoding().rows(["A good film!", "", "zoo"])
    assert ids(rows) == [
        words("[CLS]", "a", "good", "film", "!", "[SEP]"),
        words("[CLS]", "[SEP]"),
        words("[CLS]", "z", "##o", "##o", "[SEP]"),
    ]
    assert rows.sample.tolist() == [0, 1, 2]
    assert rows.span(0).tolist() == [[-1, -1], [0, 1], [2, 6], [7, 11], [11, 12], [-1, -1]]
    (pair,) = ids(encoding(pair=True).rows([("who", "it is")]))
    assert pair == words("[CLS]", "who", "[SEP]", "it", "is", "[SEP]")


def test_a_long_text_goes_in_windows_that_share_tokens() -> None:
    text = "the film is good and it was made in this old town"
    rows = encoding(max_length=8, stride=2).rows([text, "bad"])
    inner = [row[1:-1] for row in ids(rows)]
    assert inner == [
        words("the", "film", "is", "good", "and", "it"),
        words("and", "it", "was", "made", "in", "this"),
        words("in", "this", "old", "town"),
        words("bad"),
    ]
    assert rows.sample.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("template", ["bert", "roberta", "none"])
@pytest.mark.parametrize(("first", "second"), [(5, 60), (60, 5), (60, 60), (60, 31), (0, 60)])
def test_windows_of_pairs_hold_every_token_of_both(template: Template, first: int, second: int) -> None:
    made = encoding(template, max_length=24, stride=4, pair=True)
    pair = drawn(first), drawn(second)
    rows = made.rows([pair])
    assert rows.lengths.max() <= 24 and len(rows) <= 20
    library = encoder.opened(made.tokenizer)
    wanted = [library.encode(text, add_special_tokens=False).ids for text in pair]
    for text in wanted:  # each of its tokens follows its neighbour in some window
        runs = [" ".join(map(str, row)) for row in ids(rows)]
        assert all(any(f"{a} {b}" in run for run in runs) for a, b in pairwise(text))
    # Spans are of the second text alone, and reach its end.
    seen = rows.spans[rows.spans[:, 0] >= 0]
    assert seen[:, 1].max(initial=0) == len(pair[1]) and (seen[:, 0] < seen[:, 1]).all()


@pytest.mark.parametrize("template", ["bert", "roberta"])
def test_the_same_ids_as_transformers(template: Template, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the reference is transformers' own tokenizer")
    data = tokenizer(template, padded=True)
    (tmp_path / "tokenizer.json").write_bytes(data)
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]")
    many = {"max_length": 24, "stride": 6, "return_overflowing_tokens": True, "return_token_type_ids": True, "return_offsets_mapping": True}
    texts = ["a good film!", "", "Ünïcode ＦＵＬＬ 中文 \u200b\x00 tab\tx", "film" * 30, "don't stop-it 3.5%", drawn(100)]
    told = reference(texts, truncation=True, **many)
    rows = encoding(template, max_length=24, stride=6).rows(texts)
    same(rows, told, 0, types=template == "bert")
    pairs = [("who ?", drawn(100)), ("", ""), ("a b", ""), ("what is it", texts[2]), ("the film", drawn(8))]
    told = reference([a for a, _ in pairs], [b for _, b in pairs], truncation="only_second", **many)
    same(encoding(template, max_length=24, stride=6, pair=True).rows(pairs), told, 1, types=template == "bert")


@pytest.mark.parametrize(
    "own", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizer", "PreTrainedTokenizerFast"]
)
@pytest.mark.parametrize(
    "said", [{"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False}, {}]
)
def test_the_same_ids_where_the_settings_contradict_the_file(own: str, said: dict[str, bool], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the reference is transformers' own tokenizer")
    (tmp_path / "tokenizer.json").write_bytes(tokenizer())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": own, **said}))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    texts = ["A Good film!", "ünï é", "中a文", "don't"]
    found = read_tokenizer(tmp_path)
    rows = TextEncoder(found.preprocess(max_length=None, stride=None, pair=False), found.data).rows(texts)
    assert ids(rows) == transformers.AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"]


def same(rows: Rows, told: Any, sequence: int, *, types: bool) -> None:
    assert ids(rows) == told["input_ids"]
    assert rows.sample.tolist() == told["overflow_to_sample_mapping"]
    if types:  # transformers fills them in itself where the template is RoBERTa's
        assert rows.types.tolist() == [kind for row in told["token_type_ids"] for kind in row]
    for row in range(len(rows)):
        places = zip(told["offset_mapping"][row], told.sequence_ids(row), strict=True)
        assert [tuple(span) for span in rows.span(row).tolist()] == [place if of == sequence else (-1, -1) for place, of in places]


def test_inputs_are_filled_up_to_the_longest() -> None:
    made = encoding(pair=True)
    rows = made.rows([("who", "it is"), ("a", "b")])
    both = TextPreprocess(made.preprocess.tokenizer, 12, 3, ids="x", mask="m", types="t", dtype="int32", pad_id=7, pair=True)
    fed = rows.inputs(np.array([1, 0]), both)
    assert list(fed) == ["x", "m", "t"] and {array.dtype.name for array in fed.values()} == {"int32"}
    assert fed["x"].tolist() == [[*words("[CLS]", "a", "[SEP]", "b", "[SEP]"), 7], words("[CLS]", "who", "[SEP]", "it", "is", "[SEP]")]
    assert fed["m"].tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert fed["t"].tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]]
    wide = TextPreprocess(made.preprocess.tokenizer, 12, 3, pad_to=16)
    assert {array.shape for array in rows.inputs(np.array([0]), wide).values()} == {(1, 16)}


def test_without_a_mask_only_equally_long_rows_share_a_call() -> None:
    made = encoding()
    rows = made.rows(["a", "the", "a film", "is it"])
    bare = TextPreprocess(made.preprocess.tokenizer, 12, 3, mask="")
    assert [call.tolist() for call in rows.calls(8, bare)] == [[0, 1], [2, 3]]
    assert [call.tolist() for call in rows.calls(3, made.preprocess)] == [[0, 1, 2], [3]]
    with pytest.raises(InvalidInput, match="no mask"):
        rows.inputs(np.array([0, 2]), bare)
    with pytest.raises(InvalidInput, match="batch size 0"):
        next(rows.calls(0, bare))


def test_what_the_file_says_of_length_and_padding(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer(padded=True))
    assert (read_tokenizer(tmp_path).max_length, read_tokenizer(tmp_path / "tokenizer.json").pad_id) == (512, 0)
    for said, length in ((128, 128), (1000000000000000019884624838656, 512), ("x", 512)):
        (tmp_path / "tokenizer_config.json").write_text(f'{{"model_max_length": {said!r}}}'.replace("'", '"'))
        assert read_tokenizer(tmp_path).max_length == length
    found = read_tokenizer(tmp_path).preprocess(max_length=None, stride=None, pair=True)
    assert (found.max_length, found.stride, found.pair) == (512, 128, True)
    assert found.tokenizer == hashlib.sha256(tokenizer(padded=True)).hexdigest()


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64, "pad_token_id": 0}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 128),
        ({"model_type": "deberta-v2", "max_position_embeddings": -1}, 128),
        ({}, 128),
    ],
)
def test_no_row_is_longer_than_the_model_has_positions(tmp_path: Path, config: dict[str, Any], length: int) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer())
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 128}')
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_tokenizer(tmp_path)
    assert found.preprocess(max_length=None, stride=None, pair=False).max_length == length
    if length < 128:
        with pytest.raises(InvalidInput, match=f"max_length=100: the model has positions for {length} tokens"):
            found.preprocess(max_length=100, stride=None, pair=False)


def test_what_is_no_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"does not exist; give it, or the folder"):
        read_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\n")
    with pytest.raises(InvalidInput, match="AutoTokenizer"):
        read_tokenizer(tmp_path)
    for data in (b"", b"{}", b"\xff", b'{"model": {}}'):
        with pytest.raises(InvalidInput, match=r"no tokenizer\.json"):
            read_tokenizer(data)


def test_another_tokenizer_than_the_one_that_is_named() -> None:
    made = encoding()
    with pytest.raises(InvalidInput, match="was expected"):
        TextEncoder(made.preprocess, tokenizer("roberta"))
    written = json.loads(tokenizer())
    single = written["post_processor"]["single"]
    written["post_processor"]["single"] = [single[0]] * 5 + single[1:]
    data = json.dumps(written).encode()
    with pytest.raises(InvalidInput, match="leave room"):
        TextEncoder(read_tokenizer(data).preprocess(max_length=8, stride=0, pair=False), data)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[text\]'"):
        read_tokenizer(tokenizer())


@pytest.mark.parametrize("wrong", [3, None, ("a", "b"), b"a", "\ud800 half"])
def test_what_is_no_text_is_told(wrong: Any) -> None:
    with pytest.raises(InvalidData, match="text 2 "):
        encoding().rows(["a", wrong])
    with pytest.raises(InvalidData, match="text 1 "):
        encoding(pair=True).rows(["alone"])


def test_a_text_of_no_token_and_one_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidData, match="no token"):
        encoding("none").rows([""])
    monkeypatch.setattr(encoder, "LONGEST_TEXT", 10)
    with pytest.raises(InvalidData, match="in parts"):
        encoding().rows(["x" * 11])


ANY = st.text(st.characters(exclude_categories=()), max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.lists(ANY, min_size=1, max_size=4))
@example(["good " * 20_000])
@example(["x" * 100_000])
@example(["\u0301" * 50, "\U0010ffff", "\0", "ﷺ" * 30])
def test_any_text_gives_rows_or_a_clear_error(texts: list[str]) -> None:
    made = encoding()
    try:
        rows = made.rows(texts)
    except InvalidData as error:
        assert "surrogate" in str(error)
        return
    assert set(rows.sample.tolist()) == set(range(len(texts)))
    assert rows.lengths.min() > 0 and rows.lengths.max() <= 12
    assert rows.ids.min() >= 0 and rows.ids.max() < len(VOCABULARY)
    fed = rows.inputs(np.arange(len(rows)), made.preprocess)
    assert int(fed["attention_mask"].sum()) == len(rows.ids)
