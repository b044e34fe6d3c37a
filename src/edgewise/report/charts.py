"""What every chart is built of: the drawing, markers with a shape per series, axes, legends, labels that keep out of each other's way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from edgewise.report.markup import Markup, join, tag
from edgewise.report.scale import Scale

Box = tuple[float, float, float, float]  # left, top, right, bottom

SERIES = 6  # colours and shapes; a seventh series starts over with the first shape and the next colour


@dataclass(frozen=True)
class Plot:
    """The inside of the axes, and the two scales over it."""

    x: Scale
    y: Scale

    @property
    def box(self) -> Box:
        return self.x.start, self.y.stop, self.x.stop, self.y.start


def css() -> str:
    """The rules that every chart is drawn by."""
    return files("edgewise.report").joinpath("chart.css").read_text(encoding="utf-8")


def drawing(width: float, height: float, label: str, *children: Markup | None, **attributes: object) -> Markup:
    """The `<svg>`: scales with its place, and says to a screen reader what it shows."""
    attributes = {"class_": "chart", "role": "group", **attributes}
    return tag("svg", *children, viewBox=f"0 0 {width:g} {height:g}", aria_label=label, xmlns="http://www.w3.org/2000/svg", **attributes)


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str | None = None) -> Markup:
    return tag("text", words, x=float(x), y=float(y), text_anchor=None if anchor == "start" else anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", class_=class_)


def text_width(words: str, size: float = 12) -> float:
    """A guess on the wide side: SVG can't be asked before it is drawn."""
    return 0.6 * size * len(words)


def cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def _polygon(x: float, y: float, corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "Z"


def marker(series: int, x: float, y: float, r: float = 5.0) -> Markup:
    """The shape of a series: circle, square, triangle, diamond, cross, triangle down."""
    r = float(r)
    corners: dict[int, Sequence[tuple[float, float]]] = {
        1: ((-0.88 * r, -0.88 * r), (0.88 * r, -0.88 * r), (0.88 * r, 0.88 * r), (-0.88 * r, 0.88 * r)),
        2: ((0, -1.15 * r), (1.08 * r, 0.8 * r), (-1.08 * r, 0.8 * r)),
        3: ((0, -1.25 * r), (1.25 * r, 0), (0, 1.25 * r), (-1.25 * r, 0)),
        4: tuple((a * r, b * r) for a, b in ((-1.1, -0.4), (-0.4, -0.4), (-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4)))
        + tuple((a * r, b * r) for a, b in ((1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4))),
        5: ((0, 1.15 * r), (1.08 * r, -0.8 * r), (-1.08 * r, -0.8 * r)),
    }
    shape = (series + series // SERIES) % SERIES
    if shape == 0:
        return tag("circle", cx=float(x), cy=float(y), r=r, class_="mark")
    return tag("path", d=_polygon(x, y, corners[shape]), class_="mark")


def colour(series: int) -> str:
    return f"s{series % SERIES}"


def point(href: str, lines: Sequence[str], *marks: Markup | None, class_: str) -> Markup:
    """Marks that lead to the row of a table with the same figures; `lines` are what hover, focus and a screen reader tell of them."""
    told = "\n".join(lines)
    return tag("a", tag("title", told), *marks, class_=f"{class_} point", href=href, aria_label="; ".join(lines), data_tip=told)


def axis_bottom(plot: Plot, write: Callable[[float], str], about: int, room: float = 14) -> Markup:
    """Ticks and labels below the plot; labels that would touch, or reach more than `room` past its right end, are left out."""
    left, _, right, bottom = plot.box
    parts: list[Markup] = []
    free_from = left - 30
    for value in plot.x.ticks(about):
        x, words = plot.x(value), write(value)
        half = text_width(words) / 2
        if x - half < free_from or x + half > right + room:
            continue
        parts += [line(x, bottom, x, bottom + 4, "frame"), text(x, bottom + 18, words, anchor="middle")]
        free_from = x + half + 8
    return tag("g", line(left, bottom, right, bottom, "frame"), *parts)


def axis_left(plot: Plot, write: Callable[[float], str], about: int) -> Markup:
    """Grid lines and their labels, left of the plot."""
    left, _, right, _ = plot.box
    parts: list[Markup] = []
    for value in plot.y.ticks(about):
        y = plot.y(value)
        parts += [line(left, y, right, y, "grid"), text(left - 8, y + 4, write(value), anchor="end")]
    return tag("g", *parts)


def legend(entries: Sequence[tuple[Markup, str]], left: float, top: float, right: float) -> tuple[Markup, float]:
    """Rows of (mark drawn at 0,0; words), wrapped between `left` and `right`; and the height that they take."""
    parts: list[Markup] = []
    x, y = left, top
    for mark, words in entries:
        needed = 20 + text_width(words, 11) + 12
        if x > left and x + needed - 12 > right:
            x, y = left, y + 20
        parts += [tag("g", mark, transform=f"translate({x + 6:.1f} {y - 4:.1f})"), text(x + 18, y, words)]
        x += needed
    return tag("g", *parts), y - top + 20


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def place_label(x: float, y: float, width: float, height: float, inside: Box, taken: Sequence[Box]) -> Box:
    """The box beside (x, y) that covers the least of what is taken and stays inside; near ones first."""
    candidates: list[tuple[float, Box]] = []
    for rank, (dx, dy) in enumerate(((1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1.6), (0, 1.6), (1, -2.4), (-1, -2.4), (1, 2.4), (-1, 2.4))):
        left = x + 11 if dx > 0 else x - 11 - width if dx < 0 else x - width / 2
        middle = y + dy * (height / 2 + 6)
        box = (left, middle - height / 2, left + width, middle + height / 2)
        outside = width * height - overlap(box, inside)
        cost = 4 * outside + sum(overlap(box, other) for other in taken) + 4 * rank
        candidates.append((cost, box))
    return min(candidates)[1]


def responsive(draw: Callable[[int], Markup], wide: int = 540, narrow: int = 340) -> Markup:
    """The chart drawn twice, for a desk and for a phone: scaled down, its words couldn't be read. The style sheet shows one of them."""
    return join([tag("div", draw(wide), class_="only-wide"), tag("div", draw(narrow), class_="only-narrow")])
