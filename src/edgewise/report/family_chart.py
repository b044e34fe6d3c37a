"""What was lost against how much faster it became: the members of a family with both intervals, the dense model, and faint, the trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.records import Beside, Interval, Study, Trial
from edgewise.report import beside, charts, figures, numbers, words
from edgewise.report.charts import Box, Plot, line, text
from edgewise.report.markup import Markup, join, tag
from edgewise.report.scale import Scale, linear_range, log_range

FAR = 4  # a limit is drawn where it is within so many times the span of what the members lost


@dataclass(frozen=True)
class Member:
    """A member as drawn, at its verdict. `number` is that of its row in the table."""

    study: Study
    number: int
    speedup: Interval
    change: Interval  # of the metric, 0..1, paired with the dense model
    met: bool


def members(studies: Sequence[Study]) -> tuple[Member, ...]:
    """Those that have a verdict."""
    return tuple(
        Member(study, number, study.verdict.speedup.ratio, study.verdict.drop.difference, study.verdict.met)
        for number, study in enumerate(studies, 1)
        if study.verdict
    )


def trials(studies: Sequence[Study]) -> tuple[tuple[Trial, float, float], ...]:
    """(trial, speedup, change) of every trial that has both; one that several members share counts once."""
    found = {
        trial.key: (trial, trial.speedup.ratio.value, trial.drop.difference.value)
        for study in studies
        for trial in study.trials
        if trial.speedup and trial.drop and trial.key != study.reference and trial.speedup.ratio.value > 0
    }
    return tuple(found.values())


def allowed(studies: Sequence[Study]) -> float:
    """The least that a member may lose."""
    judged = [(study.budget, study.verdict) for study in studies if study.verdict]
    return min((budget.allowed_drop(verdict.reference_quality.value.value) for budget, verdict in judged), default=1.0)


def _frame(
    found: Sequence[Member],
    others: Sequence[Beside],
    tried: Sequence[tuple[Trial, float, float]],
    limit: float,
    width: int,
    height: int,
) -> Plot:
    """Holds every member and what is beside them. Trials that lost far more, and a limit far away, would press all into a line."""
    changes = [*(member.change for member in found), *(one.drop.difference for one in others)]
    speeds = [*(member.speedup for member in found), *(one.speedup.ratio for one in others)]
    ys = [0.0, *(end for change in changes for end in (change.low, change.high))]
    if limit <= FAR * (max(ys) - min(ys)):
        ys.append(-limit)
    least = min(ys) - 0.6 * max(max(ys) - min(ys), 0.01)
    ys += [change for _, _, change in tried if change >= least]
    xs = [1.0, *(member.study.budget.speedup or 1.0 for member in found), *(speed for _, speed, _ in tried)]
    xs += [end for speed in speeds for end in (speed.low, speed.high)]
    low, high = linear_range(ys, pad=0.12, least=0.004)
    x_low, x_high = log_range(xs, pad=0.1)
    return Plot(Scale(x_low, x_high, 56, width - 14, log=True), Scale(low, high, height - 46, 56))


def _asked_axis(plot: Plot, studies: Sequence[Study]) -> Markup:
    """The axis is marked at the dense model, and at what was asked of every member, up to where it stands."""
    left, top, right, bottom = plot.box
    parts, free_from = [line(left, bottom, right, bottom, "frame")], left - 30
    for asked in sorted({1.0, *(study.budget.speedup for study in studies if study.budget.speedup)}):
        x, said = plot.x(asked), f"{asked:g}×"
        half = charts.text_width(said) / 2
        parts += [line(x, top, x, bottom, "grid"), line(x, bottom, x, bottom + 4, "frame")]
        if x - half >= free_from and x + half <= right + 14:
            parts.append(text(x, bottom + 18, said, anchor="middle"))
            free_from = x + half + 8
    return tag("g", *parts)


def _limit(plot: Plot, limit: float) -> Markup | None:
    """Everything above the line keeps to the limit on what may be lost."""
    if limit >= 1:
        return None
    left, top, right, _ = plot.box
    y = plot.y(-limit)
    further = " (further down)" if -limit < plot.y.low else ""
    said = f"at most {numbers.plain(100 * limit)} point{'s' * (limit != 0.01)} lost{further}"
    return tag(
        "g",
        tag("path", d=f"M{left:.1f} {top:.1f}H{right:.1f}V{y:.1f}H{left:.1f}Z", class_="region"),
        None if further else line(left, y, right, y, "limit"),
        text(left + 8, y - 7, said, class_="within") if y - top > 26 else None,
    )


def tip(member: Member) -> tuple[str, ...]:
    """What hover and focus show, a line each."""
    study, verdict = member.study, member.study.verdict
    if verdict is None:
        return ()
    picked = figures.chosen(study)
    lines = (
        f"asked {words.member(study)}: {'met' if member.met else 'missed'}",
        f"speedup {figures.speedup(verdict.speedup)}",
        f"change {figures.drop(verdict.drop)}, in points",
        f"{study.data.metric} {figures.quality(verdict.quality)}, test",
        f"size {figures.size(verdict.measurement.size_bytes)}, peak memory {figures.memory(verdict.measurement)}",
        f"{figures.name(picked)} on {picked.execution}" if picked else "",
    )
    return tuple(said for said in lines if said)


def _cross(plot: Plot, member: Member) -> tuple[Markup, Markup]:
    x, y = plot.x(member.speedup.value), plot.y(member.change.value)
    return (
        line(x, plot.y(member.change.low), x, plot.y(member.change.high), "range"),
        line(plot.x(member.speedup.low), y, plot.x(member.speedup.high), y, "range"),
    )


def _draw_member(plot: Plot, member: Member) -> Markup:
    x, y = plot.x(member.speedup.value), plot.y(member.change.value)
    hit = tag("circle", cx=x, cy=y, r=12.0, fill="transparent")
    marks = (*_cross(plot, member), hit, charts.marker(0 if member.met else 2, x, y, 5.5))
    colour = charts.colour(0) if member.met else f"{charts.colour(1)} hollow"
    return charts.point(f"#member-{member.number}", tip(member), *marks, class_=colour)


def _draw_trial(x: float, y: float, trial: Trial) -> Markup:
    return tag("g", tag("title", figures.name(trial)), charts.marker(0, x, y, 3))


def _labels(plot: Plot, found: Sequence[Member], others: Sequence[Beside], tried: Sequence[tuple[float, float]]) -> Markup:
    """Names where they cover the least."""
    spots = [(member.speedup.value, member.change.value, words.member(member.study)) for member in found] + [(1.0, 0.0, "dense")]
    spots += [(one.speedup.ratio.value, one.drop.difference.value, charts.cut(one.name, 20)) for one in others]
    taken: list[Box] = [(plot.x(x) - 8, plot.y(y) - 8, plot.x(x) + 8, plot.y(y) + 8) for x, y, _ in spots]
    taken += [(x - 4, y - 4, x + 4, y + 4) for x, y in tried]
    taken += [(plot.x(m.speedup.value) - 2, plot.y(m.change.high), plot.x(m.speedup.value) + 2, plot.y(m.change.low)) for m in found]
    parts = []
    for x, y, name in spots:
        box = charts.place_label(plot.x(x), plot.y(y), charts.text_width(name), 16, plot.box, taken)
        taken.append(box)
        parts.append(text(box[0] + 2, box[3] - 4, name, class_="name halo"))
    return join(parts)


def _legend(found: Sequence[Member], others: bool, tried: bool, left: float, top: float, right: float) -> tuple[Markup, float]:
    entries = [(tag("g", charts.marker(3, 0, 0, 4.5), class_="s5"), "dense")]
    if any(member.met for member in found):
        entries.append((tag("g", charts.marker(0, 0, 0, 4.75), class_="s0"), "budget met"))
    if any(not member.met for member in found):
        entries.append((tag("g", charts.marker(2, 0, 0, 4.75), class_="s1 hollow"), "budget missed"))
    if others:
        entries.append((tag("g", charts.marker(beside.SERIES, 0, 0, 4.75), class_=charts.colour(2)), "another tool's"))
    if tried:
        entries.append((tag("g", charts.marker(0, 0, 0, 3), class_="s5 faint"), "trial, validation"))
    return charts.legend(entries, left, top, right)


def _tick(change: float, fine: bool) -> str:
    """In points, without decimals where the ticks are whole."""
    said = numbers.points(change, 0.01)
    return said if fine else said.partition(".")[0]


def chart(studies: Sequence[Study], width: int) -> Markup:
    """The chart; each member is a link to its row."""
    found, others, tried, limit = members(studies), beside.of(studies), trials(studies), allowed(studies)
    metric = charts.cut(studies[0].data.metric, 18)
    title = f"Change of {metric} against speedup"
    height = round(width * (0.62 if width > 400 else 1.05))
    if not found:
        return charts.drawing(width, 72, title, text(16, 24, title, class_="title"), text(16, 56, "No member has come to a verdict yet."))
    legend_height = _legend(found, bool(others), bool(tried), 16, 0, width - 8)[1]
    plot = _frame(found, others, tried, limit, width, round(height - legend_height))
    left, _, right, bottom = plot.box
    inside = [(speed, change, trial) for trial, speed, change in tried if change >= plot.y.low]
    spots = [(plot.x(speed), plot.y(change)) for speed, change, _ in inside]
    about = 6 if width > 400 else 4
    steps = plot.y.ticks(about)
    fine = len(steps) > 1 and 100 * (steps[1] - steps[0]) < 0.99
    way = sorted([(1.0, 0.0), *((member.speedup.value, member.change.value) for member in found)])
    path = "M" + "L".join(f"{plot.x(x):.1f} {plot.y(y):.1f}" for x, y in way)
    below = len(tried) - len(inside)
    return charts.drawing(
        width,
        height,
        f"{title}: {numbers.plural(len(found), 'member')} and the dense model. Each is in the table of members too.",
        text(16, 24, title, class_="title"),
        text(16, 43, "points, paired with the dense model"),
        _limit(plot, limit),
        charts.axis_left(plot, lambda v: _tick(v, fine), about),
        _asked_axis(plot, studies),
        text(right, bottom + 36, "speedup, marked where it was asked for; log scale", anchor="end"),
        text(left, bottom + 36, f"▾ {numbers.plural(below, 'trial')} below") if below else None,
        tag("g", *(_draw_trial(x, y, trial) for (x, y), (_, _, trial) in zip(spots, inside, strict=True)), class_="s5 faint"),
        tag("path", d=path, class_="leader"),
        tag("g", tag("title", "the dense model"), charts.marker(3, plot.x(1), plot.y(0), 5.5), class_="s5"),
        beside.marks(plot, others),
        join(_draw_member(plot, member) for member in found),
        _labels(plot, found, others, spots),
        _legend(found, bool(others), bool(tried), 16, height - legend_height + 10, width - 8)[0],
    )
