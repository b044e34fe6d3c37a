"""The page's tables: asked and got, every trial, classes, latency, conditions. Figures come with their interval and n below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgewise.records import Measurement, Study, Trial, Verdict
from edgewise.report import figures, numbers, roofline, spread, words
from edgewise.report.figures import Figure
from edgewise.report.markup import Markup, tag


def cell(figure: Figure, name: str | None = None, *, one_line: bool = False, more: str = "") -> Markup:
    """A figure in a `<td>`; `name` labels it where the table is shown as cards; `one_line` sets interval and n beside each other.

    more: a last line, of how the figure differs from another.
    """
    behind = [part for part in (figure.interval, figure.n) if part]
    below = [tag("small", part) for part in ([", ".join(behind)] if one_line and behind else behind)]
    empty = figure.value == numbers.NONE and not behind
    sort = None if figure.sort is None else f"{figure.sort:.9g}"
    classes = f"figure{' line' if one_line else ''}{' none' if empty else ''}"
    below += [tag("small", more, class_="change")] if more else []
    return tag("td", tag("b", figure.value), *below, class_=classes, data_label=name, data_sort=sort)


def table(caption: str, head: Sequence[str], rows: Sequence[Markup], class_: str = "") -> Markup:
    """`rows` are `<tr>` elements; what is too wide for a screen scrolls in its own region."""
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head))),
            tag("tbody", *rows),
            class_=class_ or None,
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def plain_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Markup]], class_: str = "") -> Markup:
    """A small table: the first cell of a row is its header."""
    return table(caption, head, [tag("tr", *row) for row in rows], class_)


def recipe(text: str) -> Markup:
    """A recipe, or a step of one, as code; one that was shortened unfolds to its whole text."""
    short = figures.shortened(text)
    if short == (text or "as it came"):
        return tag("code", short)
    return tag("details", tag("summary", tag("code", short)), tag("code", text), class_="recipe")


def state(word: str, kind: str) -> Markup:
    """A word with a mark before it, so that it doesn't hang on colour."""
    return tag("span", tag("span", {"good": "✓", "bad": "✗"}.get(kind, "○"), aria_hidden="true"), f" {word}", class_=f"state {kind}")


def budget(study: Study) -> Markup:
    """Asked and got, a row per limit, from the verdict on the test split."""
    rows = []
    for row in words.limits(study):
        outcome = state("met", "good") if row.met else state("missed", "bad")
        margin = tag("td", outcome, tag("small", row.margin), tag("small", row.note) if row.note else None, data_label="Outcome")
        rows.append(
            (tag("th", row.name, scope="row"), tag("td", row.asked, data_label="Asked"), cell(row.got, "Got", one_line=True), margin)
        )
    return plain_table("Asked and got, on the test split", ("Limit", "Asked", "Got", "Outcome"), rows, "cards")


COLUMNS = ("Trial", "Speedup", "Time, p50", "", "Change, points", "Size", "Memory", "State")


def _trial_row(study: Study, number: int, trial: Trial) -> Markup:
    reference, picked = trial.key == study.reference, study.verdict is not None and trial.key == study.verdict.trial
    kind = {"measured": "good", "failed": "bad"}.get(trial.state, "plain")
    said = figures.remark(study, trial)
    speed = Figure("1.00×", "by definition", "", 1.0) if reference and trial.speedup is None else figures.speedup(trial.speedup)
    change = Figure("0", "by definition", "", 0.0) if reference and trial.drop is None else figures.drop(trial.drop)
    away = figures.divergence(trial.divergence)
    name = tag(
        "th",
        recipe(trial.recipe),
        tag("small", " · ".join(part for part in (f"#{number}", str(trial.execution), trial.rung) if part)),
        tag("span", "chosen", class_="badge chosen") if picked else None,
        tag("span", "reference", class_="badge") if reference else None,
        scope="row",
        data_sort=str(number),
    )
    metric = numbers.capital(study.data.metric)
    ended = tag(
        "td",
        state(trial.state, kind),
        tag("small", said) if said else None,
        tag("small", f"outputs {away.value} away from fp32") if trial.divergence is not None else None,
        data_label="State",
        data_sort=str(("measured", "screened", "failed").index(trial.state)),
        class_="ended",
    )
    cells = (
        cell(speed, "Speedup"),
        cell(figures.latency(trial.measurement.latency if trial.measurement else None), "Time, p50"),
        cell(figures.quality(trial.quality), metric),
        cell(change, "Change, points"),
        cell(figures.size(trial.size_bytes), "Size"),
        cell(figures.memory(trial.measurement), "Memory"),
    )
    return tag("tr", name, *cells, ended, id=f"trial-{number}", tabindex="-1", class_="picked" if picked else None)


