"""Quality against latency or size: every trial on the validation split, the front, the budget, the reference and the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from edgewise.records import Study, Trial
from edgewise.report import charts, figures, numbers, palette
from edgewise.report.charts import Box, Plot, line, text
from edgewise.report.markup import Markup, join, tag
from edgewise.report.scale import Scale, linear_range, log_range

Against = Literal["latency", "size"]


@dataclass(frozen=True)
class Point:
    """One trial as drawn. `x` in milliseconds or bytes, `y` the metric on the validation split."""

    trial: Trial
    number: int  # of its row in the table
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float


def points(study: Study, against: Against) -> tuple[Point, ...]:
    """The trials that have both coordinates."""
    found = []
    for number, trial in enumerate(study.trials, 1):
        at = figures.trial_latency(study, trial) if against == "latency" else (trial.size_bytes,) * 3 if trial.size_bytes else None
        if at is None or trial.quality is None or not at[0] or at[0] <= 0:
            continue
        value = trial.quality.value
        found.append(Point(trial, number, float(at[0]), float(at[1] or at[0]), float(at[2] or at[0]), value.value, value.low, value.high))
    return tuple(found)


def front(found: Sequence[Point]) -> tuple[Point, ...]:
    """Those that no other one beats on both axes, by their estimates, from the smallest x on. Screened ones aren't candidates."""
    best: list[Point] = []
    for point in sorted((p for p in found if p.trial.state == "measured"), key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return tuple(best)


def limits(study: Study, against: Against) -> tuple[float | None, float | None]:
    """(largest x, smallest y) that the budget allows, None where nothing binds. Quality is held against the reference's on validation."""
    budget, reference = study.budget, figures.find(study, study.reference)
    x: float | None = None
    if against == "size":
        x = budget.size_bytes
    else:
        base = figures.reference_latency_ms(study)
        bounds = [base / budget.speedup] if budget.speedup and base else []
        bounds += [budget.latency_ms] if budget.latency_ms and budget.percentile == "p50" else []
        x = min(bounds, default=None)
    if reference is None or reference.quality is None:
        return x, None
    value = reference.quality.value.value
    return x, value - budget.allowed_drop(value)


def _floor(found: Sequence[Point], study: Study, y_min: float | None) -> float:
    """Below this, points are drawn at the edge: one collapsed model must not press all others into a line."""
    top = max(p.y for p in found)
    wide = median(p.y_high - p.y_low for p in found) / 2
    return min(top, y_min if y_min is not None else top) - 8 * max(study.budget.max_drop, wide, 0.0025)


def _frame(found: Sequence[Point], width: int, height: int, lowest: float, x_max: float | None, y_min: float | None) -> Plot:
    xs = [end for p in found for end in (p.x_low, p.x_high)] + ([x_max] if x_max else [])
    ys = [end for p in found if p.y >= lowest for end in (max(p.y_low, lowest), p.y_high)] + ([y_min] if y_min is not None else [])
    low, high = linear_range(ys, least=0.004)
    x_low, x_high = log_range(xs, pad=0.12)
    return Plot(Scale(x_low, x_high, 56, width - 14, log=True), Scale(low, min(high, 1 + 0.05 * (1 - low)), height - 46, 82))


def _region(plot: Plot, x_max: float | None, y_min: float | None) -> Markup | None:
    """The corner of the plot where the two limits that are drawn are met."""
    if x_max is None and y_min is None:
        return None
    left, top, right, bottom = plot.box
    edge_x, edge_y = plot.x(x_max) if x_max else right, plot.y(y_min) if y_min is not None else bottom
    return tag(
        "g",
        tag("path", d=f"M{left:.1f} {top:.1f}H{edge_x:.1f}V{edge_y:.1f}H{left:.1f}Z", class_="region"),
        line(edge_x, top, edge_x, edge_y, "limit") if x_max else None,
        line(left, edge_y, edge_x, edge_y, "limit") if y_min is not None else None,
    )


def _region_label(plot: Plot, x_max: float | None, y_min: float | None) -> Markup | None:
    """Named where there is room for the words."""
    left, top, right, bottom = plot.box
    wide = (plot.x(x_max) if x_max else right) - left
    high = (plot.y(y_min) if y_min is not None else bottom) - top
    if (x_max is None and y_min is None) or wide < 124 or high < 26:
        return None
    return text(left + 8, top + 17, "within the budget", class_="within")


def _staircase(plot: Plot, found: Sequence[Point]) -> Markup | None:
    best = front(found)
    if not best:
        return None
    steps = "".join(
        f"V{plot.y(p.y):.1f}H{plot.x(after):.1f}" for p, after in zip(best, [*(q.x for q in best[1:]), plot.x.high], strict=True)
    )
    return tag("path", d=f"M{plot.x(best[0].x):.1f} {plot.y(best[0].y):.1f}{steps}", class_="front")


def tip(study: Study, point: Point) -> tuple[str, ...]:
    """What hover and focus show, a line each."""
    trial = point.trial
    roles = [
        word
        for word, key in (("chosen", study.verdict.trial if study.verdict else None), ("reference", study.reference))
        if trial.key == key
    ]
    role = f" ({', '.join(roles)})" if roles else ""
    state = "" if trial.state == "measured" else f" · {trial.state}"
    lines = [
        f"{figures.name(trial)}{role}{state}",
        str(trial.execution),
        f"{study.data.metric} {figures.quality(trial.quality)}, {trial.quality.split if trial.quality else 'validation'}",
        f"change {figures.drop(trial.drop)}" if trial.drop else "",
        f"speedup {figures.speedup(trial.speedup)}"
        if trial.speedup
        else "timed alone, not against the reference"
        if trial.measurement
        else "",
        f"latency p50 {figures.latency(trial.measurement.latency)}" if trial.measurement else "",
        f"size {figures.size(trial.size_bytes)}" if trial.size_bytes else "",
        f"peak memory {figures.memory(trial.measurement)}" if trial.measurement else "",
        figures.remark(study, trial),
    ]
    return tuple(words for words in lines if words)


def _draw_point(study: Study, plot: Plot, point: Point, series: int, lowest: float, *, linked: bool) -> Markup:
    x, y = plot.x(point.x), plot.y(point.y)
    chosen = study.verdict is not None and point.trial.key == study.verdict.trial
    lines = tip(study, point)
    below = point.y < lowest
    bars = (
        None if below else line(x, plot.y(point.y_low), x, plot.y(point.y_high), "range"),
        line(plot.x(point.x_low), y, plot.x(point.x_high), y, "range") if point.x_high > point.x_low and not below else None,
    )
    arrow = tag("path", d=f"M{x - 4:.1f} {y - 20:.1f}L{x:.1f} {y - 14:.1f}L{x + 4:.1f} {y - 20:.1f}", class_="range") if below else None
    at_y = y - 6 if below else y
    ring = tag("circle", cx=x, cy=at_y, r=10.0, class_="ring") if chosen else None
    classes = f"{charts.colour(series)}{'' if point.trial.state == 'measured' else ' hollow'}"
    shape = charts.marker(series, x, at_y, 5.5 if chosen else 4.75)
    hit = tag("circle", cx=x, cy=at_y, r=12.0, fill="transparent") if linked else None
    inside = (*bars, arrow, ring, hit, shape)
    if not linked:
        return tag("g", tag("title", "\n".join(lines)), *inside, class_=f"{classes} point")
    return charts.point(f"#trial-{point.number}", lines, *inside, class_=classes)


def _labels(study: Study, plot: Plot, found: Sequence[Point], lowest: float, within: Box | None, *, figured: bool) -> Markup:
    """Names for the reference and the chosen one, where they cover the least; `figured` adds their figures, for a file without hover."""
    taken: list[Box] = [(plot.x(p.x) - 7, plot.y(p.y) - 7, plot.x(p.x) + 7, plot.y(p.y) + 7) for p in found]
    taken += [(plot.x(p.x) - 2, plot.y(p.y_high), plot.x(p.x) + 2, plot.y(p.y_low)) for p in found if p.y >= lowest]
    taken += [within] if within else []
    parts = []
    for word, key in (("chosen", study.verdict.trial if study.verdict else None), ("reference", study.reference)):
        for p in found:
            if p.trial.key != key or (word == "reference" and study.verdict and study.verdict.trial == key):
                continue
            speed = numbers.times(p.trial.speedup.ratio.value) if p.trial.speedup else "1×" if word == "reference" else ""
            said = ", ".join(filter(None, (speed, numbers.percent(p.y, (p.y_high - p.y_low) / 2)))) if figured else ""
            width = charts.text_width(f"{word}  {said}")
            box = charts.place_label(plot.x(p.x), plot.y(p.y), width, 16, plot.box, taken)
            taken.append(box)
            anchor, at = ("end", box[2] - 2) if box[0] < plot.x(p.x) - width / 2 else ("start", box[0] + 2)
            parts.append(
                tag(
                    "text",
                    word,
                    tag("tspan", f"  {said}", class_="figures") if said else None,
                    x=at,
                    y=box[3] - 4,
                    text_anchor=anchor,
                    class_="name halo",
                )
            )
    return tag("g", *parts)


def _speed_axis(study: Study, plot: Plot, about: int) -> Markup | None:
    """The same axis read as speedup, on top."""
    base = figures.reference_latency_ms(study)
    if not base:
        return None
    left, top, right, _ = plot.box
    scale = Scale(base / plot.x.high, base / plot.x.low, right, left, log=True)
    parts, free_to = [], right + 16
    for value in scale.ticks(about):
        x, words = scale(value), f"{numbers.plain(value)}×"
        half = charts.text_width(words) / 2
        if x + half > free_to or x - half < left - 20:
            continue
        parts += [line(x, top - 4, x, top, "frame"), text(x, top - 9, words, anchor="middle")]
        free_to = x - half - 8
    return tag("g", line(left, top, right, top, "frame"), *parts)


def _legend(rungs: Sequence[str], found: Sequence[Point], top: float, width: int) -> tuple[Markup, float]:
    entries = [
        (tag("g", charts.marker(i, 0, 0, 4.75), class_=charts.colour(i)), charts.cut(rung or "trial", 24)) for i, rung in enumerate(rungs)
    ]
    if any(p.trial.state == "screened" for p in found):
        entries.append((tag("g", charts.marker(0, 0, 0, 4.5), class_="s5 hollow"), "hollow: screened"))
    entries.append((line(-7, 0, 7, 0, "front"), "Pareto front"))
    return charts.legend(entries, 16, top, width - 8)


def _stands_on(found: Sequence[Point]) -> str:
    """The split, its n, and what the bars are."""
    values = [p.trial.quality for p in found if p.trial.quality]
    ns = sorted({value.value.n for value in values})
    n = numbers.count(ns[0]) if len(ns) == 1 else f"{numbers.count(ns[0])} to {numbers.count(ns[-1])}"
    return f"{values[0].split}, n = {n}; bars: {100 * values[0].value.confidence:.0f} % intervals"


def pareto(study: Study, against: Against, width: int, height: int | None = None, *, linked: bool = True, card: bool = False) -> Markup:
    """The chart. `linked` makes each point a link to its row of the table; `card` draws a background of its own."""
    found = points(study, against)
    height = height or round(width * (0.72 if width > 400 else 0.95))
    measure = "time per call" if against == "latency" else "file size"
    title = f"{charts.cut(numbers.capital(study.data.metric), 18)} against {measure}"
    back = tag("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=10, class_="card") if card else None
    if not found:
        words = "No trial has both figures yet."
        return charts.drawing(width, height if card else 72, title, back, text(16, 24, title, class_="title"), text(16, 56, words))
    rungs = tuple(dict.fromkeys(p.trial.rung for p in found))
    below, legend_height = _legend(rungs, found, height - 10, width)
    below, _ = _legend(rungs, found, height - legend_height + 10, width)
    x_max, y_min = limits(study, against)
    lowest = _floor(found, study, y_min)
    plot = _frame(found, width, round(height - legend_height), lowest, x_max, y_min)
    about = 5 if width > 400 else 3
    step = plot.y.ticks(about + 1)
    fine = len(step) > 1 and 100 * (step[1] - step[0]) < 0.99
    left, top, right, bottom = plot.box
    unit = numbers.ms if against == "latency" else numbers.size
    edge_note = sum(p.y < lowest for p in found)
    words = "p50, log scale" if against == "latency" else "log scale"
    return charts.drawing(
        width,
        height,
        f"{title}: {numbers.plural(len(found), 'trial')} on the validation split. Each is in the table of trials too.",
        back,
        text(16, 24, title, class_="title"),
        text(16, 43, charts.cut(_stands_on(found), (width - 26) // 7)),
        _region(plot, x_max, y_min),
        charts.axis_left(plot, lambda v: f"{100 * v:.{1 if fine else 0}f} %", about + 1),
        charts.axis_bottom(plot, lambda v: unit(v, round_number=True), about),
        _region_label(plot, x_max, y_min),
        _speed_axis(study, plot, about) if against == "latency" else None,
        text(right, bottom + 36, f"{measure}, {words}", anchor="end"),
        text(left, bottom + 36, f"▾ {edge_note} below the scale") if edge_note else None,
        _staircase(plot, found),
        join(_draw_point(study, plot, p, rungs.index(p.trial.rung), lowest, linked=linked) for p in sorted(found, key=lambda p: p.x)),
        _labels(study, plot, found, lowest, (left, top, left + 126, top + 24) if x_max or y_min is not None else None, figured=card),
        below,
    )


def pareto_svg(study: Study, *, width: int = 760, height: int = 460, dark: bool | None = None, against: Against = "latency") -> str:
    """The chart as a file of its own, for a README: its own background, no scripts, no outside font.

    `dark` None follows the reader's system; True and False fix it (for GitHub's `<picture>`).
    """
    chart = pareto(study, against, width, height, linked=False, card=True)
    rules = charts.css()
    style = palette.resolved(rules, palette.DARK if dark else palette.LIGHT)
    if dark is None:
        style += f"@media (prefers-color-scheme: dark) {{ {palette.resolved(rules, palette.DARK)} }}"
    opening, _, rest = chart.partition(">")
    return f'{opening} width="{width}" height="{height}"><style>{style}</style>{rest}\n'
