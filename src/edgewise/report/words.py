"""What the page and the terminal both say in sentences: the verdict, each limit, and what the samples can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.records import Conditions, Interval, Outcome, Study, Verdict
from edgewise.report import figures, numbers
from edgewise.report.figures import Figure
from edgewise.types import SPEED_TOLERANCE


@dataclass(frozen=True)
class Limit:
    """One limit of the budget: a row of "asked and got"."""

    name: str
    asked: str
    got: Figure
    margin: str  # "4.4 % to spare", "7.6 % short"
    met: bool
    note: str  # what the interval says about it; "" when it is clear


@dataclass(frozen=True)
class Headline:
    state: str  # "met", "missed", "none"
    badge: str
    sentence: str


INCONCLUSIVE = "The timing stayed inconclusive: its interval is wider than what was asked of it."

NAMES = {
    "speedup": "Speed",
    "latency_ms": "Time per call",
    "size_bytes": "File size",
    "memory_bytes": "Peak memory",
    "energy_mj": "Energy per inference",
    "max_drop": "Loss of",
}


def _amount(limit: str, value: float, unit: str) -> str:
    if limit == "speedup":
        return f"{numbers.plain(value)}×"
    if limit == "latency_ms":
        return numbers.ms(value, round_number=True)
    if limit in ("size_bytes", "memory_bytes"):
        return numbers.size(value, round_number=True)
    return f"{numbers.plain(value)} {'mJ' if limit == 'energy_mj' else unit}".strip()


def _got(study: Study, verdict: Verdict, outcome: Outcome) -> Figure:
    at = outcome.got
    if outcome.limit == "speedup":
        return figures.speedup(verdict.speedup)
    counted = "measured once" if at.n == 1 else f"n = {numbers.count(at.n)}"
    if outcome.limit == "latency_ms":
        return Figure(numbers.ms(at.value), figures.latency_interval(at), counted)
    if outcome.limit == "size_bytes":
        return Figure(numbers.size(at.value), "", "exact")
    write = numbers.size if outcome.limit == "memory_bytes" else lambda value: f"{numbers.significant(value)} {outcome.unit}"
    interval = figures.between(write(at.low), write(at.high)) if at.high > at.low else ""
    if outcome.limit == "energy_mj":
        interval = ", ".join(part for part in (interval, _source(verdict, outcome)) if part)
    return Figure(write(at.value), interval, counted)


def _source(verdict: Verdict, outcome: Outcome) -> str:
    """How energy is known: a meter's name, or the model that was stated. Older records have it in the measurement alone."""
    return outcome.source or verdict.measurement.energy_source


def _note(met: bool, reaches: float, limit: float, larger_is_better: bool) -> str:
    """What to say when the interval's far end lies on the other side of the limit."""
    far_end_meets = reaches >= limit if larger_is_better else reaches <= limit
    if met and not far_end_meets:
        return "met by the estimate; its interval reaches past the limit"
    return "missed by the estimate; its interval reaches into the limit" if not met and far_end_meets else ""


def _drop_limit(study: Study, verdict: Verdict, met: bool) -> Limit:
    """The loss is read from the paired difference itself; lost is positive here."""
    difference, half = verdict.drop.difference, verdict.drop.difference.half_width
    allowed = study.budget.allowed_drop(verdict.reference_quality.value.value)
    spare = allowed + difference.value
    relative = f" ({numbers.plain(100 * study.budget.max_drop)} % of {numbers.percent(verdict.reference_quality.value.value)})"
    value, low, high = (numbers.points(-end, half).lstrip("+") for end in (difference.value, difference.high, difference.low))
    interval = figures.between(low, high)
    lost = Figure(f"{value} points", interval, f"n = {numbers.count(difference.n)} pairs")
    return Limit(
        name=f"{NAMES['max_drop']} {study.data.metric}",
        asked=f"at most {numbers.plain(100 * allowed)} points{relative if study.budget.relative_drop else ''}",
        got=lost,
        margin=f"{numbers.points(spare, half, sign=False)} points {'to spare' if spare >= 0 else 'too many'}",
        met=met,
        note=_note(met, -difference.low if met else -difference.high, allowed, larger_is_better=False),
    )


