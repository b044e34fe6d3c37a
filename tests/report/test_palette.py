"""WCAG 2.2 contrast (1.4.3, 1.4.11), and series that stay apart for colour-blind readers."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from edgewise.report import charts
from edgewise.report.palette import DARK, LIGHT, resolved

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
PALETTES = pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, two: str) -> float:
    dark, light = sorted(float(linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (one, two))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@PALETTES
def test_text_can_be_read(palette: dict[str, str]) -> None:
    for words, ground in itertools.product(("ink", "muted", "accent", "good", "bad"), ("page", "panel", "plain-soft", "region")):
        assert contrast(palette[words], palette[ground]) >= 4.5, (words, ground)
    assert contrast(palette["good"], palette["good-soft"]) >= 4.5
    assert contrast(palette["bad"], palette["bad-soft"]) >= 4.5


@PALETTES
def test_marks_stand_out(palette: dict[str, str]) -> None:
    for series, ground in itertools.product(range(charts.SERIES), ("page", "region")):
        assert contrast(palette[f"series-{series}"], palette[ground]) >= 3, (series, ground)


@PALETTES
@pytest.mark.parametrize("eye", DEFICIENCIES)
def test_series_stay_apart(palette: dict[str, str], eye: str) -> None:
    seen = [lab(DEFICIENCIES[eye] @ linear(palette[f"series-{i}"])) for i in range(charts.SERIES)]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) >= 10


def test_both_palettes_name_the_same_colours_and_the_charts_know_them_all() -> None:
    assert set(LIGHT) == set(DARK)
    assert "var(" not in resolved(charts.css(), DARK)
    assert set(re.findall(r"var\(--([\w-]+)\)", charts.css())) <= set(LIGHT)
