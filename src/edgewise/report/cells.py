"""What the terminal's tables are made of.

Words from records go in as `Text`, never as rich's markup, and without control characters: a recipe can't colour or move a terminal.
"""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from edgewise.report.figures import Figure
from edgewise.report.markup import clean

STATES = {
    "met": ("✓", "green"),
    "missed": ("✗", "red"),
    "none": ("○", "default"),
    "measured": ("✓", "green"),
    "failed": ("✗", "red"),
    "screened": ("○", "default"),
}


def text(words: str, style: str = "") -> Text:
    return Text(clean(words), style=style, overflow="fold")


def full(figure: Figure, *, below: bool = True) -> Text:
    """The value, and dim below it (or behind it) the interval and n."""
    shown = text(figure.value, "bold")
    behind = [part for part in (figure.interval, figure.n) if part]
    if behind:
        shown.append(clean(("\n" if below else "  ") + ("\n" if below else ", ").join(behind)), style="dim not bold")
    return shown


def grid(*columns: str, title: str | None = None) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=text(title) if title else None,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in columns:
        table.add_column(text(name), overflow="fold")
    return table


def short(figure: Figure, *, n: bool = True) -> Text:
    """A figure in a narrow column: value, interval and n below each other."""
    return full(Figure(figure.value, figure.interval.replace(" to ", "…"), figure.n.replace("n = ", "n=") if n else ""))


def beside(figure: Figure) -> Text:
    """The value with its interval on one line, without n."""
    return full(Figure(figure.value, figure.interval.replace(" to ", "…")), below=False)
