"""The chosen model as a package: its own size in its verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from edgewise import backends, measure, package
from edgewise.graph import Graph
from edgewise.recipe import apply, divided, parse
from edgewise.records import Outcome, Study, Trial
from edgewise.search.bench import Forms
from edgewise.search.verdict import sentence

ROWS = 16  # samples on which it is looked at whether rows of a batch answer as they do alone


def packed(graph: Graph, task: Any, study: Study, chosen: Trial, seed: int, forms: Forms) -> tuple[package.Package, Study]:
    """The package with its own size in its verdict: built again until the size that it states is the size that it has.

    forms: those of the chosen trial's engine, which stand beside the graph.
    """
    verdict = study.verdict
    if verdict is None:
        raise ValueError("a study is packed after its verdict")
    size = chosen.size_bytes or 0
    provenance = package.Provenance(
        model=study.model.name,
        source_sha256=study.model.sha256,
        recipe=chosen.recipe,
        study=study.key,
        data=study.data,
        device=replace(study.device, peaks=()),
        versions=dict(study.versions),
        reference=study.trial(study.reference).execution,
        reference_sha256=study.model.sha256,
        seed=seed,
    )
    rows = rows_of(graph, task, chosen)
    built = package.build(
        graph,
        created=study.created,
        preprocess=preprocess_of(task, chosen, rows),
        postprocess=getattr(task, "postprocess", None),
        labels=task.labels if getattr(task, "postprocess", None) is None else (),
        execution=chosen.execution,
        provenance=provenance,
        files=getattr(task, "files", None),
        rows=rows,
        forms=forms,
    )
    best = finished(built, chosen.recipe)
    for _ in range(8):
        limits = tuple(_sized(outcome, size) for outcome in verdict.outcomes)
        measurement = replace(verdict.measurement, size_bytes=size)
        verdict = replace(verdict, outcomes=limits, met=all(outcome.met for outcome in limits), measurement=measurement)
        verdict = replace(verdict, summary=sentence(verdict, study))
        if best.profile == "full":  # the minimal one has no place for figures
            best = package.restate(best, measured=package.Measured.of(verdict))
        if best.size_bytes == size:
            break
        size = best.size_bytes
    return best, replace(study, verdict=verdict)


def preprocess_of(task: Any, chosen: Trial, rows: Literal["independent", "dependent"] | None) -> Any:
    """The task's, with rows filled up to the lengths that were timed, where the engine compiles for shapes and filling changes no answer.

    So a text takes the time that was measured for its length, in a graph of that shape (`host.loading.Runners`).
    """
    own: Any = getattr(task, "preprocess", None)
    lengths = getattr(task, "timed_lengths", ())
    if not lengths or rows != "independent" or not getattr(own, "mask", "") or chosen.execution is None:
        return own
    return replace(own, lengths=lengths) if backends.compiles(chosen.execution.backend) else own


def rows_of(graph: Graph, task: Any, chosen: Trial) -> Literal["independent", "dependent"] | None:
    """Whether rows may share a call, by samples of the validation split; None for a model that takes one row, or where there is one.

    Texts of all lengths share the call: what a short one could notice is a long neighbour's padding. An engine's own form answers row by
    row, which says nothing of the graph that other engines take from the same package: that is asked.
    """
    split = task.split("validation")
    if hasattr(split, "every") and task.preprocess.mask:
        split = split.every(ROWS)
    inputs, _ = next(iter(split.batches(ROWS)))
    if not graph.signature.batched or len(next(iter(inputs.values()))) < 2:
        return None
    return measure.rows(graph, backends.plain(chosen.execution), inputs, divergence=chosen.divergence or 0.0).verdict


def finished(built: package.Package, recipe: str) -> package.Package:
    """`built` after the steps of `recipe` that are done to a package."""
    _, packing = divided(parse(recipe))
    done: package.Package = apply(packing, built).model
    return done


def plain_package(graph: Graph, task: Any, name: str, forms: Forms | None = None) -> package.Package:
    """A package around `graph` without a verdict: what a trial's size is read from (the verdict's figures add about 4 kB)."""
    return package.build(
        graph,
        created="",
        preprocess=getattr(task, "preprocess", None),
        postprocess=getattr(task, "postprocess", None),
        provenance=package.Provenance(model=name, data=task.summary()),
        files=getattr(task, "files", None),
        forms=forms,
    )


def _sized(outcome: Outcome, size: int) -> Outcome:
    if outcome.limit != "size_bytes":
        return outcome
    return replace(outcome, got=replace(outcome.got, value=size, low=size, high=size), met=size <= outcome.asked)
