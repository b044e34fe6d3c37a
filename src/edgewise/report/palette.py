"""Colours, light and dark. `tests/report/test_palette.py` holds them to WCAG 2.2: 4.5:1 for text, 3:1 for what a chart is read by.

The series are told apart by shape too; their hues stay apart for the common colour-vision deficiencies (Okabe & Ito 2008,
darkened or lightened until the contrast suffices).
"""

from __future__ import annotations

import re

LIGHT = {
    "page": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1a1f26",
    "muted": "#57606b",
    "line": "#d9dee4",
    "grid": "#e6e9ed",
    "accent": "#0a5aa8",
    "good": "#17693a",
    "good-soft": "#e4f3e9",
    "bad": "#a5301c",
    "bad-soft": "#fbe9e5",
    "plain-soft": "#eceff3",
    "region": "#dff0e5",
    "series-0": "#0068a8",
    "series-1": "#b84a00",
    "series-2": "#00785a",
    "series-3": "#a2488c",
    "series-4": "#554400",
    "series-5": "#454d57",
}

DARK = {
    "page": "#11151a",
    "panel": "#1a2027",
    "ink": "#e8ecf1",
    "muted": "#a3adb9",
    "line": "#333c47",
    "grid": "#262e37",
    "accent": "#76b7f5",
    "good": "#6fd193",
    "good-soft": "#17301f",
    "bad": "#ff9d87",
    "bad-soft": "#3a1f19",
    "plain-soft": "#252c35",
    "region": "#173023",
    "series-0": "#62b2f0",
    "series-1": "#ff9a57",
    "series-2": "#4fcfa5",
    "series-3": "#d583c0",
    "series-4": "#f5e29b",
    "series-5": "#d3dae2",
}


def variables(palette: dict[str, str]) -> str:
    """As CSS custom properties."""
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())


def resolved(css: str, palette: dict[str, str]) -> str:
    """`css` with each `var(--name)` written out: for SVG files, as not every program that draws them knows custom properties."""
    return re.sub(r"var\(--([\w-]+)\)", lambda match: palette[match[1]], css)
