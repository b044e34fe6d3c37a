"""The report: one HTML file that needs nothing else. Sections here; charts, tables and sentences come from the modules beside it."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.records import Study, Verdict
from edgewise.report import (
    beside,
    charts,
    document,
    figures,
    latency_table,
    numbers,
    predictions,
    roofline,
    shapes,
    spread,
    steps,
    tables,
    widths,
    words,
)
from edgewise.report.document import Section
from edgewise.report.environment import data, environment, moment, reproduce
from edgewise.report.figures import Figure
from edgewise.report.markup import Markup, join, tag
from edgewise.report.pareto import pareto


def html(study: Study) -> str:
    """The study as one self-contained page: no network, no outside file, every word from the records escaped."""
    said = words.headline(study)
    about = f"{study.data.task} · {study.device.name}, {study.device.cpu} · {moment(study.created)}"
    return document.document(
        f"{said.badge}: {study.model.name}",
        document.banner(study.model.name, about),
        _sections(study),
        document.footer(f"edgewise {study.versions.get('edgewise', '')}; {numbers.plural(round(study.seconds), 'second')} of search."),
    )


def _sections(study: Study) -> Sequence[Section | None]:
    return (
        ("verdict", "Verdict", _verdict(study)),
        ("tradeoffs", "Trade-offs", _tradeoffs(study)),
        ("trials", "Every trial", _trials(study)),
        _classes(study.verdict, study),
        steps.section(study),
        widths.section(study),
        predictions.section(study.plans),
        latency_table.section(study),
        ("time", "Time and memory", _time(study)),
        ("roofline", "Roofline", _roofline(study)),
        _skipped(study),
        ("data", "Data", data(study)),
        ("environment", "Environment", environment(study)),
        ("reproduce", "Make it again", reproduce(study)),
    )


def _tile(name: str, figure: Figure, extra: str = "") -> Markup:
    small = [tag("small", part) for part in (figure.interval, figure.n, extra) if part]
    return tag("div", tag("dt", name), tag("dd", tag("b", figure.value), *small))


def _tiles(study: Study, verdict: Verdict) -> Markup:
    before, after = verdict.reference_measurement, verdict.measurement
    drop = figures.drop(verdict.drop)
    metric = study.data.metric
    was = figures.quality(verdict.reference_quality)
    now = figures.quality(verdict.quality)
    return tag(
        "dl",
        _tile("Speedup", figures.speedup(verdict.speedup)),
        _tile(f"Change of {metric}, points", drop, words.p_value(verdict.drop.p_value)),
        _tile(numbers.capital(metric), now, f"was {was.value}"),
        _tile("File size", figures.size(after.size_bytes), f"was {numbers.size(before.size_bytes)}"),
        _tile("Peak memory", figures.memory(after), f"was {numbers.size(before.peak_memory_bytes)}"),
        class_="tiles",
    )


def _verdict(study: Study) -> Markup:
    said, verdict = words.headline(study), study.verdict
    badge = tag("p", tables.state(said.badge, {"met": "good", "missed": "bad"}.get(said.state, "plain")), class_=f"badge-line {said.state}")
    sentence = tag("h1", said.sentence, id="verdict-title")
    if verdict is None:
        return join([badge, sentence, tag("p", f"Asked: {words.asked(study)}.")])
    picked = figures.chosen(study)
    which = None
    if picked is not None:
        label = "Chosen" if verdict.met else "Nearest point found"
        which = tag("p", f"{label}: ", tag("code", figures.name(picked)), f" on {picked.execution}", class_="which")
    return join(
        [
            badge,
            sentence,
            which,
            _tiles(study, verdict),
            tables.budget(study),
            shapes.table(verdict.shapes),
            beside.section(study),
            tag("p", words.can_show(study), class_="note"),
            tag("p", words.speed_means(study), class_="note"),
        ]
    )


def _tradeoffs(study: Study) -> Markup:
    words_ = (
        "Up and to the left is better. Each point is a trial; its time is the reference's p50 divided by the speedup that was "
        "measured side by side, or, where there is none, its own p50. Paired differences in the table are sharper than the bars "
        "here. Hover or focus a point for its recipe and figures; arrow keys go from point to point, Enter goes to its row."
    )
    budget = study.budget
    undrawn = [name for name, value in (("memory", budget.memory_bytes), ("energy", budget.energy_mj)) if value]
    undrawn += ["p95 latency"] if budget.latency_ms and budget.percentile == "p95" else []
    more = f" The budget's limit of {' and '.join(undrawn)} isn't drawn." if undrawn else ""
    drawings = [
        tag("figure", charts.responsive(lambda width: pareto(study, "latency", width))),
        tag("figure", charts.responsive(lambda width: pareto(study, "size", width))),
    ]
    return join([tag("p", words_ + more, class_="lead"), tag("div", *drawings, class_="pair")])


def _trials(study: Study) -> Markup:
    lead = (
        "Below a figure stand its 95 % interval and n. Change is paired with the reference on the same samples. A speedup is the "
        "median over pairs of blocks. Times of single trials were taken at different moments: compare speedups instead."
    )
    return join([tag("p", lead, class_="lead"), tables.trials(study)])


def _classes(verdict: Verdict | None, study: Study) -> Section | None:
    changes = spread.class_changes(verdict.reference_quality, verdict.quality) if verdict else ()
    if verdict is None or not changes:
        return None
    apart = sum(change.apart for change in changes)
    shown = len(spread.most_changed(changes))
    which = f"The {shown} of {len(changes)} classes that changed the most" if shown < len(changes) else f"All {len(changes)} classes"
    lead = (
        f"{which}, the largest loss first, each with its 95 % interval. "
        f"{'No class has' if not apart else numbers.plural(apart, 'class has', 'classes have')} intervals that lie apart; "
        "where they overlap, this many samples don't show a change on their own."
    )
    if len(changes) >= 20:
        lead += " Among so many classes, some would look changed by chance alone."
    chart = charts.responsive(lambda width: spread.classes(verdict, width) or Markup(), wide=760)
    table = tables.classes(verdict)
    content = join(
        [
            tag("p", lead, class_="lead"),
            tag("figure", chart),
            tables.macro(verdict),
            tag("details", tag("summary", f"Table of all {numbers.plural(len(changes), 'class', 'classes')}"), table),
        ]
    )
    return "classes", "Per class", content


def _time(study: Study) -> Markup:
    found = roofline.measurements(study)
    if not found:
        return tag("p", "Nothing was timed to the end.")
    rows = [(name, m.latency) for name, m in found]
    drawing = charts.responsive(lambda width: spread.latencies(rows, width) or Markup(), wide=760)
    n = min(len(m.latency.samples_ms) for _, m in found)
    thin = f" With {numbers.plural(n, 'call')}, p99 stands on the slowest {max(1, n // 100)}: read it as a hint." if n < 1000 else ""
    lead = (
        "Each tick is one call, the bar the middle half, the lines p50, p90 and p99. Both models ran in processes of their own; "
        f"the intervals count calls as independent.{thin} The speedup above comes from alternating blocks, not from dividing these."
    )
    return join([tag("p", lead, class_="lead"), tag("figure", drawing), tables.timings(study)])


def _roofline(study: Study) -> Markup:
    shares = [f"{name} {numbers.percent(m.roofline_share)}" for name, m in roofline.measurements(study) if m.roofline_share is not None]
    lead = (
        "How close the models come to what this device can do at all, at the peaks measured on it. Operations are counted on "
        f"{'each model' if study.steps else 'the dense model'}. Bytes are the model's file read once: activations aren't in the record, so "
        "the true points lie further left."
    )
    if shares:
        lead += f" Share of the roof, which counts each node's operations and bytes: {', '.join(shares)}."
    found = roofline.spots(study)
    drawing = tag("figure", charts.responsive(lambda width: roofline.chart(study, width) or Markup(), wide=760)) if found else None
    return join([tag("p", lead, class_="lead"), drawing, *(tag("p", said, class_="note") for said in roofline.missing(study))])


def _skipped(study: Study) -> Section | None:
    """What passes left alone and why, the chosen trial first; equal reasons share a line."""
    picked = figures.chosen(study)
    order = sorted(enumerate(study.trials, 1), key=lambda item: item[1] is not picked)
    parts = []
    for number, trial in order:
        if not (trial.skipped or trial.notes or trial.recipe):
            continue
        reasons: dict[str, list[str]] = {}
        for part, reason in trial.skipped.items():
            reasons.setdefault(reason, []).append(part)
        rows = [tag("li", tag("code", ", ".join(names)), f": {reason}") for reason, names in reasons.items()]
        rows += [tag("li", note) for note in trial.notes]
        counted = "failed" if trial.state == "failed" else f"{len(trial.touched)} touched, {len(trial.skipped)} left alone"
        chosen_mark = tag("span", "chosen", class_="badge chosen") if trial is picked else None
        summary = tag("summary", tag("code", figures.name(trial)), tag("small", f"{trial.execution} · {counted}"), chosen_mark)
        listed = tag("ul", *rows) if rows else tag("p", "Nothing was left alone.")
        parts.append(tag("details", summary, listed, id=f"skipped-{number}"))
    if not parts:
        return None
    lead = "What each recipe touched, what it left as it was, and the reason."
    return "skipped", "Left alone", join([tag("p", lead, class_="lead"), *parts])
