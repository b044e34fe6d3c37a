"""The report of a family: several speedups of one model, made in one run, on one page. Each member has a page of its own beside it."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.errors import InvalidInput
from edgewise.records import Study, Verdict
from edgewise.report import beside, charts, document, environment, family_chart, figures, numbers, predictions, shapes, tables, words
from edgewise.report.figures import Figure
from edgewise.report.markup import Markup, join, tag


def family_html(studies: Sequence[Study]) -> str:
    """All members as one self-contained page, by the rules of `html`. It lies in the folder that holds theirs, 2x/ and so on.

    Raises InvalidInput where there is no study.
    """
    if not studies:
        raise InvalidInput("studies is empty; give the study of every member of a family")
    first, said = studies[0], words.family(studies)
    about = f"{first.data.task} · {first.device.name}, {first.device.cpu} · {environment.moment(first.created)}"
    seconds = numbers.duration(sum(study.seconds for study in studies))
    return document.document(
        f"{said.badge}: {first.model.name}, {', '.join(map(words.member, studies))}",
        document.banner(first.model.name, about),
        (
            ("verdict", "Verdict", _verdict(studies)),
            ("tradeoffs", "Trade-offs", _tradeoffs(studies)),
            predictions.section([plan for study in studies for plan in study.plans]),
            ("data", "Data", environment.data(first)),
            ("environment", "Environment", tables.pairs("Device", environment.device_rows(first.device))),
            ("reproduce", "Make it again", _reproduce(studies)),
        ),
        document.footer(f"edgewise {first.versions.get('edgewise', '')}; {seconds} of search for all members."),
    )


def _verdict(studies: Sequence[Study]) -> Markup:
    said = words.family(studies)
    badge = tag("p", tables.state(said.badge, {"met": "good", "missed": "bad"}.get(said.state, "plain")), class_=f"badge-line {said.state}")
    notes = [words.detectable(*studies), words.speed_means(studies[0])]
    return join(
        [
            badge,
            tag("h1", said.sentence, id="verdict-title"),
            _members(studies),
            *(tag("p", note, class_="note") for note in notes if note),
        ]
    )


def _members(studies: Sequence[Study]) -> Markup:
    metric = numbers.capital(studies[0].data.metric)
    head = ("Asked", "Reached", metric, "Change, points", "Size", "Peak memory", "Outcome")
    dense = next((_dense_row(study.verdict, metric) for study in studies if study.verdict), None)
    rows = [_member_row(study, number, metric) for number, study in enumerate(studies, 1)]
    rows += [beside.row(one, metric) for one in beside.of(studies)]
    return tables.table("The members, on the test split", head, [row for row in (dense, *rows) if row is not None], "cards members")


def _dense_row(verdict: Verdict, metric: str) -> Markup:
    before = verdict.reference_measurement
    cells = (
        tables.cell(Figure("1.00×", "by definition"), "Reached"),
        tables.cell(figures.quality(verdict.reference_quality), metric),
        tables.cell(Figure("0", "by definition"), "Change, points"),
        tables.cell(figures.size(before.size_bytes), "Size"),
        tables.cell(figures.memory(before), "Peak memory"),
        tag("td", tag("span", "reference", class_="badge"), data_label="Outcome"),
    )
    return tag("tr", tag("th", "dense", scope="row"), *cells, id="member-0", tabindex="-1")


def _member_row(study: Study, number: int, metric: str) -> Markup:
    verdict, speed = study.verdict, study.budget.speedup
    report = tag("a", "its report", href=f"{speed:g}x/report.html") if speed else None
    name = tag("th", words.member(study), tag("small", report) if report else None, scope="row")
    attributes = {"id": f"member-{number}", "tabindex": "-1"}
    if verdict is None:
        none = [tables.cell(Figure(), label) for label in ("Reached", metric, "Change, points", "Size", "Peak memory")]
        return tag("tr", name, *none, tag("td", tables.state("no verdict yet", "plain"), data_label="Outcome"), **attributes)
    outcome = tables.state("met", "good") if verdict.met else tables.state("missed", "bad")
    cells = (
        tables.cell(figures.speedup(verdict.speedup), "Reached", more=shapes.each(verdict.shapes)),
        tables.cell(figures.quality(verdict.quality), metric),
        tables.cell(figures.drop(verdict.drop), "Change, points"),
        tables.cell(figures.size(verdict.measurement.size_bytes), "Size"),
        tables.cell(figures.memory(verdict.measurement), "Peak memory"),
        tag("td", outcome, *(tag("small", line) for line in words.shortfalls(study)), data_label="Outcome", class_="ended"),
    )
    return tag("tr", name, *cells, **attributes)


def _tradeoffs(studies: Sequence[Study]) -> Markup:
    metric = studies[0].data.metric
    others = " Squares are other tools' models, measured as the members were." if beside.of(studies) else ""
    lead = (
        f"Up and to the right is better: what each member lost of {metric}, against how much faster it is than the dense model. Members "
        "stand where the verdict measured them, on the test split; the lines through a point are both 95 % intervals. Faint points are "
        f"trials of the search, on the validation split.{others} Hover or focus a member for its figures; Enter goes to its row."
    )
    drawing = charts.responsive(lambda width: family_chart.chart(studies, width), wide=760)
    return join([tag("p", lead, class_="lead"), tag("figure", drawing)])


def _reproduce(studies: Sequence[Study]) -> Markup:
    speeds = ",".join(f"{study.budget.speedup:g}" for study in studies if study.budget.speedup)
    lead = "The same search again, as the records give it. Each package carries its own recipe too: "
    again = (tag("code", "edgewise reproduce model.edgew"), " makes that member from it.")
    rows = [
        (f"Recipe of {words.member(study)}", tag("code", picked.recipe or "as it came"))
        for study in studies
        if (picked := figures.chosen(study)) is not None
    ]
    return join(
        [
            tag("p", lead, *again, class_="lead"),
            tag("pre", tag("code", environment.command(studies[0], speeds)), tabindex="0"),
            tables.pairs("Recipes", rows),
        ]
    )
