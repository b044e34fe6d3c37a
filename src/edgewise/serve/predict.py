"""A picture or a sentence in, labels out: the package's own pre- and postprocessing (`edgewise.data`) around a host's inference."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from edgewise.data.postprocess import Classify, Embed, Extract, Regress
from edgewise.data.preprocess import ImagePreprocess
from edgewise.data.text.preprocess import TOKENIZER, TextPreprocess
from edgewise.errors import InvalidData, InvalidInput, InvalidPackage
from edgewise.host import Answer, Description, Request
from edgewise.serve.problems import Unsupported

PICTURES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")
MOST_TEXTS = 64
MOST_PIXELS = 2**24  # decoding one takes some ten bytes a pixel
Infer = Callable[[Request], Awaitable[Answer]]


class _Texts(msgspec.Struct, forbid_unknown_fields=True):
    """text: one, or several. pair: the second text of each, where the model takes pairs (of a question its context)."""

    text: str | list[str]
    pair: str | list[str] | None = None


async def predict(model: Description, kind: str, body: bytes, top: int, ask: Infer, request: Request) -> dict[str, Any]:
    """The answer as JSON data: one of `predictions` for each input. kind: the body's content type. request: as a template.

    Raises Unsupported for a type that this model doesn't take, InvalidInput for a body that isn't what it says.
    """
    kind = kind.partition(";")[0].strip().lower()
    head = {"model_name": model.name, "model_version": model.version}
    if isinstance(model.preprocess, ImagePreprocess):
        if kind not in PICTURES:
            raise Unsupported(f"model {model.name} takes a picture; send its bytes as {' or '.join(PICTURES[:2])}, not {kind or 'nothing'}")
        # Decoding takes longer than many a model: in a thread, where other requests go on.
        pixels = await asyncio.to_thread(_fed, model.preprocess, body)
        found = await ask(replace(request, inputs={model.signature.inputs[0].name: pixels}))
        return head | {"predictions": _pictures(model, found, top)}
    if isinstance(model.preprocess, TextPreprocess):
        if kind not in ("text/plain", "application/json"):
            raise Unsupported(f'model {model.name} takes text; send it as text/plain, or as application/json: {{"text": "…"}}')
        texts = _texts(kind, body, model.preprocess.pair)
        return head | {"predictions": await _on_texts(model, model.preprocess, texts, top, ask, request)}
    raise Unsupported(f"model {model.name} says nothing of pictures or texts; send tensors to …/infer")


def _fed(preprocess: ImagePreprocess, body: bytes) -> np.ndarray:
    from edgewise.data.picture import read_picture

    return preprocess.apply(read_picture(body, max_pixels=MOST_PIXELS))[None]


def _pictures(model: Description, found: Answer, top: int) -> list[Any]:
    outputs = next(iter(found.outputs.values()))
    match model.postprocess:
        case Classify():
            samples = replace(model.postprocess, top=top).apply(outputs)
            return [{"labels": [prediction._asdict() for prediction in sample]} for sample in samples]
        case Regress():
            return [{"value": value} for value in model.postprocess.apply(outputs)]
        case Embed():
            return [{"embedding": vector.tolist()} for vector in model.postprocess.apply(outputs)]
    return [{"outputs": values.tolist()} for values in outputs]


def _texts(kind: str, body: bytes, pair: bool) -> list[Any]:
    try:
        if kind == "text/plain":
            if pair:
                first, there, second = body.decode().partition("\t")
                if not there:
                    raise InvalidInput('this model takes two texts: put a tab between them, or send {"text": "…", "pair": "…"}')
                return [(first, second)]
            return [body.decode()]
        given = msgspec.json.decode(body, type=_Texts)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the text is not UTF-8 (byte {error.start})") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidInput(f'the body is not {{"text": "…"}}: {error}') from error
    texts = [given.text] if isinstance(given.text, str) else given.text
    if not 0 < len(texts) <= MOST_TEXTS:
        raise InvalidInput(f"{len(texts)} texts: give 1 to {MOST_TEXTS} at a time")
    if not pair:
        if given.pair is not None:
            raise InvalidInput("this model takes one text, and no pair")
        return list(texts)
    seconds = [given.pair] if isinstance(given.pair, str) else given.pair
    if seconds is None or len(seconds) != len(texts):
        raise InvalidInput('this model takes two texts: give as many of "pair" as of "text"')
    return list(zip(texts, seconds, strict=True))


async def _on_texts(
    model: Description, preprocess: TextPreprocess, texts: Sequence[Any], top: int, ask: Infer, request: Request
) -> list[Any]:
    """Row by row, all at once: the host puts together what may share a call, and nothing else."""
    from edgewise.data.text import windows

    tokenizer = model.files.get(TOKENIZER)
    if tokenizer is None:
        raise InvalidPackage(f"{model.name} says how texts are fed, and has no {TOKENIZER}; pack it again")
    encoder = _encoder(preprocess, tokenizer)
    rows = await asyncio.to_thread(encoder.rows, texts)
    fixed = next((spec.shape[0] for spec in model.signature.inputs if spec.shape and isinstance(spec.shape[0], int)), 1)
    output = model.signature.outputs[0].name
    requests = [replace(request, inputs=rows.inputs(np.full(fixed, row), preprocess), outputs=(output,)) for row in range(len(rows))]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(ask, each)) for each in requests]
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    outputs = [task.result().outputs[output][:1] for task in tasks]
    count, post = len(texts), model.postprocess
    match post:
        case Classify():
            samples = replace(post, top=top).apply(windows.mean(rows, outputs, count))
            return [{"labels": [prediction._asdict() for prediction in sample]} for sample in samples]
        case Regress():
            return [{"value": value} for value in post.apply(windows.mean(rows, outputs, count))]
        case Embed():
            return [{"embedding": vector.tolist()} for vector in post.apply(windows.weighted(rows, outputs, count))]
        case Extract():
            contexts = [text[1] for text in texts]
            return [{"answer": one._asdict()} for one in post.apply(windows.side_by_side(rows, outputs, count), rows, contexts)]
    return [{"outputs": values.tolist()} for values in windows.mean(rows, outputs, count)]


async def _one(ask: Infer, request: Request) -> Answer:
    return await ask(request)


@lru_cache(maxsize=8)
def _encoder(preprocess: TextPreprocess, tokenizer: bytes) -> Any:
    from edgewise.data.text import TextEncoder

    try:
        return TextEncoder(preprocess, tokenizer)
    except InvalidData:
        raise
    except InvalidInput as error:
        raise InvalidPackage(f"the package's tokenizer: {error}; pack it again") from error
