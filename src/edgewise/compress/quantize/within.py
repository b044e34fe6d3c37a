"""Quantization under accuracy control: leave as few nodes in float as the allowed drop demands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edgewise.compress.quantize.options import checked, saturates
from edgewise.compress.quantize.sensitivity import ranked
from edgewise.compress.quantize.static import Progress, compressed, observe, settle
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.records import Device
from edgewise.types import Compressed, Execution, Inputs


def quantize_within(
    model: Graph,
    *,
    calibration: Sequence[Inputs],
    evaluate: Callable[[Graph], float],
    reference: float,
    max_drop: float,
    samples: int = 32,
    device: Device | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Compressed:
    """`quantize`, with the most sensitive nodes left in float until `reference - evaluate(model)` is at most `max_drop`.

    evaluate: the metric of a graph (higher is better), measured on whatever engine the caller means to use; called once for the whole
    model and then about log2(nodes) times, as the number of nodes left in float is found by bisection over their ranking.
    Every step is in `notes`. When even one node alone breaks the limit, the float model comes back, and the notes say so.
    """
    if not max_drop >= 0:
        raise InvalidInput(f"max_drop={max_drop!r}: give a share of the metric, 0 or more; one point is 0.01")
    if str(options.pop("mode", "static")) != "static":
        raise InvalidInput('accuracy control works on mode="static"; leave mode out')
    report = progress or (lambda what, share: None)
    if options.get("reduce_range") is None:
        options["reduce_range"] = saturates(device)
    equalize, smooth = (bool(options.pop(name, True)) for name in ("equalize", "smooth"))
    settings = checked(**options)
    observed = observe(model, calibration, settings, equalize=equalize, smooth=smooth, execution=execution, progress=report)
    settled = settle(observed, settings, report)
    notes: list[str] = []

    def attempt(candidate: Compressed, left: int) -> bool:
        value = evaluate(candidate.model)
        drop = reference - value
        notes.append(f"{left} of {total} nodes in float: {value:.4f}, drop {drop:+.4f} of {max_drop:.4f} allowed")
        report(notes[-1], 1.0)
        return drop <= max_drop

    total = len(settled.plan.weighted)
    whole = compressed(settled, observed, settings)
    if attempt(whole, 0):
        return replace(whole, notes=(*whole.notes, *notes))
    ranking = [s.node for s in ranked(settled, observed, samples=samples, alone=True, progress=report)]
    # A drop falls, on the whole, as more nodes return to float: the least number that holds lies between one that fails and one that does.
    fails, holds = 0, total
    best: Compressed | None = None
    while holds - fails > 1:
        middle = (fails + holds) // 2
        part = replace(settings, skip=(*settings.skip, *ranking[:middle]))
        candidate = compressed(settle(observed, part, report), observed, part)
        if attempt(candidate, middle):
            holds, best = middle, candidate
        else:
            fails = middle
    if best is None:
        notes.append("no node can be quantized within the limit: the model stays in float")
        reasons = dict.fromkeys(ranking, "the drop would exceed the limit")
        return Compressed(observed.graph, (), {**settled.plan.skipped, **reasons}, (*observed.notes, *notes))
    reasons = {
        name: f"left in float to keep the drop within {max_drop:g} (rank {i + 1} by sensitivity)" for i, name in enumerate(ranking[:holds])
    }
    return replace(best, skipped={**best.skipped, **reasons}, notes=(*best.notes, *notes))
