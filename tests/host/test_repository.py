"""What lies on disk, which of it is served, and who gets the canary."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import InvalidInput
from edgewise.host.repository import changes, drawn, scan, served
from edgewise.host.settings import ModelSettings, Settings, Versions, folder_of


def touch(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_both_layouts_are_found_and_strays_are_not(tmp_path: Path) -> None:
    for name in (
        "a/1/model.edgew", "a/2/model.onnx", "a/10/other.edgew", "plain.edgew", "flat.onnx", "b/1/model.onnx", "b/1/model.edgew",
        ".hidden/1/model.edgew", "a/x/model.edgew", "a/01/model.edgew", "a/0/model.edgew", "c/1/readme.txt", "d/1/x.edgew", "d/1/y.edgew",
        "a/3/.model.edgew.partial", "notes.txt", "a/\u00b2/model.edgew", "a/\u0663/model.edgew",
    ):  # fmt: skip
        touch(tmp_path / name)
    found = {name: {number: file.path.name for number, file in files.items()} for name, files in scan(tmp_path).items()}
    assert found == {
        "a": {"1": "model.edgew", "2": "model.onnx", "10": "other.edgew"},
        "b": {"1": "model.edgew"},
        "plain": {"1": "plain.edgew"},
        "flat": {"1": "flat.onnx"},
    }


def test_a_change_is_seen_by_its_stamp(tmp_path: Path) -> None:
    touch(tmp_path / "a/1/model.edgew")
    touch(tmp_path / "b/1/model.edgew")
    before = scan(tmp_path)
    touch(tmp_path / "a/1/model.edgew", "longer")
    touch(tmp_path / "c/1/model.edgew")
    (tmp_path / "b/1/model.edgew").unlink()
    assert changes(before, scan(tmp_path)) == {"a", "b", "c"}
    assert changes(before, before) == set()
    assert scan(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    "policy, order",
    [
        (Versions(), ("10",)),
        (Versions(latest=2), ("10", "9")),
        (Versions(latest=0), ("10", "9", "2", "1")),
        (Versions(only=("2", "9", "77")), ("9", "2")),
        (Versions(canary="9", canary_share=0.1), ("10", "9")),
        (Versions(canary="10", canary_share=0.1, latest=2), ("9", "10")),
        (Versions(canary="77", canary_share=0.1), ("10",)),
    ],
)
def test_policies(policy: Versions, order: tuple[str, ...]) -> None:
    assert served(["1", "2", "10", "9"], policy) == order


@given(st.integers(1, 500), st.floats(0, 1))
def test_a_share_is_kept_to_within_one(count: int, share: float) -> None:
    assert abs(sum(drawn(number, share) for number in range(count)) - count * share) <= 1


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in (
        lambda: Versions(canary="2"), lambda: Versions(canary_share=0.5), lambda: Versions(canary="x", canary_share=0.1),
        lambda: Versions(latest=-1), lambda: Versions(only=("a",)), lambda: ModelSettings(queue=0), lambda: ModelSettings(instances=0),
        lambda: ModelSettings(deadline_ms=0), lambda: ModelSettings(cache_ttl_s=-1), lambda: Settings(memory_bytes=0),
        lambda: ModelSettings(deadline_ms=float("nan")), lambda: Settings(poll_s=-1), lambda: Versions(only=("\u00b2",)),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            wrong()
    own = ModelSettings(queue=1)
    assert Settings(models={"a": own}).of("a") is own
    assert Settings(models={"a": own}).of("b") == ModelSettings()


def test_the_folder_has_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        folder_of(tmp_path / "nowhere")
    touch(tmp_path / "file")
    with pytest.raises(InvalidInput, match="is a file"):
        folder_of(tmp_path / "file")
