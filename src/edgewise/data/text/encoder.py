"""Texts to token ids, by the `tokenizers` library: the same ids as transformers gives, and long texts in windows instead of cut off."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgewise import registry
from edgewise.data.text.preprocess import LONGEST, SHORTEST, TOKENIZER, TextPreprocess
from edgewise.data.text.rows import Rows
from edgewise.errors import InvalidData, InvalidInput

LONGEST_TEXT = 1 << 24  # characters
_SLOW = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")  # what transformers' slow tokenizers have
_BEHIND_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # models that count positions from one after the padding's id on
# Tokenizers of transformers that make their normalizer anew, by these settings of tokenizer_config.json.
_OWN_SPELLING = ("Bert", "DistilBert", "Electra", "MPNet")
_SPELLING = {"do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "handle_chinese_chars"}
_AT_ONCE = 1024  # texts; what the library gives for one takes some hundred bytes a token


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer's template puts around one text, or two: ids before, between and behind, with the types of all."""

    before: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int], ...]
    behind: tuple[tuple[int, int], ...]
    types: tuple[int, int]

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.behind)


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """`preprocess` with the tokenizer that it names. tokenizer: the bytes of the tokenizer.json.

    Raises InvalidInput when that is another file than `preprocess` names, or none that the library reads; MissingExtra without it.
    """

    preprocess: TextPreprocess
    tokenizer: bytes

    def __post_init__(self) -> None:
        found = hashlib.sha256(self.tokenizer).hexdigest()
        if found != self.preprocess.tokenizer:
            raise InvalidInput(f"the tokenizer has the SHA-256 {found[:16]}…, and {self.preprocess.tokenizer[:16]}… was expected")
        if self._frame.size + 4 > self.preprocess.max_length:
            raise InvalidInput(
                f"max_length={self.preprocess.max_length}: the tokenizer adds {self._frame.size} tokens; leave room for text"
            )

    @cached_property
    def _library(self) -> Any:
        registry.need("tokenizers")
        return opened(self.tokenizer)

    def rows(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> Rows:
        """The rows of `texts` (pairs where `preprocess.pair`): one for each, and more for those that are too long.

        A long text's windows overlap by `stride` tokens. Of a pair, the text that fits into half of the room stays whole in every window
        of the other; where neither does, both are cut into windows of half the room, which go on side by side.
        Raises InvalidData for what is no text, or longer than `LONGEST_TEXT`.
        """
        ids: list[np.ndarray] = []
        types: list[np.ndarray] = []
        spans: list[np.ndarray] = []
        sample: list[int] = []
        for start in range(0, len(texts), _AT_ONCE):
            chunk = list(texts[start : start + _AT_ONCE])
            for place, encoding in enumerate(self._encoded(chunk, start)):
                if not encoding.ids:
                    raise InvalidData(f"text {start + place + 1} ({str(chunk[place])[:40]!r}) comes to no token; leave it out")
                if len(encoding.ids) <= self.preprocess.max_length:
                    found = [self._whole(encoding)]
                else:
                    found = self._windows(chunk[place])
                for row in found:
                    ids.append(row[0])
                    types.append(row[1])
                    spans.append(row[2])
                    sample.append(start + place)
        return Rows(
            np.concatenate([np.zeros(0, np.int32), *ids]),
            np.concatenate([np.zeros(0, np.int8), *types]),
            np.concatenate([np.zeros((0, 2), np.int32), *spans]),
            np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)]).astype(np.int64),
            np.array(sample, np.int64),
        )

    def _encoded(self, chunk: list[Any], first: int) -> list[Any]:
        for place, text in enumerate(chunk):
            _check(text, self.preprocess.pair, first + place)
        try:
            return list(self._library.encode_batch(chunk))
        except Exception as error:  # the library raises bare ones
            raise InvalidData(f"the tokenizer can't encode texts {first + 1} to {first + len(chunk)}: {error}") from error

    def _whole(self, encoding: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
        looked_through = int(self.preprocess.pair)
        spans[[sequence != looked_through for sequence in encoding.sequence_ids]] = -1
        return np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int8), spans

    def _windows(self, text: Any) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        texts = text if self.preprocess.pair else (text,)
        parts = [self._library.encode(each, add_special_tokens=False) for each in texts]
        ids = [np.array(part.ids, np.int32) for part in parts]
        spans = [np.array(part.offsets, np.int32).reshape(-1, 2) for part in parts]
        room = self.preprocess.max_length - self._frame.size
        if not self.preprocess.pair:
            return [self._framed([ids[0][cut]], [spans[0][cut]]) for cut in self._cuts(len(ids[0]), room)]
        half = room // 2
        if len(ids[0]) <= half:
            rooms = len(ids[0]), room - len(ids[0])
        elif len(ids[1]) <= half:
            rooms = room - len(ids[1]), len(ids[1])
        else:
            rooms = half, room - half
        left, right = (self._cuts(len(ids[i]), rooms[i]) for i in (0, 1))
        count = max(len(left), len(right))
        rows = []
        for i in range(count):
            a, b = left[i * len(left) // count], right[i * len(right) // count]
            rows.append(self._framed([ids[0][a], ids[1][b]], [np.full_like(spans[0][a], -1), spans[1][b]]))
        return rows

    def _cuts(self, length: int, room: int) -> list[slice]:
        """Windows of `room` tokens, each beginning `stride` tokens (at most half) before the one before it ends."""
        step = room - min(self.preprocess.stride, room // 2)
        return [slice(at, at + room) for at in range(0, max(length - room, 0) + step, step)] if length > room else [slice(0, length)]

    def _framed(self, ids: list[np.ndarray], spans: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frame = self._frame
        added = [frame.before, frame.between, frame.behind] if len(ids) == 2 else [frame.before, frame.behind]
        pieces: list[tuple[Any, Any, Any]] = []
        for place, special in enumerate(added):
            pieces.append(([one for one, _ in special], [kind for _, kind in special], np.full((len(special), 2), -1)))
            if place < len(ids):
                pieces.append((ids[place], np.full(len(ids[place]), frame.types[place]), spans[place]))
        return (
            np.concatenate([np.asarray(piece[0], np.int32) for piece in pieces]),
            np.concatenate([np.asarray(piece[1], np.int8) for piece in pieces]),
            np.concatenate([np.asarray(piece[2], np.int32).reshape(-1, 2) for piece in pieces]),
        )

    @cached_property
    def _frame(self) -> _Frame:
        """Read off one short text, or pair of such: whatever template the tokenizer has."""
        word = next((word for word in ("a", "the", "1", ".") if self._library.encode(word, add_special_tokens=False).ids), None)
        if word is None:
            raise InvalidInput("the tokenizer gives no token for any plain word; check that it is the model's")
        whole = self._library.encode(word, word) if self.preprocess.pair else self._library.encode(word)
        special: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
        types = [0, 0]
        place = 0
        for token, kind, sequence in zip(whole.ids, whole.type_ids, whole.sequence_ids, strict=True):
            if sequence is None:
                special[place].append((token, kind))
            else:
                types[sequence], place = kind, sequence + 1
        last = 2 if self.preprocess.pair else 1
        return _Frame(tuple(special[0]), tuple(special[1] if last == 2 else ()), tuple(special[last]), (types[0], types[1]))


def opened(data: bytes) -> Any:
    """The library's tokenizer, without the truncation and padding that the file may ask for. Raises InvalidInput, MissingExtra."""
    registry.need("tokenizers")
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare ones
        raise InvalidInput(
            f"no tokenizer.json that the library reads ({str(error)[:200]}); is `tokenizers` as new as what wrote it?"
        ) from error
    found.no_truncation()
    found.no_padding()
    return found


def _check(text: Any, pair: bool, place: int) -> None:
    texts = text if pair and isinstance(text, tuple) and len(text) == 2 else (text,)
    if len(texts) != 1 + pair or not all(isinstance(each, str) for each in texts):
        raise InvalidData(f"text {place + 1} is {str(text)[:80]!r}; give {'a pair of texts' if pair else 'one text'}")
    for each in texts:
        if len(each) > LONGEST_TEXT:
            raise InvalidData(f"text {place + 1} has {len(each):,} characters, over {LONGEST_TEXT:,}; give it in parts")
        try:
            each.encode()
        except UnicodeEncodeError as error:
            raise InvalidData(f"text {place + 1} has half of a surrogate pair at character {error.start}, which is no text") from error


@dataclass(frozen=True)
class Found:
    """A tokenizer on disk: its bytes, and what its files say of how it is used."""

    data: bytes
    max_length: int
    pad_id: int
    most: int = LONGEST  # tokens that the model beside it has positions for

    def preprocess(self, *, max_length: int | None, stride: int | None, pair: bool) -> TextPreprocess:
        """Raises InvalidInput for rows that are longer than the model takes: some engines would answer, and wrongly."""
        longest = max_length or self.max_length
        if longest > self.most:
            raise InvalidInput(f"max_length={longest}: the model has positions for {self.most} tokens; a longer text goes in windows")
        digest = hashlib.sha256(self.data).hexdigest()
        return TextPreprocess(digest, longest, longest // 4 if stride is None else stride, pad_id=self.pad_id, pair=pair)


def read_tokenizer(where: str | Path | bytes) -> Found:
    """A tokenizer.json (or its bytes), or the folder with it.

    Its length is what tokenizer_config.json beside it says, else 512; no more than the positions of a model whose config.json lies there.
    Raises InvalidInput where there is none that the library reads.
    """
    if isinstance(where, bytes):
        return _found(where, {}, LONGEST)
    path = Path(where)
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        slow = path.is_dir() and any((path / name).exists() for name in _SLOW)
        hint = "save it once more with transformers' AutoTokenizer, which writes one" if slow else "give it, or the folder that holds it"
        raise InvalidInput(f"{file} does not exist; {hint}")
    return _found(file.read_bytes(), _config(file.parent / "tokenizer_config.json"), _positions(_config(file.parent / "config.json")))


def _found(data: bytes, config: dict[str, Any], most: int) -> Found:
    library = opened(data)
    written = msgspec.json.decode(data)
    said = config.get("model_max_length")
    length = int(said) if isinstance(said, int | float) and SHORTEST <= said <= LONGEST else 512
    padding = written.get("padding") or {}
    named = next((found for name in ("[PAD]", "<pad>", "<|pad|>") if (found := library.token_to_id(name)) is not None), 0)
    return Found(_spelled(data, written, config), min(length, most), int(padding.get("pad_id", named)), most)


def _spelled(data: bytes, written: dict[str, Any], config: dict[str, Any]) -> bytes:
    """`data` with what tokenizer_config.json says of case, accents and Chinese, where its class goes by that and not by the file."""
    normalizer = written.get("normalizer") or {}
    own = str(config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    if own not in _OWN_SPELLING or normalizer.get("type") != "BertNormalizer":
        return data
    said = {ours: config[theirs] for theirs, ours in _SPELLING.items() if config.get(theirs) in (True, False)}
    if all(normalizer.get(name) == value for name, value in said.items()):
        return data
    return msgspec.json.encode({**written, "normalizer": {**normalizer, **said}})


def _positions(model: dict[str, Any]) -> int:
    """Of a config.json: the most tokens of a row; LONGEST where it doesn't say."""
    found, padding = model.get("max_position_embeddings"), model.get("pad_token_id")
    if not isinstance(found, int):
        return LONGEST
    if model.get("model_type") in _BEHIND_PADDING:
        found -= 1 + (padding if isinstance(padding, int) else 1)
    return found if SHORTEST <= found <= LONGEST else LONGEST


def _config(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}
