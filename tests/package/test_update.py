"""An update makes the new file to the byte, is refused for everything else, and is small where little changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper, numpy_helper

from edgewise import package
from edgewise.errors import InvalidPackage, NotTrusted
from edgewise.package import Form, Limits, Package, rebuild, runs, signing, update
from edgewise.testing import kills

CREATED = "2026-01-01T00:00:00Z"
Build = Callable[..., Package]


def weights(seed: int = 0, moved: float = 0.0) -> dict[str, np.ndarray]:
    """Of every kind: integers, floats, a grid, few values; `moved`: how many of the elements are another step."""
    random = np.random.default_rng(seed)
    drawn = {name: np.rint(random.normal(0, 8, (24, 36))) for name in ("int8", "uint8", "int4", "grid", "shared", "float")}
    change = np.random.default_rng(99)
    for name in drawn:
        drawn[name] = drawn[name] + (change.random((24, 36)) < moved)
    colours = np.random.default_rng(5).normal(0, 1, 16).astype(np.float32)
    return {
        "int8": drawn["int8"].astype(np.int8),
        "uint8": (drawn["uint8"] + 128).astype(np.uint8),
        "int4": (drawn["int4"] / 4).clip(-8, 7).astype(ml_dtypes.int4),
        "grid": (drawn["grid"].astype(np.float32) * np.float32(0.01 * (1 + moved))).astype(np.float32),
        "shared": colours[drawn["shared"].astype(int) % 16],
        "float": (np.random.default_rng(7).normal(0, 1, (24, 36)) * (1 + 1e-4 * moved * drawn["float"])).astype(np.float32),
        "half": random.normal(0, 1, (24, 36)).astype(np.float16),
    }


@pytest.fixture
def built(make_graph: Callable[..., Any]) -> Build:
    def build(arrays: dict[str, np.ndarray], **kwargs: Any) -> Package:
        tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        return package.build(make_graph(*tensors), **{"created": CREATED, **kwargs})

    return build


class Files:
    def __init__(self, folder: Path) -> None:
        self.old, self.new, self.update, self.out = (folder / name for name in ("old.edgew", "new.edgew", "u.edgewd", "out.edgew"))

    def diffed(self, old: Package, new: Package, **kwargs: Any) -> int:
        """Write all three, patch, and hold the result to the byte. Returns the update's bytes."""
        old.save(self.old)
        new.save(self.new)
        update.save(package.diff(self.old, self.new, **kwargs), self.update)
        made = package.patch(self.old, self.update, self.out)
        assert self.out.read_bytes() == self.new.read_bytes()
        assert made.content_id == new.content_id
        return self.update.stat().st_size


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("coders", ["none", "fast", "all"])
@pytest.mark.parametrize("reencode", [True, False])
def test_every_kind_of_weight(coders: str, reencode: bool, built: Build, files: Files) -> None:
    old, new = built(weights(), coders=coders), built(weights(moved=0.05), coders=coders, version=2)
    size = files.diffed(old, new, reencode=reencode)
    assert size < new.size_bytes
    if reencode:
        assert size < 0.4 * files.diffed(built({}), new)


def test_what_did_not_change_costs_next_to_nothing(built: Build, files: Files) -> None:
    head = {**weights(), "int8": weights(moved=0.1)["int8"]}
    assert files.diffed(built(weights()), built(head, version=2)) < 0.1 * built(head).size_bytes
    assert files.diffed(built(weights()), built(weights())) < 200
    signed = signing.sign(built(weights()), Ed25519PrivateKey.generate())
    assert files.diffed(built(weights()), signed) < 260


def test_renamed_reshaped_gone_and_new_weights(built: Build, files: Files) -> None:
    before = weights()
    renamed = {f"other_{name}": array for name, array in before.items()}
    size = files.diffed(built(before, coders="fast"), built(renamed, coders="fast"))
    assert size < 0.35 * built(renamed, coders="fast").size_bytes  # the names themselves, and the graph
    after = {"int8": before["int8"].reshape(36, 24), "float": before["float"][:12], "added": before["grid"] + 1, "half": before["half"]}
    for coders in ("none", "fast"):
        files.diffed(built(before, coders=coders), built(after, coders=coders))
        files.diffed(built(after, coders=coders), built(before, coders=coders))
    files.diffed(built({}), built(before))
    files.diffed(built(before), built({}))