def trials(study: Study) -> Markup:
    """Every trial; the header's buttons sort it."""
    names = [name or numbers.capital(study.data.metric) for name in COLUMNS]
    head = [
        tag("th", tag("button", name, tag("span", "", class_="arrow", aria_hidden="true"), type="button"), scope="col") for name in names
    ]
    body = [_trial_row(study, number, trial) for number, trial in enumerate(study.trials, 1)]
    caption = f"Every trial, on the validation split ({numbers.plural(len(study.trials), 'trial')})"
    table = tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *body), class_="trials cards sortable")
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def classes(verdict: Verdict) -> Markup:
    """Every class before and after, the largest loss first."""
    rows = []
    for change in spread.class_changes(verdict.reference_quality, verdict.quality):
        before, after = change.before, change.after
        shown = Figure(numbers.points(change.change, 0.01), "intervals apart" if change.apart else "")
        recalls = [Figure(figure.value, figure.interval) for figure in (figures.share(before.recall), figures.share(after.recall))]
        precision, f1 = figures.share(after.precision), figures.f1(after)
        precision = replace(precision, n=f"was {numbers.percent(before.precision.value)}")
        f1 = replace(f1, n=f"was {numbers.percent(before.f1)}")
        counted = tag("td", numbers.count(after.n), class_="figure")
        cells = [cell(figure) for figure in (*recalls, shown, precision, f1)]
        rows.append((tag("th", after.label, scope="row"), counted, *cells))
    return plain_table(
        "Per class, on the test split",
        ("Class", "Samples", "Recall before", "after", "Change, points", "Precision after", "F1 after"),
        rows,
    )


def macro(verdict: Verdict) -> Markup | None:
    """Precision, recall and F1, each as the mean over all classes; None where the records hold none."""
    before, after = figures.macro(verdict.reference_quality), figures.macro(verdict.quality)
    rows = [(tag("th", numbers.capital(name), scope="row"), cell(before[name]), cell(after[name])) for name in before if name in after]
    return plain_table("Mean over all classes, on the test split", ("", "Reference", "Chosen"), rows) if rows else None


def timings(study: Study) -> Markup:
    """Percentiles, starts, memory and energy of the reference and the chosen one."""
    found = roofline.measurements(study)

    def once(value: float) -> Figure:
        return Figure(numbers.ms(value), "", "one start")

    def throughput(m: Measurement) -> Figure:
        return Figure(f"{numbers.significant(m.throughput_per_s)} /s") if m.throughput_per_s else Figure()

    def roof(m: Measurement) -> Figure:
        return Figure(numbers.percent(m.roofline_share)) if m.roofline_share is not None else Figure()

    rows = (
        *((f"p{q}", [figures.latency(m.latency, q) for _, m in found]) for q in (50, 90, 99)),
        ("Cold start", [once(m.cold_start_ms) for _, m in found]),
        ("First inference", [once(m.first_inference_ms) for _, m in found]),
        ("Throughput", [throughput(m) for _, m in found]),
        ("Peak memory above idle", [figures.memory(m) for _, m in found]),
        ("File size", [Figure(numbers.size(m.size_bytes), "", "exact") for _, m in found]),
        ("Energy per inference", [figures.energy(m, study.device.energy) for _, m in found]),
        ("Share of the roof", [roof(m) for _, m in found]),
    )
    body = [(tag("th", name, scope="row"), *(cell(figure, one_line=True) for figure in row)) for name, row in rows]
    return plain_table("Time, memory and energy", ("", *(name for name, _ in found)), body)


def pairs(caption: str, rows: Sequence[tuple[str, Markup | str]]) -> Markup:
    """Names and what they are, as a description list; rows that say nothing are left out."""
    shown = [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows if value]
    return tag("dl", *shown, aria_label=caption)
