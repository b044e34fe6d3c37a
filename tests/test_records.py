"""Records that were written before stay readable: a field that is added has a default."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise import report
from edgewise.records import Quality, Study
from edgewise.types import from_json, to_json

STUDIES = sorted((Path(__file__).parents[1] / "benchmarks" / "results").glob("*/study.json"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_a_stored_study_is_read_and_shown(path: Path) -> None:
    study = from_json(path.read_bytes(), Study)
    assert study.trials and study.verdict is not None
    assert from_json(to_json(study), Study) == study
    assert study.verdict.summary and "<h1" in report.html(study)


def test_a_quality_of_before_has_means_without_intervals() -> None:
    interval = '{"value": 0.5, "low": 0.1, "high": 0.9, "n": 2}'
    old = f'{{"metric": "accuracy", "split": "test", "value": {interval}, "scores": [1.0, 0.0], "macro_f1": 0.5}}'
    found = from_json(old.encode(), Quality)
    assert (found.macro_f1, found.macro_f1_interval) == (0.5, None)
