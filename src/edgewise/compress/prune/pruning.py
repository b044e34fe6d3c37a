"""The pass `prune`: take the units out that the model misses least, until it is as fast (or small) as asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from edgewise.compress.prune.calibration import Data, enough, first
from edgewise.compress.prune.importance import CRITERIA
from edgewise.compress.prune.losses import Progress, Ranking, ranked
from edgewise.compress.prune.moments import gather
from edgewise.compress.prune.narrowing import narrowed
from edgewise.compress.prune.surveying import Survey, chosen_parts, reason, survey
from edgewise.compress.prune.weights import prune_weights
from edgewise.errors import InvalidInput
from edgewise.graph import Coupling, Part
from edgewise.measure.layermodel import axes_of
from edgewise.measure.sizes import operations_predictor, size_predictor
from edgewise.models.network import Network
from edgewise.types import Compressed, Inputs

KINDS = ("channels", "neurons", "heads", "hidden")


class Predicting(Protocol):
    """What `table` is: widths by part -> milliseconds of one call, on the device and in the form that it was measured in."""

    def __call__(self, widths: Mapping[str, int]) -> float: ...


def prune(
    model: Network,
    *,
    calibration: Sequence[Inputs],
    table: Predicting | None = None,
    widths: Mapping[str, int] | None = None,
    speedup: float | None = None,
    operations: float | None = None,
    size: float | None = None,
    ratio: float | Mapping[str, float] | None = None,
    of: Literal["all", "channels", "neurons", "heads", "hidden", "weights"] = "all",
    depth: bool = True,
    importance: str = "obs",
    scope: Literal["auto", "global", "layer", "row"] = "auto",
    pattern: str = "none",
    repair: bool = True,
    skip: Collection[str] = (),
    samples: int = 256,
    rounds: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Compressed:
    """Remove filters, neurons and heads, and whole residual branches; what stays takes over, by least squares, what it can of what went.

    One goal is given: speedup (as many times faster as `model` is now, by the latency `table` of the device), operations or size (that many
    times fewer multiply-accumulates, or bytes of weights), ratio (that share of each part's units goes, wherever: the control that papers
    compare with), or widths (units that stay, by part).
    of: only this kind of part. depth: whole branches may go too. skip: parts to leave whole. importance: which units go first, one of
    obs, taylor, activation, magnitude_l1, magnitude_l2, norm_scale, random. repair: weights that stay are set to the least-squares best on
    calibration samples. samples: how many of `calibration` are looked at; of sequences, as many more as it takes to some 30,000 tokens.
    rounds: how often the widths that came out are looked at again, each part beside the others as narrow as they are by then; each round
    takes about as long as all before, and helps where much goes.

    of="weights": single weights go instead of units, for size and never for time. ratio is then the only goal, and importance, scope and
    pattern are those of `weights.prune_weights`: among others obs, sparsegpt, wanda, taylor, magnitude; "2:4", "1x4".

    How much of each part goes follows from what it does to the model's answers: for every part and width the divergence from the dense
    model's answers is measured on calibration samples, and the solver finds the widths of the least sum that reach the goal (SPDY, Frantar
    2022; ZipLM, Kurtic 2023). Raises InvalidInput for arguments, and where nothing can be pruned or the goal can't be reached: by how much.
    """
    tell = progress or (lambda what, share: None)
    if of == "weights":
        _only_ratio({"widths": widths, "speedup": speedup, "operations": operations, "size": size})
        some = first(calibration, samples) if calibration else ()
        return prune_weights(
            model,
            ratio=ratio,
            calibration=some,
            importance=importance,
            scope=scope,
            pattern=pattern,
            repair=repair,
            skip=skip,
            seed=seed,
            progress=progress,
        )
    if scope != "auto" or pattern != "none":
        raise InvalidInput(f"scope={scope!r}, pattern={pattern!r} are for single weights; give of='weights', or leave them out")
    goals = {"widths": widths, "speedup": speedup, "operations": operations, "size": size, "ratio": ratio}
    given = {name: value for name, value in goals.items() if value is not None}
    if len(given) != 1:
        raise InvalidInput(f"prune has {', '.join(given) or 'no goal'}; give one of speedup, operations, size, ratio, widths")
    if importance not in CRITERIA:
        raise InvalidInput(f"importance={importance!r}; give one of {', '.join(CRITERIA)}")
    if of not in ("all", *KINDS):
        raise InvalidInput(f"of={of!r}; give one of all, {', '.join(KINDS)}, weights")
    coupling, chosen = chosen_parts(model, of, skip)
    notes: tuple[str, ...] = ()
    if widths is not None or ratio is not None:
        data = Data(batches=enough(calibration, samples), seed=seed)
        share = _number("ratio", ratio or 0.0, 0.0, 1.0)
        wanted = _given(coupling, widths) if widths is not None else {p.name: max(1, round(p.units * (1 - share))) for p in chosen}
        going = [part for part in chosen if wanted.get(part.name, part.units) < part.units]
        moments = gather(model, going, data) if importance == "obs" and going else None
        ranking: Mapping[str, Ranking] = ranked(model, going, data, importance, tell, moments)
    else:
        name, predict = _predictor(model, coupling, goals, table, calibration)
        found = survey(
            model,
            calibration,
            of=of,
            depth=depth,
            importance=importance,
            repair=repair,
            skip=skip,
            samples=samples,
            seed=seed,
            progress=tell,
        )
        data, ranking = found.data, found.ranking
        wanted, notes = _solved(found, predict, name, goals[name], rounds, tell)
    narrow = {part.name: wanted[part.name] for part in chosen if wanted.get(part.name, part.units) < part.units}
    keep = {name: ranking[name].keep(width) for name, width in narrow.items()}

    def removing(part: Part, number: int) -> None:
        tell(f"removing {part.units - narrow[part.name]} of {part.units} units of {part.name}", 0.9 + 0.1 * number / len(narrow))

    small = narrowed(model, coupling, keep, data, repair=repair, tell=removing)
    left = {part.name: reason(part, of, skip) for part in coupling.parts}
    skipped = {**coupling.fixed, **{name: said for name, said in left.items() if said}}
    skipped |= {part.name: "the goal is reached without" for part in chosen if part.name not in keep}
    touched = tuple(f"{name}: {coupling.part(name).units} → {len(kept)}" for name, kept in keep.items())
    return Compressed(small, touched, skipped, notes)


def _only_ratio(others: Mapping[str, object]) -> None:
    if given := [name for name, value in others.items() if value is not None]:
        raise InvalidInput(f"prune(of='weights') has {given[0]}; zeros are no faster and no narrower: give ratio, the share that goes")


def _solved(
    found: Survey, predict: Callable[[Mapping[str, int]], float], name: str, asked: object, rounds: int, tell: Progress
) -> tuple[dict[str, int], tuple[str, ...]]:
    factor = _number(name, asked, 1.0, float("inf"))
    now = predict({part.name: part.units for part in found.coupling.parts})
    fixed = found.settled(predict, now / factor, tell=lambda part, width: tell(f"{name} {factor:g}x with {part} at {width}", 0.5))
    solution = found.refined(predict, now / factor, fixed, fixed, rounds=rounds, progress=tell)
    if not solution.reachable:
        least = now / solution.predicted
        raise InvalidInput(f"{name}={factor:g} is out of reach: with every part at its narrowest it is {least:.3g}x; ask for less")
    said = f"{name} {now / solution.predicted:.3g}x predicted, {factor:g}x asked; divergence {solution.loss:.3g}"
    return dict(solution.widths), (said + (", the least there is" if solution.exact else ""),)


def _predictor(
    model: Network, coupling: Coupling, goals: Mapping[str, object], table: Predicting | None, calibration: Sequence[Inputs]
) -> tuple[str, Callable[[Mapping[str, int]], float]]:
    if goals["speedup"] is not None:
        if table is None:
            raise InvalidInput(
                "speedup needs a latency table of the device; `edgewise fit` and `compress` measure one, or give operations="
            )
        return "speedup", table
    if goals["operations"] is not None:
        # Sequences as long as those in the middle: what attention takes grows with their square.
        batch = calibration[len(calibration) // 2] if calibration else {}
        axes = axes_of(model.structure, {name: array.shape for name, array in batch.items()})
        return "operations", operations_predictor(model.to_graph(), coupling, **axes)
    return "size", size_predictor(model.to_graph(), coupling)


def _given(coupling: Coupling, widths: object) -> dict[str, int]:
    if not isinstance(widths, Mapping):
        raise InvalidInput(f"widths={widths!r}; give part: units that stay")
    known = {part.name: part for part in coupling.parts}
    for name, width in widths.items():
        if name not in known:
            raise InvalidInput(f"widths names {name!r}, which is no part; the parts are {', '.join([*known][:8])}")
        least = 0 if known[name].removable else 1
        if not (isinstance(width, int | np.integer) and least <= width <= known[name].units):
            raise InvalidInput(f"widths[{name!r}]={width!r}; give {least} to {known[name].units}")
    return {str(name): int(width) for name, width in widths.items()}


def _number(name: str, value: object, low: float, high: float) -> float:
    if not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput(f"{name}={value!r}; give a number from {low:g}{f' to {high:g}' if np.isfinite(high) else ' upwards'}")
    return float(value)