def test_from_raw_to_coded_and_back(built: Build, files: Files) -> None:
    raw, coded = built(weights(), coders="none"), built(weights(), coders="all")
    # Nothing of the weights has to be sent; what the other graph member takes (LZMA) is sent whole.
    assert files.diffed(raw, coded) < 0.3 * coded.size_bytes
    assert files.diffed(coded, raw) < 0.3 * coded.size_bytes


def test_weights_that_entries_share(built: Build, make_graph: Callable[..., Any], files: Files) -> None:
    def forms(moved: float) -> Package:
        tensors = [numpy_helper.from_array(array, name) for name, array in weights(moved=moved).items()]
        lowered = make_graph(*tensors[:3])
        return package.build(make_graph(*tensors), created=CREATED, forms={"lowered": Form(lowered, "engine", "openvino")})

    files.diffed(forms(0), forms(0.1))
    files.diffed(built(weights()), forms(0.1))
    files.diffed(forms(0.1), built(weights()))
    # The same bytes, and more names for them: the member is kept, its rows are told anew.
    assert files.diffed(built(weights()), forms(0)) < 1500


@given(seed=st.integers(0, 2**32 - 1), names=st.sets(st.sampled_from(sorted(weights())), min_size=1))
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_two_packages(seed: int, names: set[str], built: Build, files: Files) -> None:
    random = np.random.default_rng(seed)

    def some() -> Package:
        arrays = weights(int(random.integers(3)), float(random.choice([0, 0.05, 1])))
        kept = {name: array for name, array in arrays.items() if name in names or random.random() < 0.5}
        return built(kept, coders=str(random.choice(["none", "fast", "all"])), labels=tuple(map(str, range(random.integers(5)))))

    files.diffed(some(), some())


def test_a_newer_minor_version_and_unknown_fields_come_along(built: Build, files: Files) -> None:
    new = built(weights(moved=0.1))
    files.diffed(built(weights()), replace(new, encoded=new.encoded[:-1] + b',"added_later":{"a":[1,2.5e-7,null]}}', minor=7))


def test_another_layout_of_tensors_is_carried(built: Build, files: Files, take_apart: Any) -> None:
    """Another writer may leave gaps, or put weights in another order: the member is sent as bytes."""
    old = built(weights(), coders="none")
    parts = take_apart(old)
    rows = parts.manifest["entries"][0]["tensors"]
    rows.reverse()
    files.new.write_bytes(parts.file())
    old.save(files.old)
    update.save(package.diff(files.old, files.new), files.update)
    package.patch(files.old, files.update, files.out)
    assert files.out.read_bytes() == files.new.read_bytes()


def test_packages_of_the_minimal_profile(files: Files, tmp_path: Path) -> None:
    for name, moved in (("a", 0.0), ("b", 0.05)):
        package.build(_graph_with({"int8": weights(moved=moved)["int8"]}), created=CREATED).save(tmp_path / name, profile="minimal")
    size = files.diffed(*(package.open(tmp_path / name) for name in "ab"))
    assert package.open(files.out).profile == "minimal"
    assert update.read(files.update).kind == update.WHOLE
    assert size < files.new.stat().st_size + 200


