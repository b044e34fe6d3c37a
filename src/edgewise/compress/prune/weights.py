"""`prune(of="weights")`: single weights go, or small patterns of them. The file gets smaller, the time stays what it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.moments import MOST_COLUMNS, measured
from edgewise.compress.prune.patterns import SCOPES, Pattern, by_input, by_kernel, masks, n_of_m, parse
from edgewise.compress.prune.scores import SCORES, USUAL_SCOPE, WITHOUT_DATA
from edgewise.compress.prune.surgery import Choose, Layer, prepared, put, repaired, sweep
from edgewise.compress.prune.targets import Target, targets
from edgewise.errors import InvalidInput
from edgewise.graph import mark_sparse
from edgewise.models.network import Network
from edgewise.types import Compressed, Inputs

IMPORTANCES = (*SCORES, "sparsegpt")

Progress = Callable[[str, float], None]


def prune_weights(
    model: Network,
    *,
    ratio: float | Mapping[str, float] | None,
    calibration: Sequence[Inputs] = (),
    importance: str = "obs",
    scope: str = "auto",
    pattern: str = "none",
    repair: bool = True,
    skip: Collection[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Compressed:
    """Set the weights of convolutions and matrix products to zero that the model misses least, and note it on the graph: zeros stay zero in
    whatever training follows.

    ratio: share of the weights that goes; of each weight that it names, where it is a mapping; left out with an N:M pattern. importance:
    obs, taylor, wanda, magnitude, lamp, random (see `scores`), or sparsegpt, which decides and makes up for it column after column.
    scope: over what scores are compared: global (the model), layer, row (an output), or auto: what the criterion was made for. pattern:
    none, N:M as "2:4" along the inputs, or blocks of outputs × inputs as "1x4". repair: what stays is set to the least-squares best on
    `calibration`, layer by layer from the front, each reading what those before it give by then.

    `skipped` are the other weights with the reason. Raises InvalidInput for arguments, and where nothing is left to prune.
    """
    tell = progress or (lambda what, share: None)
    shape = parse(pattern)
    _check(ratio, importance, scope, shape)
    chosen, skipped = choose(model, ratio, shape, skip)
    if (repair or importance not in WITHOUT_DATA) and not calibration:
        raise InvalidInput(
            "prune needs calibration samples: inputs like those that the model will see; or importance='magnitude', repair=False"
        )
    data = Data(batches=calibration, seed=seed) if calibration else None
    over = scope if scope != "auto" else USUAL_SCOPE.get(importance, "global")
    share: float | Mapping[str, float] = 0.0 if ratio is None else ratio
    pruned = copy.deepcopy(model)
    kept: dict[str, Tensor] = {}
    if importance != "sparsegpt":
        tell("judging every weight", 0.0)
        # Criteria that look at weights alone are given samples too, where there are any; those are never read.
        found = SCORES[importance](model, chosen, data or Data(batches=({},), seed=seed))
        kept = masks(found, chosen, share, shape, over)
    notes: list[str] = []
    for number, target in enumerate(chosen):
        tell(f"pruning {target.name}", 0.2 + 0.8 * number / len(chosen))
        wide = target.readers[0].columns > MOST_COLUMNS
        if wide and importance == "sparsegpt":
            raise InvalidInput(f"{target.name} has over {MOST_COLUMNS} columns, too many for sparsegpt; name it in skip, or use magnitude")
        if importance == "sparsegpt" and data is not None:
            layer = prepared(pruned, target, measured(pruned, target.readers, data))
            put(pruned, layer, _swept(layer, share if isinstance(share, float | int) else share[target.name], shape))
        elif repair and data is not None and not wide:
            layer = prepared(pruned, target, measured(pruned, target.readers, data))
            # What is zero already is no part of the least squares, or it would come back.
            put(pruned, layer, repaired(layer, kept[target.name] & (layer.matrix != 0)))
        else:
            if repair and wide:
                notes.append(f"{target.name} has over {MOST_COLUMNS} columns: what stays isn't made up for")
            with torch.no_grad():
                blank(pruned.weight(target.name), target.unmatrix(kept[target.name]))
    return accounted(Network(mark_sparse(pruned.to_graph(), [target.name for target in chosen])), chosen, skipped, notes)


def blank(weight: Tensor, mask: Tensor) -> None:
    """Zero where `mask` is False, in place. Not a product: that would leave minus zeros, which are other bytes."""
    weight.masked_fill_(~mask.to(weight.device), 0.0)


def accounted(model: Network, chosen: Sequence[Target], skipped: Mapping[str, str], notes: Sequence[str] = ()) -> Compressed:
    """A pruned model with what it did to size and to time."""
    counts = {target.name: (int(torch.count_nonzero(w := model.weight(target.name))), w.numel()) for target in chosen}
    stay, total = (sum(count[i] for count in counts.values()) for i in (0, 1))
    whole = sum(parameter.numel() for parameter in model.parameters())
    empty = [name for name, (nonzero, _) in counts.items() if not nonzero]
    said = [f"{1 - stay / total:.1%} of {total:,} weights are zero ({whole:,} parameters in all): fewer bytes once they are coded"]
    said.append("no faster: engines multiply zeros like any other number, so operations and latency are as before")
    if empty:
        said.append(f"nothing is left of {', '.join(empty)}: a lower ratio, scope='layer', or importance='lamp' keeps every layer alive")
    touched = tuple(f"{name}: {nonzero:,} of {size:,} weights left" for name, (nonzero, size) in counts.items())
    return Compressed(model, touched, dict(skipped), (*said, *notes))


def choose(model: Network, ratio: object, pattern: Pattern, skip: Collection[str]) -> tuple[list[Target], dict[str, str]]:
    """The weights that can be pruned with this pattern, and why each other one isn't. Raises InvalidInput where none can."""
    found, skipped = targets(model, skip)
    if isinstance(ratio, Mapping) and (unknown := [name for name in ratio if name not in {target.name for target in found}]):
        reason = skipped.get(str(unknown[0]), "no weight of that name")
        raise InvalidInput(f"ratio names {unknown[0]!r} ({reason}); name some of {', '.join(target.name for target in found[:8])}")
    chosen = []
    for target in found:
        reason = "no ratio is given for it" if isinstance(ratio, Mapping) and target.name not in ratio else ""
        reason = reason or pattern.refuses(target, tuple(target.matrix(model).shape))
        if reason:
            skipped[target.name] = reason
        else:
            chosen.append(target)
    if not chosen:
        why = "; ".join(f"{name}: {reason}" for name, reason in [*skipped.items()][:3]) or "it has no weights"
        raise InvalidInput(f"no weight of this model can be pruned so ({why})")
    return chosen, skipped


