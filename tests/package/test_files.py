"""Files beside a model: a tokenizer travels with it, is hashed, coded and updated like all else, and takes no more room than it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise import package
from edgewise.data.postprocess import Embed, Extract, Regress
from edgewise.data.text import TextPreprocess
from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.package import minimal
from edgewise.testing.texts import tokenizer

from .conftest import CREATED, graph_of

PREPROCESS = TextPreprocess("0123456789abcdef" * 4, 64, 16)


def built(data: bytes = b"", **options: Any) -> package.Package:
    files = {"tokenizer.json": data or tokenizer()}
    return package.build(graph_of(), created=CREATED, preprocess=PREPROCESS, files=files, **options)


def test_it_comes_back_to_the_bit(tmp_path: Path) -> None:
    built().save(tmp_path / "a.edgew")
    opened = package.open(tmp_path / "a.edgew")
    assert opened.files == {"tokenizer.json": tokenizer()} and opened.preprocess == PREPROCESS
    member = opened.manifest.member("tokenizer.json")
    assert member.coding == "lzma" and member.length < len(tokenizer()) / 2
    assert built(coders="none").manifest.member("tokenizer.json").coding == "raw"
    assert built(b"short").files == {"tokenizer.json": b"short"}
    assert package.build(graph_of(), created=CREATED).files == {}


@pytest.mark.parametrize("post", [Regress(), Embed(normalize=False), Extract(nothing=True, longest=12)])
def test_answers_of_every_kind(tmp_path: Path, post: Any) -> None:
    built(postprocess=post).save(tmp_path / "a.edgew")
    assert package.open(tmp_path / "a.edgew").postprocess == post


def test_it_is_kept_by_what_makes_packages_of_packages(tmp_path: Path) -> None:
    one = built()
    for other in (package.recode(one, coders="none"), package.recode(one, coders="all"), package.restate(one, measured=None)):
        assert other.files == one.files
    other = built(tokenizer("roberta"), version=2)
    one.save(tmp_path / "one.edgew")
    other.save(tmp_path / "other.edgew")
    from edgewise.package import update

    update.save(package.diff(tmp_path / "one.edgew", tmp_path / "other.edgew"), tmp_path / "u.edgewd")
    assert package.patch(tmp_path / "one.edgew", tmp_path / "u.edgewd").content_id == other.content_id


def test_a_change_of_one_byte_is_found(tmp_path: Path) -> None:
    file = np.random.default_rng(0).bytes(100)  # nothing that could be coded
    one = built(file)
    one.save(tmp_path / "a.edgew")
    data = bytearray((tmp_path / "a.edgew").read_bytes())
    data[data.index(file)] ^= 1
    (tmp_path / "a.edgew").write_bytes(data)
    with pytest.raises(InvalidPackage, match="SHA-256"):
        package.open(tmp_path / "a.edgew")


def test_names_and_sizes_are_bounded(tmp_path: Path) -> None:
    for name in ("weights", "graphs/0.onnx"):
        with pytest.raises(InvalidInput, match="give it another name"):
            package.build(graph_of(), created=CREATED, files={name: b"x"})
    with pytest.raises(InvalidPackage, match="not allowed"):
        package.build(graph_of(), created=CREATED, files={"../x": b"x"})
    large = package.build(graph_of(), created=CREATED, files={"a": bytes(10_000)})
    large.save(tmp_path / "a.edgew")
    with pytest.raises(InvalidPackage, match="unfolds to 10,000 bytes, over 9,999"):
        package.open(tmp_path / "a.edgew", limits=package.Limits(attached_bytes=9_999))


def test_the_minimal_profile_has_no_place_for_it() -> None:
    with pytest.raises(InvalidInput, match=r"no place for tokenizer\.json; save it with profile='full'"):
        minimal.encode(built())
