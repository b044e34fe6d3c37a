"""The terminal's tables: the same figures and sentences as the page's, within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edgewise.records import Comparison, Conditions, Device, Measurement, Quality, Study, Trial
from edgewise.report import figures, numbers, shapes, steps, widths, words
from edgewise.report.cells import STATES, beside, full, grid, short, text
from edgewise.report.environment import STEAL_MATTERS, device_rows
from edgewise.report.figures import Figure
from edgewise.report.markup import clean
from edgewise.report.spread import class_changes, most_changed

MOST_CLASSES = 5  # after a search; the page has them all


def table(study: Study) -> RenderableType:
    """The verdict, asked and got, and every trial."""
    parts: list[RenderableType] = [_verdict(study)]
    if study.verdict:
        parts += [_limits(study), *([shapes.grid_of(study.verdict.shapes)] if study.verdict.shapes else [])]
        parts += [*_disturbed(study.verdict.speedup.candidate_conditions), text(words.can_show(study), "dim"), Text()]
        parts += _classes(study.verdict.reference_quality, study.verdict.quality, ("reference", "chosen"), MOST_CLASSES)
    parts += _steps(study)
    parts += [_trials(study), text(words.speed_means(study), "dim")]
    return Group(*parts)


def _verdict(study: Study) -> Panel:
    said = words.headline(study)
    sign, colour = STATES[said.state]
    body = text(said.sentence)
    picked = figures.chosen(study)
    if picked is not None:
        body.append(clean(f"\n{figures.name(picked)} on {picked.execution}"), style="bold")
    elif study.verdict is None:
        body.append(clean(f"\nAsked: {words.asked(study)}."))
    return Panel(body, title=text(f"{sign} {said.badge}", "bold"), title_align="left", border_style=colour, padding=(0, 1))


def _limits(study: Study) -> Table:
    shown = grid("Limit", "Asked", "Got", "Outcome")
    for row in words.limits(study):
        sign, colour = STATES["met" if row.met else "missed"]
        outcome = text(f"{sign} {'met' if row.met else 'missed'}, {row.margin}", colour)
        if row.note:
            outcome.append(clean(f"\n{row.note}"), style="dim")
        shown.add_row(text(row.name), text(row.asked), full(row.got), outcome)
    return shown


def _disturbed(found: Conditions) -> list[Text]:
    """A line where something disturbed the verdict's timing."""
    if not found.again and not found.disturbed:
        return []
    return [text(f"Timing: {words.disturbed(found)}.", "yellow" if found.disturbed else "dim")]


def _steps(study: Study) -> list[RenderableType]:
    """What each step of a recipe of several took, cost and gained; and how much of the network is left."""
    left = [text(f"Widths: {widths.summary(study.widths)}"), Text()] if study.widths else []
    if not study.steps:
        return [*left]
    metric, last = numbers.capital(study.data.metric), study.steps[-1]
    raced = f", {numbers.plural(last.speedup.n, 'pair')}" if last.speedup else ""
    title = f"What each step did, on the validation split (n = {numbers.count(last.quality.n)}{raced})"
    shown = grid("Step", "Took", metric, "Speedup", "Operations,\nparameters", title=title)
    shown.columns[0].ratio = 1
    for line in steps.lines(study.steps):
        counted = [(line.operations, line.operations_change), (line.parameters, line.parameters_change)]
        speed_change = line.speedup_change.replace(" the row above", "").replace(steps.SAME, "")
        shown.add_row(
            text(figures.shortened(line.step), "bold"),
            text(line.took),
            _changed(line.quality, line.quality_change.removesuffix(" points")),
            _changed(line.speedup, f"·{speed_change}" if speed_change else ""),
            text("\n".join(f"{value}  {change.removesuffix(steps.SAME)}".rstrip() for value, change in counted)),
        )
    said = "Beside a figure stands what the step changed: points, a factor (·), percent; none where two speeds can't be told apart."
    return [shown, text(said, "dim"), *left]


def _changed(figure: Figure, change: str) -> Text:
    """The value with the change beside it, the interval below; n is said once, above the table."""
    shown = text(figure.value, "bold").append(f"  {change}".rstrip(), style="not bold")
    return shown.append(clean(f"\n{figure.interval.replace(' to ', '…')}"), style="dim not bold")