def _check(ratio: object, importance: str, scope: str, pattern: Pattern) -> None:
    if importance not in IMPORTANCES:
        raise InvalidInput(f"importance={importance!r} with of='weights'; give one of {', '.join(IMPORTANCES)}")
    if scope not in ("auto", *SCOPES):
        raise InvalidInput(f"scope={scope!r}; give one of auto, {', '.join(SCOPES)}")
    if pattern.keep and ratio is not None:
        raise InvalidInput(f"pattern {pattern} says how much goes; leave ratio out")
    if not pattern.keep and ratio is None:
        raise InvalidInput("prune(of='weights') needs ratio, the share of the weights that goes, as ratio=0.9; or a pattern as '2:4'")
    for name, share in ratio.items() if isinstance(ratio, Mapping) else [("ratio", ratio)]:
        if share is not None and not (isinstance(share, int | float) and 0 <= share < 1):
            raise InvalidInput(f"ratio={share!r}{f' of {name}' if name != 'ratio' else ''}; give a share from 0 to below 1")
    if importance == "sparsegpt" and pattern.keep == 0 and pattern.rows * pattern.inputs > 1:
        raise InvalidInput(
            f"sparsegpt decides column by column and can't keep blocks (pattern {pattern}); use importance='obs' with blocks"
        )
    if importance == "sparsegpt" and scope not in ("auto", "layer"):
        raise InvalidInput(f"sparsegpt decides inside a layer, and scope={scope!r}; leave scope out")


def _swept(layer: Layer, ratio: float, pattern: Pattern) -> Tensor:
    """SparseGPT's matrix. N:M looks at neighbouring inputs, so columns are laid out by the position in the kernel first."""
    kernel = layer.target.kernel
    order = by_input(torch.arange(layer.matrix.shape[2]), kernel)
    hessian = layer.hessian[:, order][:, :, order]
    # A block that ends inside a piece of M would cut it in two.
    block = 128 // pattern.inputs * pattern.inputs or pattern.inputs
    found = sweep(layer.matrix[:, :, order], hessian, _choosing(ratio, pattern, layer.gain), block)
    return by_kernel(found, kernel)


def _choosing(ratio: float, pattern: Pattern, gain: Tensor) -> Choose:
    def lowest(start: int, values: Tensor, costs: Tensor) -> Tensor:
        counted = costs * gain.square()
        gone = round(ratio * costs[0].numel())
        flat = counted.flatten(1)
        keep = torch.ones_like(flat, dtype=torch.bool).scatter(1, flat.argsort(dim=1, stable=True)[:, :gone], False)
        return keep.reshape(costs.shape) & (values != 0)

    return (lambda start, values, costs: n_of_m(costs, pattern)) if pattern.keep else lowest
