"""The roofline (Williams, Waterman & Patterson 2009): what the device reaches at most, and where the models stand below it."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.records import Measurement, Peaks, Study
from edgewise.report import charts, figures, numbers
from edgewise.report.charts import Plot, text
from edgewise.report.markup import Markup, tag
from edgewise.report.scale import Scale, log_range


@dataclass(frozen=True)
class Spot:
    """One model: operations per byte of its file, and billions of operations per second; a multiply-accumulate is two."""

    name: str
    series: int
    intensity: float
    gops: float
    share: float | None


def measurements(study: Study) -> tuple[tuple[str, Measurement], ...]:
    """The reference and the chosen one, as far as they were measured; the verdict's records before the trials'."""
    verdict, reference, picked = study.verdict, figures.find(study, study.reference), figures.chosen(study)
    before = verdict.reference_measurement if verdict else reference.measurement if reference else None
    after = verdict.measurement if verdict else picked.measurement if picked else None
    if verdict and verdict.trial == study.reference:
        after = None
    return tuple((name, found) for name, found in (("reference", before), ("chosen", after)) if found is not None)


def spots(study: Study) -> tuple[Spot, ...]:
    """Each model at its own operation count, as far as the record holds one: without steps, the chosen one's is the dense model's."""
    counted = {"reference": study.model.operations, "chosen": study.steps[-1].operations if study.steps else study.model.operations}
    return tuple(
        Spot(
            name,
            5 if name == "reference" else 0,
            2 * counted[name] / found.size_bytes,
            2 * counted[name] / found.latency.p50_ms / 1e6,
            found.roofline_share,
        )
        for name, found in measurements(study)
        if counted[name] and found.size_bytes and found.latency.samples_ms and found.latency.p50_ms > 0
    )


def roofs(study: Study) -> Peaks | None:
    """The measured peaks at the thread count of the chosen one."""
    threads = next((found.execution.threads for _, found in reversed(measurements(study))), None)
    return next((peaks for peaks in study.device.peaks if peaks.threads == threads), None)


def missing(study: Study) -> tuple[str, ...]:
    """What the records don't hold, said aloud."""
    said = []
    if not study.device.peaks:
        said.append("The device's peaks weren't measured, so there are no roofs to draw.")
    elif roofs(study) is None:
        said.append("The device's peaks weren't measured at this number of threads, so there are no roofs to draw.")
    if not measurements(study):
        said.append("Neither the reference nor a chosen model has been timed.")
    elif not study.model.operations:
        said.append("The model's operations weren't counted.")
    for name, found in measurements(study):
        if found.roofline_share is None:
            said.append(f"The share of the roof wasn't computed for the {name}.")
    return tuple(said)


def _roof(plot: Plot, peak: float, memory: float, words: str, series: int) -> Markup:
    """min(peak, intensity × bandwidth): a slope up to the ridge, then flat."""
    ridge = peak / memory
    left = plot.x.low
    start = f"M{plot.x(left):.1f} {plot.y(min(peak, left * memory)):.1f}"
    bend = f"L{plot.x(ridge):.1f} {plot.y(peak):.1f}" if left < ridge < plot.x.high else ""
    right = plot.x.high
    end = f"L{plot.x(right):.1f} {plot.y(min(peak, right * memory)):.1f}"
    label = text(plot.x.stop - 4, plot.y(peak) - 7, words, anchor="end", class_=f"{charts.colour(series)}-text halo")
    return tag("g", tag("path", d=start + bend + end, class_="roof"), label, class_=charts.colour(series))


def _draw_spot(plot: Plot, spot: Spot, others: list[charts.Box]) -> Markup:
    x, y = plot.x(spot.intensity), plot.y(spot.gops)
    words = f"{spot.name}: {numbers.significant(spot.gops)} GOP/s"
    share = f", {100 * spot.share:.0f} % of its roof" if spot.share is not None else ""
    box = charts.place_label(x, y, charts.text_width(words), 16, plot.box, others)
    others.append(box)
    shape = charts.marker(3 if spot.name == "reference" else 1, x, y, 6)
    label = text(box[0] + 2, box[3] - 4, words, class_="name halo")
    return tag("g", tag("title", words + share), shape, label, class_=charts.colour(spot.series))


def chart(study: Study, width: int) -> Markup | None:
    """None when the records hold no model to draw."""
    found, peaks = spots(study), roofs(study)
    if not found:
        return None
    height = round(width * (0.62 if width > 400 else 0.85))
    xs, ys = [s.intensity for s in found], [s.gops for s in found]
    if peaks:
        xs += [peaks.fp32_gflops / peaks.memory_gbps * factor for factor in (0.3, 3)]
        ys += [peaks.fp32_gflops, peaks.int8_gops * 1.4]
    x_low, x_high = log_range(xs, pad=0.1)
    y_low, y_high = log_range(ys, pad=0.15)
    plot = Plot(Scale(x_low, x_high, 56, width - 14, log=True), Scale(y_low, y_high, height - 46, 44, log=True))
    left, _, right, bottom = plot.box
    about = 5 if width > 400 else 3
    lines = []
    if peaks:
        lines.append(_roof(plot, peaks.int8_gops, peaks.memory_gbps, f"int8 peak {numbers.significant(peaks.int8_gops)} GOP/s", 0))
        lines.append(_roof(plot, peaks.fp32_gflops, peaks.memory_gbps, f"fp32 peak {numbers.significant(peaks.fp32_gflops)} GFLOP/s", 5))
    taken = [(plot.x(s.intensity) - 8, plot.y(s.gops) - 8, plot.x(s.intensity) + 8, plot.y(s.gops) + 8) for s in found]
    if peaks:
        taken += [(left, plot.y(peak) - 20, right, plot.y(peak) + 4) for peak in (peaks.int8_gops, peaks.fp32_gflops)]
    return charts.drawing(
        width,
        height,
        "Roofline: " + "; ".join(f"{s.name} reaches {numbers.significant(s.gops)} billion operations per second" for s in found),
        text(16, 24, "Billion operations per second", class_="title"),
        charts.axis_left(plot, numbers.plain, about),
        charts.axis_bottom(plot, numbers.plain, about),
        text(right, bottom + 36, "operations per byte of the model, log scale", anchor="end"),
        *lines,
        *(_draw_spot(plot, spot, taken) for spot in found),
        role="img",
    )