def _trial_row(study: Study, number: int, trial: Trial) -> tuple[Text, ...]:
    reference = trial.key == study.reference
    name = text(figures.name(trial), "bold")
    name.append(clean(f"\n{trial.execution}"), style="not bold dim")
    for word, is_it in (("chosen", study.verdict is not None and trial.key == study.verdict.trial), ("reference", reference)):
        if is_it:
            name.append(f"\n[{word}]", style="not bold cyan")
    speed = Figure("1.00×", "by definition") if reference and trial.speedup is None else figures.speedup(trial.speedup)
    change = Figure("0", "by definition") if reference and trial.drop is None else figures.drop(trial.drop)
    sizes = text(numbers.size(trial.size_bytes), "bold")
    if trial.measurement:
        sizes.append(f"\n{numbers.size(trial.measurement.peak_memory_bytes)}", style="not bold dim")
    sign, colour = STATES[trial.state]
    return text(f"{number} {sign}", colour), name, short(speed), short(figures.quality(trial.quality)), short(change, n=False), sizes


def _trials(study: Study) -> Group:
    """Every trial; what there is to say of one stands below the table, under its number."""
    metric = numbers.capital(study.data.metric)
    title = f"Every trial, on the validation split ({len(study.trials)}): ✓ measured, ○ screened, ✗ failed"
    shown = grid("#", "Trial", "Speedup", metric, "Change, points", "Size, memory", title=title)
    for column, width in zip(shown.columns, (4, None, 13, 13, 13, 8), strict=True):
        column.max_width = width
    remarks = []
    for number, trial in enumerate(study.trials, 1):
        shown.add_row(*_trial_row(study, number, trial))
        if remark := figures.remark(study, trial):
            remarks.append(text(f"#{number} {trial.state}: {remark}", "dim"))
    return Group(shown, *remarks, Text())


def profile_table(measurements: Sequence[Measurement], *, name: str = "") -> RenderableType:
    """For `edgewise measure`: each engine, precision and thread count. `name` is the model's."""
    title = f"{name}: one call at a time" if name else "One call at a time"
    sources = tuple(dict.fromkeys(found.energy_source for found in measurements if found.energy_mj is not None))
    last = "Size, memory,\nenergy" if sources else "Size, memory"
    shown = grid("Engine", "p50", "p90", "p99", "Cold start", last, "Roof", title=title)
    for found in measurements:
        p50, p90, p99 = (figures.latency(found.latency, q) for q in (50, 90, 99))
        roof = numbers.percent(found.roofline_share) if found.roofline_share is not None else numbers.NONE
        sizes = f"{numbers.size(found.size_bytes)}\n{numbers.size(found.peak_memory_bytes)}"
        sizes += f"\n{numbers.significant(found.energy_mj)} mJ" if found.energy_mj is not None else ""
        tails = [text(figure.value) for figure in (p90, p99)]
        shown.add_row(
            text(str(found.execution), "bold"), short(p50), *tails, text(numbers.ms(found.cold_start_ms)), text(sizes), text(roof)
        )
    engines = ", ".join(dict.fromkeys(found.conditions.engine for found in measurements))
    said = (
        f"{engines}. Below p50 stand its 95 % interval and the calls; memory is the peak above an idle process, loading included; roof is "
        "the share of what the device can do. The engines were timed one after another: a few percent between them may be chance. "
    )
    known = "; ".join(sources)
    if known:
        said += f"Energy is per call and of the whole board or package, idle part included ({known})."
    elif measurements:
        said += f"Energy: {measurements[0].energy_source}. With --watts idle=…,busy=… it is modelled by what you state."
    parts: list[RenderableType] = [shown, text(said, "dim")]
    steal = max((found.conditions.steal or 0.0 for found in measurements), default=0.0)
    if steal > STEAL_MATTERS:
        warned = (
            f"Up to {100 * steal:.0f} % of the time went to this machine's neighbours: tails are too long, run again when it is quieter."
        )
        parts.append(text(warned, "yellow"))
    return Group(*parts)


def device_table(device: Device) -> RenderableType:
    """For `edgewise doctor`."""
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in device_rows(device):
        shown.add_row(text(name), text(value.replace("; ", "\n") if name == "Measured peaks" else value))
    return shown