def limit(study: Study, verdict: Verdict, outcome: Outcome) -> Limit:
    """One outcome in words and figures."""
    if outcome.limit == "max_drop":
        return _drop_limit(study, verdict, outcome.met)
    name = NAMES.get(outcome.limit, outcome.limit.replace("_", " "))
    if outcome.limit == "latency_ms":
        name = f"{name}, {study.budget.percentile}"
    if outcome.limit == "energy_mj":
        name = f"{name}, {'modelled' if _source(verdict, outcome).startswith('modelled') else 'measured'}"
    larger = outcome.limit == "speedup"
    share = (outcome.got.value / outcome.asked - 1) * (1 if larger else -1) if outcome.asked else 0.0
    margin = f"{numbers.significant(100 * abs(share), 2)} % {'to spare' if share >= 0 else 'short' if larger else 'too much'}"
    threshold = outcome.asked * (1 - SPEED_TOLERANCE) if larger else outcome.asked
    met_side, missed_side = (outcome.got.low, outcome.got.high) if larger else (outcome.got.high, outcome.got.low)
    note = _note(outcome.met, met_side if outcome.met else missed_side, threshold, larger)
    if larger and outcome.met and share < 0:
        note = f"a speed counts as met from −{100 * SPEED_TOLERANCE:.0f} % upwards" + (f"; {note}" if note else "")
    asked = f"{'at least' if larger else 'at most'} {_amount(outcome.limit, outcome.asked, outcome.unit)}"
    return Limit(name, asked, _got(study, verdict, outcome), margin, outcome.met, note)


def limits(study: Study) -> tuple[Limit, ...]:
    return tuple(limit(study, study.verdict, outcome) for outcome in study.verdict.outcomes) if study.verdict else ()


def asked(study: Study) -> str:
    """The budget in one line, for a study that has no verdict yet."""
    budget = study.budget
    parts = [
        f"{NAMES[key].lower()} {'at least' if key == 'speedup' else 'at most'} {_amount(key, getattr(budget, key), '')}"
        for key in ("speedup", "latency_ms", "size_bytes", "memory_bytes", "energy_mj")
        if getattr(budget, key) is not None
    ]
    most = f"{numbers.plain(100 * budget.max_drop)}{' %' if budget.relative_drop else ' points'}"
    return ", ".join([*parts, f"loss of {study.data.metric} at most {most}"])


def _speed(ratio: Interval) -> str:
    if ratio.low <= 1 <= ratio.high:
        return "takes as long as before, as far as the timing can tell"
    return (
        f"answers {numbers.significant(ratio.value)} times as fast"
        if ratio.value > 1
        else f"is slower ({numbers.times(ratio.value)} the speed)"
    )


def _size(before: int, after: int) -> str:
    if not before or not after or abs(after / before - 1) < 0.01:
        return "its file is as large as before"
    if after > before:
        return f"its file is {numbers.significant(after / before, 2)} times as large"
    return f"its file is {numbers.significant(before / after, 2)} times smaller"


def _loss(metric: str, at: Interval) -> str:
    if at.low <= 0 <= at.high:
        return f"no change in {metric} shows on {numbers.plural(at.n, 'test sample')}"
    verb = "gains" if at.value > 0 else "loses"
    return f"it {verb} {numbers.points(at.value, at.half_width, sign=False)} points of {metric}"


def _change(study: Study, verdict: Verdict) -> str:
    if verdict.trial == study.reference:
        return "the model as it came is the best that was found"
    size = _size(verdict.reference_measurement.size_bytes, verdict.measurement.size_bytes)
    return f"the model {_speed(verdict.speedup.ratio)}, {size}, and {_loss(study.data.metric, verdict.drop.difference)}"


def headline(study: Study) -> Headline:
    """The verdict in one plain sentence: met, or which limit was missed, by how much, and what the nearest point is."""
    verdict = study.verdict
    if verdict is None:
        done = sum(trial.state == "measured" for trial in study.trials)
        why = f"{numbers.plural(len(study.trials), 'trial')} so far, {done} measured to the end; the test split hasn't been read."
        return Headline("none", "No verdict yet", f"The search hasn't come to a verdict: {why}")
    change = _change(study, verdict)
    if verdict.met:
        return Headline("met", "Budget met", f"Everything that was asked for is met on this device: {change}.")
    missed = [row for row in limits(study) if not row.met]
    short = [f"{row.name[0].lower()}{row.name[1:]} is {row.got.value} where {row.asked} was asked ({row.margin})" for row in missed]
    where = " and ".join(short)
    where = where or "a limit was missed that the record doesn't name"
    return Headline("missed", "Budget missed", f"Not everything that was asked for is met: {where}. At the nearest point found, {change}.")


def member(study: Study) -> str:
    """What a member of a family is called: the speed that was asked of it."""
    return f"{study.budget.speedup:g}×" if study.budget.speedup else study.model.name


