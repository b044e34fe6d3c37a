"""What parts are worth where the others are narrow already: parts make up for each other, and what each loses alone says little far off."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch

from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.losses import Progress, Ranking, answers, changed_answers, divergence, rising
from edgewise.compress.prune.moments import Moments, gather
from edgewise.compress.prune.narrowing import changes, narrowed, without
from edgewise.graph import Coupling, Part
from edgewise.graph.parts import parts as parts_of
from edgewise.models.network import Network

NEIGHBOURS = 3  # widths of a ladder that are looked at on either side of where a part stands


def losses_around(
    network: Network,
    coupling: Coupling,
    parts: Sequence[Part],
    ranking: Mapping[str, Ranking],
    ladders: Mapping[str, Sequence[int]],
    widths: Mapping[str, int],
    data: Data,
    judged: Data,
    *,
    repair: bool,
    progress: Progress,
) -> dict[str, dict[int, float]]:
    """Part -> width -> divergence, for some widths around that of `widths`, with all other parts as narrow as `widths` says.

    They add up as the survey's do: at `widths` to the divergence that is measured there, elsewhere to that and what each change adds.
    """
    dense = answers(network, judged)
    near = {part.name: neighbours(ladders[part.name], widths[part.name]) for part in parts}
    keep = {part.name: ranking[part.name].keep(widths[part.name]) for part in parts if widths[part.name] < part.units}
    hidden = [part for part in parts if part.kind == "hidden"]
    found: dict[str, dict[int, float]] = {}
    for part in hidden:
        tried = {width: {**keep, part.name: ranking[part.name].keep(width)} for width in near[part.name]}
        others = {width: answers(narrowed(network, coupling, each, data, repair=repair), judged) for width, each in tried.items()}
        found[part.name] = {width: divergence(dense, other) for width, other in others.items()}
        progress(f"what {part.name} is worth beside the others", len(found) / len(parts))
    # Within a stream that is narrow the others are as they were, but for the positions that they read and write.
    streams = {part.name: keep[part.name] for part in hidden if part.name in keep}
    base = narrowed(network, coupling, streams, data, repair=repair) if streams else network
    inner = {part.name: part for part in parts_of(base.structure).parts}
    chosen = [inner[part.name] for part in parts if part.kind != "hidden" and part.name in inner]
    moments = gather(base, chosen, data) if repair else None
    stitched = base
    for part in chosen:
        if part.name in keep:
            stitched = without(stitched, part, keep[part.name], data, repair=repair, moments=moments)
    at = divergence(dense, answers(stitched, judged))
    for part in chosen:
        whole = _with_all_of(part, base, stitched, [each for each in chosen if each.name in keep], keep, data, moments, repair)
        keeps = [ranking[part.name].keep(width) for width in near[part.name]]
        changed = changes(whole, part, keeps, data, repair=repair, moments=moments)
        others = dict(zip(near[part.name], changed_answers(whole, part, changed, judged), strict=True))
        found[part.name] = {width: divergence(dense, other) for width, other in others.items()}
        progress(f"what {part.name} is worth beside the others", len(found) / len(parts))
    share = at / max(len(found), 1)
    return {name: rising({w: lost - here[widths[name]] + share for w, lost in here.items()}) for name, here in found.items()}


def neighbours(ladder: Sequence[int], width: int) -> list[int]:
    """The widths of a ladder next to `width`, and it, from wide to narrow."""
    known = sorted({*ladder, width}, reverse=True)
    place = known.index(width)
    return known[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]


def _with_all_of(
    part: Part,
    base: Network,
    stitched: Network,
    narrow: Sequence[Part],
    keep: Mapping[str, Sequence[int]],
    data: Data,
    moments: Moments | None,
    repair: bool,
) -> Network:
    """`stitched` with the units of `part` read again: its readers as in `base`, but for other parts that these read too."""
    found = copy.deepcopy(stitched)
    readers = {one.tensor for one in part.slices if one.role == "in"}
    (touched,) = changes(base, part, [range(part.units)], data, repair=repair, moments=moments)
    with torch.no_grad():
        for name in {*readers, *touched}:
            found.weight(name).copy_(base.weight(name))
    for other in narrow:
        if other.name != part.name and readers & {one.tensor for one in other.slices if one.role == "in"}:
            found = without(found, other, keep[other.name], data, repair=repair, moments=moments)
    return found
