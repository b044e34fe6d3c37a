"""`edgewise compare` of two studies' folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.records import DataSummary, Device, Interval, LatencyTable, ModelSummary, PartWidth, Study, WidthTime
from edgewise.types import Budget, Execution, Signature, to_json

Edgewise = Callable[..., tuple[int, str, str]]
ORT = Execution("onnxruntime")


def kept(folder: Path, device: str, widths: dict[str, int], left: float) -> Path:
    """A study of a folder, on a device where half of a part leaves that share of the time."""
    entries = tuple(WidthTime(part, 16, Interval(left, left - 0.01, left + 0.01, 20)) for part in widths)
    model, data = ModelSummary("net", "", 1, 1, 1, 1, Signature((), ())), DataSummary("task", "accuracy", "", "", {}, (), ())
    study = Study(
        1, "", Budget(speedup=2.0), model, data, Device(device, "x86_64", "cpu", 1, (), 1, "Linux", {}, ""), (ORT,), "", (), None, {},
        tables=(LatencyTable(ORT, "", "", {}, "", "", 1.0, dict.fromkeys(widths, 32), entries),),
        widths=tuple(PartWidth(part, "channels", 32, width) for part, width in widths.items()),
    )  # fmt: skip
    (folder / "study").mkdir(parents=True)
    (folder / "study" / "study.json").write_bytes(to_json(study))
    return folder


def test_other_widths_and_why(edgewise: Edgewise, tmp_path: Path) -> None:
    one, other = kept(tmp_path / "pi", "pi", {"a": 16, "b": 32}, 0.7), kept(tmp_path / "laptop", "laptop", {"a": 28, "b": 32}, 0.9)
    code, out, err = edgewise("compare", one, other)
    assert code == 0, err
    flat = " ".join(out.split())
    for words in ("pi: no verdict yet", "16", "28", "where it saves more, it is narrower", "1 part as wide on both"):
        assert words in flat, out
    code, out, err = edgewise("compare", one, other, "--json")
    (row,) = json.loads(out)["widths"]
    assert row["differ"] and row["parting"]["widths"] == [16, 28]


@pytest.mark.parametrize(("text", "said"), [("{}", "no study of this release"), ("", "no study of this release")])
def test_what_is_no_study(edgewise: Edgewise, tmp_path: Path, text: str, said: str) -> None:
    one = kept(tmp_path / "pi", "pi", {"a": 16}, 0.7)
    (tmp_path / "other.json").write_text(text)
    code, _, err = edgewise("compare", one, tmp_path / "other.json")
    assert code == 2 and said in err


def test_of_different_networks(edgewise: Edgewise, tmp_path: Path) -> None:
    one, other = kept(tmp_path / "pi", "pi", {"a": 16}, 0.7), kept(tmp_path / "laptop", "laptop", {"b": 28}, 0.9)
    code, _, err = edgewise("compare", one, other)
    assert code == 2 and "different networks" in err