def test_whole_files_are_sent_where_parts_do_not_fit(built: Build, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> bytes:
        raise InvalidPackage("of another profile")

    with monkeypatch.context() as patched:
        patched.setattr(rebuild, "encode", fails)
        size = files.diffed(built(weights()), built(weights(moved=0.01)))
    assert update.read(files.update).kind == update.WHOLE
    assert size < built(weights()).size_bytes + 200


@given(data=st.binary(max_size=3000), known=st.binary(max_size=3000), most=st.integers(0, 50))
@settings(deadline=None, max_examples=100)
def test_runs_of_bytes(data: bytes, known: bytes, most: int) -> None:
    for new in (data, data + known, known[:most] + data + known[most:], known):
        assert runs.decode(runs.encode(new, known), known, len(new)) == new


def test_runs_find_what_lies_around_the_same_place() -> None:
    known = np.random.default_rng(0).bytes(200_000)
    new = known[:50_000] + b"something else" + known[50_000:]
    assert len(runs.encode(new, known)) < 2000
    with pytest.raises(ValueError, match="at most"):
        runs.decode(runs.encode(new, known), known, len(new) - 1)


# Refusals


@pytest.fixture
def three(built: Build, files: Files) -> Files:
    files.diffed(built(weights()), built(weights(moved=0.05), version=2))
    files.out.unlink()
    return files


def test_another_base_is_refused(three: Files, built: Build, tmp_path: Path) -> None:
    other = tmp_path / "other.edgew"
    built(weights(seed=1)).save(other)
    before = other.read_bytes()
    with pytest.raises(
        InvalidPackage, match=r"is for another package than .*other.edgew: it begins from SHA-256 .*get the update for this one"
    ):
        package.patch(other, three.update)
    assert other.read_bytes() == before
    package.patch(three.old, three.update)
    assert three.old.read_bytes() == three.new.read_bytes()
    with pytest.raises(InvalidPackage, match="another package"):
        package.patch(three.old, three.update)  # a second time


def test_every_truncation_and_flipped_byte_is_refused(three: Files) -> None:
    before, data = three.old.read_bytes(), three.update.read_bytes()
    for length in range(0, len(data), 11):
        three.update.write_bytes(data[:length])
        with pytest.raises(InvalidPackage):
            update.read(three.update)
    with three.update.open("wb", buffering=0) as file:
        file.write(data)
        for at in range(len(data)):
            os.pwrite(file.fileno(), bytes([data[at] ^ 0x55]), at)
            with pytest.raises(InvalidPackage):
                update.read(three.update)
            os.pwrite(file.fileno(), data[at : at + 1], at)
    with pytest.raises(InvalidPackage):
        three.update.write_bytes(data[:-1])
        package.patch(three.old, three.update)
    assert three.old.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "not an edgewise update"),
        (lambda data: b"PK" + data, "not an edgewise update"),
        (lambda data: b"\x89EDGEW\r\n" + data[8:], "is a package, not an update"),
        (lambda data: data[:40], "truncated"),
        (lambda data: data[:8] + b"\2" + data[9:], "update format 2.*pip install -U"),
        (lambda data: data[:10] + b"\7" + data[11:], "kind 7"),
        (lambda data: data + b"\0", "doesn't match its SHA-256"),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[bytes], bytes], message: str, three: Files) -> None:
    three.update.write_bytes(change(three.update.read_bytes()))
    with pytest.raises(InvalidPackage, match=message) as caught:
        package.patch(three.old, three.update)
    assert "\n" not in str(caught.value)
    assert str(three.update) in str(caught.value)


def test_files_that_are_not_there(three: Files, tmp_path: Path) -> None:
    for old, new in ((tmp_path / "none", three.update), (three.old, tmp_path / "none"), (tmp_path, three.update), (three.old, tmp_path)):
        with pytest.raises(InvalidPackage, match="can't read"):
            package.patch(old, new)


