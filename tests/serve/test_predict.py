"""Pictures and texts in, labels out, by the package's own preprocessing."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgewise.data.postprocess import Classify, Embed, Extract, Regress
from edgewise.data.preprocess import ImagePreprocess
from edgewise.data.text.preprocess import TOKENIZER, TextPreprocess
from edgewise.serve.access import Gate
from edgewise.serve.rest import Rest, Served
from edgewise.testing.hosts import FakeHost, FakeModel
from edgewise.types import Signature, TensorSpec

from .exchanges import Client

pytest.importorskip("tokenizers")
from edgewise.testing import texts

PICTURE = ImagePreprocess((4, 4), 1, (0.0,), (1.0,))


def client_of(model: FakeModel) -> Client:
    return Client(Rest(Served(FakeHost({"m": model}), Gate(None))))


def pictures(post: Any = None) -> Client:
    """Its two outputs are the mean of the picture and what is left of 1."""
    signature = Signature((TensorSpec("image", ("batch", 1, 4, 4), "float32"),), (TensorSpec("logits", ("batch", 2), "float32"),))

    def answer(inputs: Any) -> Any:
        bright = inputs["image"].mean(axis=(1, 2, 3))
        return {"logits": np.stack([bright, 1 - bright], 1).astype(np.float32)}

    return client_of(FakeModel(signature, answer, described={"preprocess": PICTURE, "postprocess": post}))


def encoded(grey: int, form: str) -> bytes:
    out = io.BytesIO()
    Image.new("L", (9, 9), grey).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize(("form", "kind"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_picture_gets_labels(form: str, kind: str) -> None:
    client = pictures(Classify(("bright", "dark"), output="probabilities"))
    for grey, label in ((250, "bright"), (3, "dark")):
        found = client.post("/v2/models/m/predict?top=1", encoded(grey, form), content_type=kind).json
        ((best,),) = [each["labels"] for each in found["predictions"]]
        assert best["label"] == label and best["score"] > 0.9 and found["model_name"] == "m"
    both = client.post("/v2/models/m/predict", encoded(3, form), content_type=kind).json["predictions"][0]["labels"]
    assert [each["label"] for each in both] == ["dark", "bright"]


def test_pictures_without_labels() -> None:
    body = encoded(255, "PNG")
    assert pictures().post("/v2/models/m/predict", body, content_type="image/png").json["predictions"] == [{"outputs": [1.0, 0.0]}]
    embedded = pictures(Embed()).post("/v2/models/m/predict", body, content_type="image/png").json["predictions"]
    assert embedded == [{"embedding": [1.0, 0.0]}]


def test_what_is_no_picture() -> None:
    client = pictures(Classify(("a", "b")))
    for body in (b"", b"nonsense", encoded(3, "PNG")[:-20], b"\x89PNG\r\n\x1a\n" + bytes(40)):
        assert client.post("/v2/models/m/predict", body, content_type="image/png").status == 400
    for kind in ("text/plain", "", "image/svg+xml"):
        assert client.post("/v2/models/m/predict", encoded(3, "PNG"), content_type=kind).status == 415
    for query in ("top=0", "top=x", "top=1001", "timeout=-1"):
        assert client.post(f"/v2/models/m/predict?{query}", encoded(3, "PNG"), content_type="image/png").status == 400
    huge = io.BytesIO()
    Image.new("1", (5000, 5000)).save(huge, "PNG")  # few bytes, many pixels
    assert client.post("/v2/models/m/predict", huge.getvalue(), content_type="image/png").status == 400


def sentences(post: Any, *, pair: bool = False, shape: tuple[int | str, ...] = ("batch", 2)) -> Client:
    """Its outputs tell how long a row is."""
    data = texts.tokenizer()
    preprocess = TextPreprocess(hashlib.sha256(data).hexdigest(), max_length=16, stride=4, pair=pair)
    names = ("input_ids", "attention_mask")
    signature = Signature(tuple(TensorSpec(name, ("batch", "tokens"), "int64") for name in names), (TensorSpec("out", shape, "float32"),))

    def answer(inputs: Any) -> Any:
        ids = inputs["input_ids"].astype(np.float32)
        if len(shape) == 3:
            return {"out": np.stack([ids, -ids], -1)}
        total = inputs["attention_mask"].sum(1).astype(np.float32)
        return {"out": np.stack([total, -total], 1)[:, : shape[1]]}  # type: ignore[misc]

    return client_of(FakeModel(signature, answer, described={"preprocess": preprocess, "postprocess": post, "files": {TOKENIZER: data}}))


def test_a_sentence_gets_labels() -> None:
    client = sentences(Classify(("long", "short")))
    found = client.post("/v2/models/m/predict?top=1", b"a b", content_type="text/plain; charset=utf-8")
    assert found.json["predictions"][0]["labels"][0]["label"] == "long"
    several = client.post("/v2/models/m/predict", {"text": ["a", "b c", "a " * 60]}, content_type="application/json").json["predictions"]
    assert len(several) == 3 and all(len(each["labels"]) == 2 for each in several)


def test_other_answers_of_texts() -> None:
    assert isinstance(sentences(Regress(), shape=("batch", 1)).post("/v2/models/m/predict", b"a", content_type="text/plain")
                      .json["predictions"][0]["value"], float)  # fmt: skip
    assert len(sentences(Embed()).post("/v2/models/m/predict", b"a", content_type="text/plain").json["predictions"][0]["embedding"]) == 2
    client = sentences(Extract(), pair=True, shape=("batch", "tokens", 2))
    found = client.post("/v2/models/m/predict", {"text": "a", "pair": "b c d"}, content_type="application/json")
    assert set(found.json["predictions"][0]["answer"]) == {"text", "start", "score"}
    assert client.post("/v2/models/m/predict", b"a\tb c d", content_type="text/plain").json == found.json
    for wrong in ({"text": "a"}, {"text": ["a", "b"], "pair": ["c"]}):
        assert client.post("/v2/models/m/predict", wrong, content_type="application/json").status == 400
    assert client.post("/v2/models/m/predict", b"no tab", content_type="text/plain").status == 400


def test_what_is_no_text() -> None:
    client = sentences(Classify(("a", "b")))
    for body in (b"\xff", b""):
        assert client.post("/v2/models/m/predict", body, content_type="text/plain").status in (200, 400)
    for wrong in ({"text": 3}, {"text": []}, {"text": ["a"] * 65}, {}, {"text": "a", "pair": "b"}, {"text": "a", "more": 1}, "[", b"{"):
        assert client.post("/v2/models/m/predict", wrong, content_type="application/json").status == 400
    assert client.post("/v2/models/m/predict", b"a", content_type="image/png").status == 415


def test_a_model_without_preprocessing_takes_tensors_alone() -> None:
    model = FakeModel(Signature((TensorSpec("x", (1,), "float32"),), (TensorSpec("y", (1,), "float32"),)))
    found = client_of(model).post("/v2/models/m/predict", b"a", content_type="text/plain")
    assert found.status == 415 and "infer" in found.error