def compare_table(comparison: Comparison, *, most_layers: int = 12) -> RenderableType:
    """For `edgewise compare a b`: how far the outputs are apart, where they part, and what that costs per class."""
    a, b = comparison.names
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row(text("Compared"), text(f"{b} against {a}, on {numbers.plural(comparison.n, 'sample')}"))
    if comparison.agreement is not None:
        facts.add_row(text("Same answer"), full(figures.share(comparison.agreement), below=False))
    facts.add_row(
        text("Outputs apart"),
        text(f"{figures.divergence(comparison.relative_l2).value} (relative L2), {numbers.significant(comparison.max_abs)} at most"),
    )
    facts.add_row(
        text("First parting"),
        text(
            comparison.first_parting
            or ("nowhere: no difference lasts to the outputs" if comparison.layers else "the graphs share no tensor to compare")
        ),
    )
    if comparison.quality_a and comparison.quality_b:
        metric = numbers.capital(comparison.quality_a.metric)
        facts.add_row(text(f"{metric} of a"), full(figures.quality(comparison.quality_a), below=False))
        facts.add_row(text(f"{metric} of b"), full(figures.quality(comparison.quality_b), below=False))
        for name in comparison.quality_a.also:
            both = (comparison.quality_a.also.get(name), comparison.quality_b.also.get(name))
            told = " and ".join(f"{each.value:.4g} [{each.low:.4g}, {each.high:.4g}]" for each in both if each is not None)
            facts.add_row(text(f"{numbers.capital(name)} of a and b"), text(told))
    if comparison.drop:
        least = numbers.points(comparison.drop.detectable, sign=False)
        facts.add_row(text("Change, points"), full(figures.drop(comparison.drop), below=False))
        facts.add_row(
            text("This n can show"),
            text(f"a change of {least} points or more; {words.p_value(comparison.drop.p_value)}"),
        )
    parts: list[RenderableType] = [Panel(facts, title=text("Two models on the same inputs", "bold"), title_align="left")]
    if comparison.layers:
        parts.append(_layers(comparison, most_layers))
    if comparison.quality_a and comparison.quality_b:
        parts += _classes(comparison.quality_a, comparison.quality_b, ("a", "b"))
    return Group(*parts)


def _layers(comparison: Comparison, most: int) -> Table:
    """Layers in order from the first parting on; without one, those that are furthest apart."""
    names = [name for name, _ in comparison.layers]
    start = max(0, names.index(comparison.first_parting) - 1) if comparison.first_parting in names else 0
    kept = comparison.layers[start : start + most]
    left = len(comparison.layers) - len(kept)
    largest = max(error for _, error in comparison.layers) or 1.0
    shown = grid("Layer", "Apart", "", title=f"Layer by layer{f' ({left} more not shown)' if left else ''}")
    for name, error in kept:
        first = name == comparison.first_parting
        bar = "█" * max(1 if error else 0, round(20 * error / largest))
        shown.add_row(
            text(name + (" ← parts here" if first else ""), "bold" if first else ""),
            text(figures.divergence(error).value),
            text(bar, "cyan"),
        )
    return shown


def _classes(before: Quality, after: Quality, names: tuple[str, str], most: int | None = None) -> list[RenderableType]:
    """Means over the classes, and recall of the `most` classes that changed the most (of all unless given)."""
    changes = class_changes(before, after)
    if not changes:
        return []
    shown = most_changed(changes, most or len(changes))
    left = f" ({len(changes) - len(shown)} more changed less)" if len(shown) < len(changes) else ""
    first, second = names
    title = f"Per class, the largest loss first{left}"
    table = grid("Class", "Samples", f"Recall of {first}", f"Recall of {second}", "Change, points", title=title)
    for change in shown:
        moved = text(numbers.points(change.change, 0.01), "bold" if change.apart else "")
        cells = [beside(figures.share(recall)) for recall in (change.before.recall, change.after.recall)]
        table.add_row(text(change.after.label), text(numbers.count(change.after.n)), *cells, moved)
    return [*_means(before, after, names), table, text("Bold: the two intervals lie apart.", "dim"), Text()]


def _means(before: Quality, after: Quality, names: tuple[str, str]) -> list[RenderableType]:
    """Precision, recall and F1, each as the mean over all classes."""
    table = grid("Mean over classes", *names)
    left, right = figures.macro(before), figures.macro(after)
    for name in (each for each in left if each in right):
        table.add_row(text(numbers.capital(name)), beside(left[name]), beside(right[name]))
    return [table] if table.rows else []