def test_a_result_that_is_not_what_was_stated_is_refused(three: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a device's edgewise codes weights otherwise."""
    before = three.old.read_bytes()
    update.save(replace(update.read(three.update), new_sha256=hashlib.sha256(b"").digest()), three.update)
    with pytest.raises(InvalidPackage, match=r"doesn't give the package that it states.*nothing was changed.*--no-reencode"):
        package.patch(three.old, three.update)
    assert three.old.read_bytes() == before
    assert sorted(file.name for file in three.old.parent.iterdir()) == ["new.edgew", "old.edgew", "u.edgewd"]


def test_a_result_that_is_no_package_is_refused(three: Files) -> None:
    """An update that is right by all its hashes, and makes something that `open` refuses."""
    before = three.old.read_bytes()
    for junk in (b"", b"junk", before[:-1], before[:200] + b"?" + before[201:]):
        body = runs.encode(junk, before)
        forged = update.Update(update.WHOLE, len(before), len(junk), hashlib.sha256(before).digest(), hashlib.sha256(junk).digest(), body)
        update.save(forged, three.update)
        with pytest.raises(InvalidPackage):
            package.patch(three.old, three.update)
        assert three.old.read_bytes() == before


def test_limits_hold(three: Files) -> None:
    for limits in (Limits(file_bytes=5000), Limits(manifest_bytes=1000), Limits(tensors=2), Limits(model_bytes=1000), Limits(members=1)):
        with pytest.raises(InvalidPackage, match=r"over|at most|Limits"):
            package.patch(three.old, three.update, limits=limits)
    # The update alone asks for more than may be: the old package is within the limits.
    big = {"zeros": np.zeros((3000, 1000), np.int8)}
    new, old = package.open(three.old), package.open(three.old)
    body = rebuild.encode(old, package.build(_graph_with(big), created=CREATED))
    given = update.read(three.update)
    update.save(replace(given, body=body), three.update)
    with pytest.raises(InvalidPackage, match=r"weights of over 100,000 bytes; raise Limits.model_bytes"):
        package.patch(three.old, three.update, limits=Limits(model_bytes=100_000))
    assert new.content_id == old.content_id


def _graph_with(arrays: dict[str, np.ndarray]) -> Any:
    from edgewise.graph import Graph

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in "xy")
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y], tensors)
    return Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


# Trust


def test_an_update_is_held_to_the_same_trust(built: Build, files: Files) -> None:
    maker, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    trust = signing.Trust((signing.PublicKey("maker", maker.public_key().public_bytes_raw()),))
    old, new = signing.sign(built(weights(), version=2), maker), built(weights(moved=0.1), version=3)
    for wrong, message in (
        (new, "not signed"),
        (signing.sign(new, other), "none of the trusted keys"),
        (signing.sign(built(weights(moved=0.1), version=1), maker), "leads back from version 2 to 1"),
    ):
        files.diffed(old, wrong)
        with pytest.raises(NotTrusted, match=message):
            package.patch(files.old, files.update, trust=trust)
        assert package.open(files.old).content_id == old.content_id
    files.diffed(old, signing.sign(new, maker))
    assert package.patch(files.old, files.update, trust=trust).manifest.version == 3
    assert files.old.read_bytes() == files.new.read_bytes()


# Power cuts


def test_the_order_of_writing(three: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is whole on the disk, and checked, before it takes the name; the name lasts before `patch` returns."""
    happened: list[str] = []
    fsync, rename, opened = os.fsync, os.replace, update.file.open

    def spy_fsync(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        happened.append("flush folder" if folder else "flush file")
        assert folder or os.fstat(handle).st_size == three.new.stat().st_size
        fsync(handle)

    def spy_replace(source: str, target: Path) -> None:
        assert Path(source).read_bytes() == three.new.read_bytes()
        assert three.old.read_bytes() != three.new.read_bytes()
        happened.append("rename")
        rename(source, target)

    def spy_open(path: Any, **kwargs: Any) -> Package:
        happened.append("check" if "partial" in str(path) else "open")
        return opened(path, **kwargs)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    monkeypatch.setattr(update.file, "open", spy_open)
    package.patch(three.old, three.update)
    assert happened == ["open", "flush file", "check", "rename", "flush folder", "open"]


def test_killed_at_every_write_the_old_file_or_the_new_one_is_there(three: Files) -> None:
    old, new = three.old.read_bytes(), three.new.read_bytes()
    seen = []
    for _ in kills.everywhere("patch", three.old, three.update):
        found = three.old.read_bytes()
        assert found in (old, new)
        seen.append(found == new)
        three.old.write_bytes(old)
        for left in three.old.parent.glob(".*.partial"):
            left.unlink()
    # Before the rename the old one, from then on the new one.
    assert seen == sorted(seen) and len(seen) > 10 and seen[0] is False and seen[-1] is True
    assert three.old.read_bytes() == new


def test_a_full_disk_leaves_the_old_file(three: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    old = three.old.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device; what was there before is unchanged"):
        package.patch(three.old, three.update)
    assert three.old.read_bytes() == old
    assert not list(three.old.parent.glob(".*"))
    shutil.copy(three.old, three.out)
