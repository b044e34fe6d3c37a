"""The main job with a device elsewhere: every time is measured there, and a worker that dies on the way costs nothing but time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import edgewise as ew
from edgewise import measure
from edgewise.errors import InvalidInput
from edgewise.fitting import follow
from edgewise.models.resnet import ResNet
from edgewise.records import Study
from edgewise.testing import pictures
from edgewise.types import from_json

RECIPE = "prune(speedup=1.3, samples=32) > distill(epochs=1)"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = pictures.kept(tmp_path_factory.mktemp("data") / "shapes.npz", 300)
    return ew.tasks.image_classification(path, calibration=32)


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return ResNet(blocks=1, classes=4, channels=1, width=8)


def test_it_is_measured_there_and_a_worker_that_dies_on_the_way_costs_time_alone(
    worker: Any, task: Any, net: Any, tmp_path: Path, briefly: None
) -> None:
    there = measure.connect(worker.link(), "there")
    over = threading.Event()

    def disturb() -> None:
        for pause in (3.0, 6.0, 9.0):
            if over.wait(pause):
                return
            worker.kill()
            time.sleep(0.3)
            worker.start()

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        result = follow(
            net, task, recipe=RECIPE, device=there, threads=1, engines=["onnxruntime"], out=tmp_path, timing_seconds=2, table_seconds=2
        )
    finally:
        over.set()
        disturbing.join()
    study, verdict = result.study, result.study.verdict
    assert verdict is not None and (study.device.address, study.device.name) == (worker.url, "there")
    assert verdict.measurement.conditions.device == "there"
    assert study.tables[0].model is not None and all(table.device == there.key for table in study.tables)
    assert any("away" in note or "started anew" in note for note in study.notes)
    assert from_json((tmp_path / "study" / "study.json").read_bytes(), Study).device == study.device
    assert "there" in (tmp_path / "report.html").read_text()


def test_an_engine_has_to_be_on_both(worker: Any, task: Any, net: Any) -> None:
    there = measure.connect(worker.link(), "there")
    bare = replace(there, backends={"litert": "1.0"})
    with pytest.raises(InvalidInput, match="isn't installed on there; installed there: litert"):
        follow(net, task, recipe=RECIPE, device=bare, engines=["onnxruntime"])
