"""A tokenizer of a hundred words, texts made of them, and models that read them, small enough to be computed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto

from edgewise.testing import graphs

GOOD = ("good", "fine", "warm", "bright", "funny")
BAD = ("bad", "dull", "cold", "grim", "slow")
OTHER = ("the", "a", "film", "is", "was", "story", "and", "of", "it", "very", "who", "made", "this", "in", "river", "town", "old", "house")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = tuple(
    dict.fromkeys((*SPECIAL, *GOOD, *BAD, *OTHER, *".,!?'-", *LETTERS, *(f"##{letter}" for letter in LETTERS)))
)  # "a" is a word and a letter


def tokenizer(template: Literal["bert", "roberta", "none"] = "bert", *, padded: bool = False) -> bytes:
    """A WordPiece tokenizer.json: words of VOCABULARY, letters for the rest of ASCII. template: what is put around one text, or two.

    padded: it asks for truncation and padding to 16, as files of sentence encoders do.
    """
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    first, last = ids["[CLS]"], ids["[SEP]"]
    special = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("[CLS]", first), ("[SEP]", last))}

    def token(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    bert = {
        "type": "TemplateProcessing",
        "single": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
        "pair": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)],
        "special_tokens": special,
    }
    roberta = {
        "type": "RobertaProcessing",
        "sep": ["[SEP]", last],
        "cls": ["[CLS]", first],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    cut = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    filled = {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    written = {
        "version": "1.0",
        "truncation": cut if padded else None,
        "padding": filled if padded else None,
        "added_tokens": [{"id": ids[name], "content": name, **added} for name in SPECIAL],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"bert": bert, "roberta": roberta, "none": None}[template],
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids,
        },
    }  # fmt: skip
    return msgspec.json.encode(written)


def sentences(n: int, seed: int = 0, words: tuple[int, int] = (3, 12)) -> tuple[list[str], np.ndarray]:
    """`n` different texts of so many words, and whether more of their words are in GOOD (1) or in BAD (0): never as many."""
    generator = np.random.default_rng(seed)
    texts: dict[str, int] = {}
    while len(texts) < n:
        label = int(generator.integers(2))
        said = [str(generator.choice(OTHER)) for _ in range(int(generator.integers(*words)))]
        said[int(generator.integers(len(said)))] = str(generator.choice((BAD, GOOD)[label]))
        texts[" ".join(said) + str(generator.choice([" .", " !", ""]))] = label
    return list(texts), np.array(list(texts.values()), np.int64)


def embedding(width: int, seed: int = 0) -> np.ndarray:
    """(words, width) float32, whose last two numbers are large for words of BAD and of GOOD."""
    table = np.random.default_rng(seed).standard_normal((len(VOCABULARY), width), dtype=np.float32) / 4
    table[:, -2:] = 0
    for column, words in ((-2, BAD), (-1, GOOD)):
        table[[VOCABULARY.index(word) for word in words], column] = 8
    return table


def model(
    gives: Literal["logits", "number", "vector", "span"] = "logits",
    *,
    width: int = 8,
    types: bool = False,
    shape: Sequence[int | str] = ("batch", "tokens"),
    names: Mapping[str, str] | None = None,
    seed: int = 0,
) -> onnx.ModelProto:
    """input_ids and attention_mask -> the mean of the tokens' `embedding`s, and of that

    logits (batch, 2): its last two numbers; number (batch, 1): the last less the one before; vector (batch, width): itself.
    span: logits (batch, tokens, 2) of each token, without any mean.
    types: takes token_type_ids too, and adds 1 to the first number of tokens of type 1. names: other names for inputs.
    """
    table = embedding(width, seed)
    head = {
        "logits": np.eye(width, dtype=np.float32)[:, -2:],
        "number": np.array([[0.0]] * (width - 2) + [[-1.0], [1.0]], np.float32),
        "vector": np.eye(width, dtype=np.float32),
        "span": np.eye(width, dtype=np.float32)[:, -2:],
    }[gives]
    called = {name: (names or {}).get(name, name) for name in ("input_ids", "attention_mask", "token_type_ids")}
    taken = list(called.values())[: 3 if types else 2]
    nodes: list[graphs.Node] = [("Gather", ["table", called["input_ids"]], ["e0"])]
    if types:
        nodes += [
            ("Cast", [called["token_type_ids"]], ["t"], {"to": 1}),
            ("Unsqueeze", ["t", "last"], ["t1"]),
            ("Mul", ["t1", "one"], ["t2"]),
            ("Add", ["e0", "t2"], ["e"]),
        ]
    else:
        nodes.append(("Identity", ["e0"], ["e"]))
    nodes += [("Cast", [called["attention_mask"]], ["m0"], {"to": 1}), ("Unsqueeze", ["m0", "last"], ["m"]), ("Mul", ["e", "m"], ["em"])]
    if gives == "span":
        nodes.append(("MatMul", ["em", "head"], ["logits"]))
    else:
        nodes += [
            ("ReduceSum", ["em", "middle"], ["s"], {"keepdims": 0}),
            ("ReduceSum", ["m", "middle"], ["n"], {"keepdims": 0}),
            ("Div", ["s", "n"], ["mean"]),
            ("MatMul", ["mean", "head"], ["logits"]),
        ]
    weights = {"table": table, "head": head, "last": np.array([-1]), "middle": np.array([1]), "one": np.eye(1, width, dtype=np.float32)[0]}
    used = {name for node in nodes for name in node[1]}
    given = (shape[0], shape[1], 2) if gives == "span" else (shape[0], head.shape[1])
    return graphs.build(
        nodes,
        {name: tuple(shape) for name in taken},
        {"logits": given},
        {name: array for name, array in weights.items() if name in used},
        types=dict.fromkeys(taken, TensorProto.INT64),
    )
