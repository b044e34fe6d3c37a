"""`edgewise fit` from the shell: options, errors before any work, a whole search on a tiny model, and an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise import package
from edgewise.cli import derive
from edgewise.cli.fit import budget_options, drop, factors, limits, writable
from edgewise.errors import InvalidInput
from edgewise.records import Study, Trial
from edgewise.types import Budget, from_json

Edgewise = Callable[..., tuple[int, str, str]]


def budget(**given: str) -> Budget:
    (found,) = budgets(**given)
    return found


def budgets(**given: str) -> tuple[Budget, ...]:
    options = budget_options()
    read = {option.name: option.read for option in options if option.read is not None}
    return limits(derive.collect(options, {name: read[name](text) for name, text in given.items()}))[0]


def test_a_budget_from_options() -> None:
    assert budget(speedup="2.5", max_drop="1%") == Budget(speedup=2.5, max_drop=0.01)
    assert budget(latency_ms="3", size_kb="800") == Budget(latency_ms=3.0, size_bytes=800_000)
    assert budget(latency_p95_ms="3", memory_mb="20") == Budget(latency_ms=3.0, percentile="p95", memory_bytes=20_000_000)
    assert budget(energy_mj="1.5", max_drop="2%rel") == Budget(energy_mj=1.5, max_drop=0.02, relative_drop=True)


def test_every_limit_is_an_option() -> None:
    from dataclasses import fields

    names = {name for option in budget_options() for name in (option.name, "relative_drop")}
    assert {field.name for field in fields(Budget)} <= names


@pytest.mark.parametrize(("text", "values"), [("2.5", (2.5,)), ("2,4, 8", (2.0, 4.0, 8.0)), ("4x", (4.0,))])
def test_one_speedup_is_the_budgets_and_several_a_familys(text: str, values: tuple[float, ...]) -> None:
    asked, speedups = limits({"speedups": factors(text), "max_drop": 0.02})
    assert speedups == values
    assert asked == (Budget(speedup=values[0] if len(values) == 1 else None, max_drop=0.02),)


def test_members_of_a_family_may_have_budgets_of_their_own() -> None:
    found = budgets(speedup="3,6", size_mb="24,14", max_drop="0.3%,0.6%")
    assert found == (Budget(size_bytes=24_000_000, max_drop=0.003), Budget(size_bytes=14_000_000, max_drop=0.006))
    assert budgets(speedup="3,6", size_mb="24") == (Budget(size_bytes=24_000_000),)
    assert budgets(speedup="2,4", max_drop="1%rel,0.02") == (Budget(max_drop=0.01, relative_drop=True), Budget(max_drop=0.02))
    with pytest.raises(InvalidInput, match="2 values for size-bytes and 3 for --speedup"):
        budgets(speedup="2,4,8", size_mb="9,4")
    with pytest.raises(InvalidInput, match="2 values for size-bytes and 0 for --speedup"):
        budgets(size_mb="9,4")


@pytest.mark.parametrize("text", ["", "fast", "0", "-2", "2;4", "inf", "nan"])
def test_a_speedup_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        factors(text)


@pytest.mark.parametrize(
    ("text", "value", "relative"),
    [("1%", 0.01, False), ("0.3%", 0.003, False), ("0.01", 0.01, False), ("0", 0, False), ("1%rel", 0.01, True), ("0.02 rel", 0.02, True)],
)
def test_a_drop_in_the_shells_spellings(text: str, value: float, relative: bool) -> None:
    assert drop(text) == {"max_drop": pytest.approx(value), "relative_drop": relative}


@pytest.mark.parametrize("text", ["1", "1 %", "0.5"])
def test_a_drop_of_all_or_half_is_read(text: str) -> None:
    assert 0 <= drop(text)["max_drop"] <= 1


@pytest.mark.parametrize("text", ["", "much", "300%", "-1%", "nan"])
def test_a_drop_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        drop(text)


def test_a_folder_that_can_be_written(tmp_path: Path) -> None:
    writable(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput, match="is a file"):
            writable(wrong)
    if os.getuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InvalidInput, match="may not be written"):
            writable(tmp_path / "locked" / "out")


def test_what_is_wrong_is_said_before_any_work(edgewise: Edgewise, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "file").touch()
    good = ["fit", model, "--data", data, "--speedup", "2", "-o", out]
    for arguments, said in (
        (["fit", model, "--data", data, "-o", out], "no budget"),
        (["fit", model, "--data", data, "--max-drop", "1%", "-o", out], "no budget"),
        (["fit", model, "--speedup", "2", "-o", out], "--data is missing"),
        ([*good[:3], tmp_path / "nowhere", *good[4:]], "no such file or folder"),
        ([*good[:-1], tmp_path / "file"], "is a file"),
        (["fit", tmp_path / "no.onnx", *good[2:]], "no.onnx"),
        ([*good, "--threads", "999"], "usable cores"),
        ([*good, "--engines", "fastest"], "unknown backend"),
        ([*good, "--max-drop", "300%"], "--max-drop"),
        ([*good, "--speedup", "-1"], "give a number above 0"),
        ([*good, "--size", "8"], "--size"),
        ([*good, "--task", "no_such_module:task"], "no_such_module"),
    ):
        code, _, err = edgewise(*arguments)
        assert code == 2, (arguments, err)
        assert said in err, err
        assert "Traceback" not in err
    assert not out.exists()


def test_a_whole_fit_met_then_missed(
    edgewise: Edgewise, briefly: None, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    line = ["fit", model, "--data", data, "--engines", "onnxruntime", "--threads", "1", "-o", out]
    code, shown, err = edgewise(*line, "--size-mb", "5")
    assert code == 0, err
    assert "about" in err.splitlines()[0]  # the estimate comes first
    assert max(map(len, shown.splitlines())) <= 80
    for said in ("Budget met", "model.edgew", "report.html", "edgewise run", "Every trial"):
        assert said in shown, shown
    assert package.open(out / "model.edgew").manifest.measured is not None
    study = from_json((out / "study/study.json").read_bytes(), Study)
    assert study.budget == Budget(size_bytes=5_000_000)

    code, shown, err = edgewise(*line, "--size-mb", "5")
    assert code == 0
    assert "finished before" in shown

    code, shown, err = edgewise(*line, "--speedup", "1000")
    assert code == 3
    assert "the budget is missed" in err
    assert "Budget missed" in shown
    assert package.open(out / "model.edgew").manifest.measured is not None

    code, shown, err = edgewise("reproduce", out / "model.edgew", model, "--data", data)
    assert code == 0, err
    assert "same to the bit" in shown


def test_ones_own_task(edgewise: Edgewise, briefly: None, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "light_task.py").write_text(
        "from edgewise.tasks import image_classification\n"
        "def light(path, *, share: float = 0.1):\n"
        "    '''Light or dark.\n\n    share: of validation.\n    '''\n"
        "    return image_classification(path, validation=share)\n"
        "def nothing():\n    return 3\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    try:
        helped = edgewise("fit", "--task", "light_task:light", "--help")[1]
        assert "--share" in helped
        assert "--mean" not in helped
        out = tmp_path / "out"
        line = ["--engines", "onnxruntime", "--threads", "1", "--size-mb", "5"]  # without -o: out/, here
        code, _, err = edgewise("fit", model, "--task=light_task:light", "--data", data, "--share", "0.3", *line)
        assert code == 0, err
        assert from_json((out / "study/study.json").read_bytes(), Study).data.samples["validation"] > 20
        code, _, err = edgewise("fit", model, "--task", "light_task:nothing", *line)
        assert (code, "is no task" in err) == (2, True)
        assert edgewise("fit", model, "--task", "light_task:nothing", "--data", data, *line)[0] == 2
    finally:
        sys.path[:] = before


def test_an_interruption_keeps_what_was_measured(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main = [sys.executable, "-c", "from edgewise.cli import main; main()"]
    line = [
        *main,
        "fit",
        str(model),
        "--data",
        str(data),
        "--speedup",
        "1000",
        "--threads",
        "1",
        "--engines",
        "onnxruntime",
        "-o",
        str(out),
    ]

    def measured() -> dict[Path, int]:
        """Trials that are complete, and when they were written."""
        files = {path: path.stat().st_mtime_ns for path in out.glob("study/trials/*.json")}
        return {path: written for path, written in files.items() if json.loads(path.read_bytes())["measurement"]}

    def interrupted(enough: Callable[[], bool], by: signal.Signals = signal.SIGINT) -> str:
        # A process that was started in the background has SIGINT ignored, and its children too.
        running = subprocess.Popen(
            line,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and running.poll() is None and not enough():
            time.sleep(0.05)
        running.send_signal(by)
        said = running.communicate(timeout=30)[1]
        assert running.returncode == (130 if by == signal.SIGINT else -by), said
        assert "Traceback" not in said
        return said

    assert "kept in" in interrupted(lambda: bool(measured()))
    kept = measured()
    count = len(list(out.glob("study/trials/*.json")))
    assert not list(out.glob("*.edgew"))
    interrupted(lambda: len(list(out.glob("study/trials/*.json"))) > count, by=signal.SIGKILL)  # a crash, or the power
    assert all(isinstance(from_json(path.read_bytes(), Trial), Trial) for path in out.glob("study/trials/*.json"))
    assert kept.items() <= measured().items()


def test_a_family_met_and_missed(
    edgewise: Edgewise, briefly: None, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    line = ["fit", model, "--data", data, "--engines", "onnxruntime", "--threads", "1", "--speedup", "1000,0.5", "-o", out]
    code, shown, err = edgewise(*line)
    assert code == 3, err
    assert "the budget is missed at 1000x" in err
    assert max(map(len, shown.splitlines())) <= 80
    for said in ("Some budgets missed", "dense", "0.5×", "1000×", "all members", f"edgewise inspect {out / '1000x' / 'model.edgew'}"):
        assert said in shown, shown
    page = (out / "report.html").read_text()
    for member in ("0.5x", "1000x"):
        assert f'href="{member}/report.html"' in page
        assert (out / member / "report.html").exists()
        assert (out / member / "model.edgew").exists()
