"""What tasks on texts share: a data set with its tokenizer, the rows of ids that it comes to, and splits of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgewise.data.text import source as sources
from edgewise.data.text.dataset import TextDataset, prepare
from edgewise.data.text.encoder import TextEncoder, read_tokenizer
from edgewise.data.text.preprocess import TOKENIZER, TextPreprocess
from edgewise.data.text.rows import Rows
from edgewise.data.text.source import TextSource
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.types import Signature

_MOST_TEXTS = 1 << 20  # that an example is made of
# Token ids in, and what else encoders take: how a model may call them, in parts of names.
_NAMES = {"mask": ("mask",), "types": ("type", "segment")}


@dataclass(frozen=True, eq=False)
class Texts:
    """tokenizer: the bytes of tokenizer.json. tokens: lengths that are timed, of which the first is an example's.

    apart: both texts of a pair are fed on their own.
    """

    dataset: TextDataset
    preprocess: TextPreprocess
    tokenizer: bytes
    tokens: tuple[int, ...]
    apart: bool = False
    kept: dict[bytes, Rows] = field(default_factory=dict)  # rows by the indices of their samples: texts are encoded once

    @cached_property
    def encoder(self) -> TextEncoder:
        return TextEncoder(self.preprocess, self.tokenizer)

    @property
    def files(self) -> dict[str, bytes]:
        """What a package needs besides `preprocess`."""
        return {TOKENIZER: self.tokenizer}

    def rows(self, indices: np.ndarray) -> Rows:
        """Of these samples, encoded when they are first asked for. Where `apart`, a sample's texts are two that follow each other."""
        name = hashlib.sha256(indices.tobytes()).digest()
        if name not in self.kept:
            texts: Any = self.dataset.texts(indices)
            self.kept[name] = self.encoder.rows([text for pair in texts for text in pair] if self.apart and self.dataset.second else texts)
        return self.kept[name]

    def examples(self, n: int, tokens: int | None = None) -> dict[str, np.ndarray]:
        """`n` rows of exactly `tokens` tokens: texts that calibrate, one after the other, cut where a row is full."""
        length = self.preprocess.pad_to or tokens or min(self.tokens[0], self.preprocess.max_length)
        if tokens is not None and tokens != length:
            raise InvalidInput(f"tokens={tokens}: the model takes rows of {length}")
        if length > self.preprocess.max_length:
            raise InvalidInput(f"tokens={length}: rows have at most {self.preprocess.max_length} (max_length)")
        encoder = TextEncoder(replace(self.preprocess, max_length=length, stride=0), self.tokenizer)
        parts, count = self.dataset.parts["calibration"], n
        while True:
            texts: Any = self.dataset.texts(np.resize(parts, count))
            if self.dataset.second is not None and not self.preprocess.pair:
                texts = [text for pair in texts for text in pair]
            joined: Any = tuple(" ".join(side) for side in zip(*texts, strict=True)) if self.preprocess.pair else " ".join(texts)
            rows = encoder.rows([joined])
            full = np.flatnonzero(rows.lengths == length)
            if len(full) >= n:
                return rows.inputs(full[:n], encoder.preprocess)
            if count > _MOST_TEXTS:
                raise InvalidData(f"{self.dataset.name}: its texts come to no row of {length} tokens; give other texts")
            count *= 2

    def for_model(self, signature: Signature) -> Texts:
        """The same as a model of this signature takes it. Raises InvalidModel for inputs that no text gives."""
        preprocess = bound_inputs(self.preprocess, signature)
        same = (preprocess.max_length, preprocess.stride) == (self.preprocess.max_length, self.preprocess.stride)
        return replace(self, preprocess=preprocess, kept=self.kept if same else {})

    def with_input(self, name: str) -> Texts:
        return replace(self, preprocess=replace(self.preprocess, ids=name))

    def fingerprint(self, *more: str) -> str:
        """SHA-256 over texts, targets, splits, preprocessing and `more`; names of inputs follow from the model."""
        plain = replace(self.preprocess, ids="ids", mask="mask", types="")
        told = msgspec.json.encode(plain, order="deterministic") + repr((self.tokens, *more)).encode()
        return hashlib.sha256(self.dataset.fingerprint.encode() + told).hexdigest()


def bound_inputs(preprocess: TextPreprocess, signature: Signature) -> TextPreprocess:
    """`preprocess` under the model's names for its inputs, in its integers, and of its length where it fixes one."""
    given = ", ".join(f"{spec.name}: {spec.dtype} {spec.shape}" for spec in signature.inputs)
    wrong = f"the model takes {given}; a text is fed as int64 or int32 (batch, tokens): ids, and a mask and types where they are called so"
    kinds = {spec.dtype for spec in signature.inputs}
    lengths = {spec.shape[1] for spec in signature.inputs if len(spec.shape) == 2}
    if any(len(spec.shape) != 2 for spec in signature.inputs) or len(kinds) != 1 or not kinds <= {"int64", "int32"} or len(lengths) != 1:
        raise InvalidModel(wrong)
    found = {}
    left = [spec.name for spec in signature.inputs]
    for what, parts in _NAMES.items():
        alike = [name for name in left if any(part in name.lower() for part in parts)]
        if len(alike) > 1:
            raise InvalidModel(wrong)
        found[what] = alike[0] if alike else ""
        left = [name for name in left if name not in alike]
    if len(left) != 1:
        raise InvalidModel(wrong)
    (length,) = lengths
    dtype: Any = next(iter(kinds))
    changed = replace(preprocess, ids=left[0], mask=found["mask"], types=found["types"], dtype=dtype)
    if isinstance(length, str):
        return changed
    most = min(length, preprocess.max_length)
    return replace(changed, max_length=most, stride=min(preprocess.stride, most // 2), pad_to=length)


def read(
    path: str | Path | TextSource | None,
    goal: sources.Goal,
    *,
    tokenizer: str | Path | bytes | None,
    train: str | Path | None,
    eval: str | Path | None,
    as_test: Sequence[str],
    text_columns: Sequence[str],
    max_length: int | None,
    stride: int | None,
    tokens: Sequence[int],
    validation: float,
    test: float,
    calibration: int,
    seed: int,
    label_column: str = "",
    labels: Sequence[str] = (),
    apart: bool = False,
) -> Texts:
    """Texts and tokenizer, as every task on texts is given them. Raises InvalidInput, InvalidData."""
    if (path is None) == (train is None) or (eval is not None and train is None):
        raise InvalidInput(f"path={path}, train={train}, eval={eval}: give one path, or train, with eval if there is such a file")
    if tokenizer is None:
        raise InvalidInput("tokenizer is missing: give the model's tokenizer.json, or the folder that holds it")
    where: Any = path if path is not None else {"train": train} | ({"test": eval} if eval is not None else {})
    if not tokens:
        raise InvalidInput("tokens is empty; give the lengths that are to be timed, as 32,128")
    found = read_tokenizer(tokenizer)
    source = sources.load(where, goal, text_columns=text_columns, label_column=label_column, labels=labels, as_test=as_test)
    dataset = prepare(source, validation=validation, test=test, calibration=calibration, seed=seed)
    pair = source.second is not None and not apart
    return Texts(dataset, found.preprocess(max_length=max_length, stride=stride, pair=pair), found.data, tuple(tokens), apart)