def family(studies: Sequence[Study]) -> Headline:
    """All verdicts of a family in one plain sentence; by how much one was missed stands in the table."""
    judged = [(study, study.verdict) for study in studies if study.verdict]
    if len(judged) < len(studies):
        return Headline("none", "No verdict yet", f"{len(judged)} of {numbers.plural(len(studies), 'member')} came to a verdict so far.")
    paid = [
        f"{numbers.times(one.speedup.ratio.value)} at {numbers.points(one.drop.difference.value, one.drop.difference.half_width)}"
        for _, one in judged
    ]
    reached = f"Speed, and change of {studies[0].data.metric} in points: {', '.join(paid)}."
    missed = [member(study) for study, one in judged if not one.met]
    if not missed:
        each = f"All {len(studies)} members meet" if len(studies) > 1 else "The one member meets"
        return Headline("met", "All budgets met", f"{each} what was asked for on this device. {reached}")
    met = len(studies) - len(missed)
    which = f"{met} of {numbers.plural(len(studies), 'member')} {'meets' if met == 1 else 'meet'} what was asked for on this device"
    badge = "Some budgets missed" if met else "Budgets missed" if len(studies) > 1 else "Budget missed"
    return Headline("missed", badge, f"{which}; {' and '.join(missed)} {'misses' if len(missed) == 1 else 'miss'} it. {reached}")


def speed_means(study: Study) -> str:
    """What 1.0× is: a speedup means nothing without it."""
    reference = figures.find(study, study.reference)
    fastest = str(reference.execution) if reference else "not recorded"
    among = ", ".join(str(execution) for execution in study.reference_set) or "not recorded"
    return (
        f"1.00× is the dense model in true fp32 on the fastest engine of the reference set ({among}): {fastest}. Same inputs, same "
        "device, same number of threads; timed in alternating blocks, each side in a process of its own."
    )


def detectable(*studies: Study) -> str:
    """The smallest change that this many samples can show, of members of a family from the least to the most; "" without a verdict."""
    drops = sorted((study.verdict.drop for study in studies if study.verdict), key=lambda drop: drop.detectable)
    if not drops:
        return ""
    metric, counts = studies[0].data.metric, f"{numbers.plural(drops[0].difference.n, 'test sample')}, the same for both models"
    least, most = (numbers.points(drop.detectable, 0.001, sign=False) for drop in (drops[0], drops[-1]))
    amount = least if least == most else f"{least} to {most}"
    return f"On {counts}, the smallest change of {metric} that can be shown is {amount} points."


def can_show(study: Study) -> str:
    """What this many samples can and can't show."""
    verdict, said = study.verdict, detectable(study)
    if verdict is None:
        return ""
    drop = verdict.drop
    if drop.candidate_only_right or drop.reference_only_right:
        ours, theirs = drop.candidate_only_right, drop.reference_only_right
        counted = set(verdict.quality.scores) | set(verdict.reference_quality.scores) <= {0.0, 1.0}
        said += (
            f" They differ on {numbers.count(ours + theirs)}: the chosen one alone is right on {numbers.count(ours)}, the reference "
            f"alone on {numbers.count(theirs)} (McNemar {p_value(drop.p_value)})."
            if counted
            else f" The chosen one scores higher on {numbers.count(ours)}, the other on {numbers.count(theirs)} ({p_value(drop.p_value)})."
        )
    return said if verdict.speedup.conclusive else f"{said} {INCONCLUSIVE}"


def disturbed(found: Conditions, what: str = "pair") -> str:
    """What became of the pairs of blocks, or other pieces, that the machine disturbed; "" where nobody looked."""
    if not found.watched:
        return ""
    pairs = numbers.plural(found.watched, what)
    became = ((found.again, "measured again"), (found.disturbed, "disturbed and counted all the same"))
    said = [f"{numbers.count(n)} {'was' if n == 1 else 'were'} {done}" for n, done in became if n]
    worst = " at worst" if found.again + found.disturbed > 1 else ""
    return f"of {pairs}, {' and '.join(said)}: {'; '.join(found.disturbances)}{worst}" if said else f"none of {pairs}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {numbers.significant(p, 2)}"


def shortfalls(study: Study) -> list[str]:
    """Of a member beside "met" or "missed": its speed's margin or each limit that was missed, and a timing that stayed wide."""
    verdict = study.verdict
    if verdict is None:
        return []
    speed = NAMES["speedup"]
    said = [f"{row.name}: {row.margin}" for row in limits(study) if not row.met or (verdict.met and row.name == speed)]
    return said if verdict.speedup.conclusive else [*said, "timing inconclusive"]
