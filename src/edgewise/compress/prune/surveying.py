"""`survey`: what a network can lose, measured; and `Survey`, which knows the widths that reach a goal at the least loss."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

from edgewise.compress.prune.around import losses_around
from edgewise.compress.prune.calibration import Data, enough, first
from edgewise.compress.prune.losses import Progress, Ranking, answers, divergence, losses, ranked
from edgewise.compress.prune.moments import gather
from edgewise.compress.prune.narrowing import narrowed
from edgewise.compress.prune.solve import Solution, solve
from edgewise.errors import InvalidInput
from edgewise.graph import Coupling, Part, parts
from edgewise.measure.table import default_ladder
from edgewise.models.network import Network
from edgewise.types import Inputs

# Narrower widths of a part that are looked at: each is a pass of the whole model over the samples, and EfficientNet-Lite0 has 1,400
# multiples of 8, most of them of parts with 480 units and more.
MOST_WIDTHS = 20
# Of a stream, whose every width is a network of its own that is refitted.
MOST_STREAM_WIDTHS = 10
# Widths of a stream in a row that are no better before it settles: an engine may be no faster at one, and clearly at the next.
PATIENCE = 2


@dataclass(frozen=True, eq=False)
class Survey:
    """What a model can lose: its parts, the order in which their units go, and what each width costs in divergence of the answers.

    network, data, judged: what was surveyed, the samples that weights are repaired with, and those that answers are compared on.
    """

    coupling: Coupling
    chosen: tuple[Part, ...]
    ranking: Mapping[str, Ranking]
    losses: Mapping[str, Mapping[int, float]]
    network: Network
    data: Data
    judged: Data
    repair: bool = True

    def solve(
        self,
        predict: Callable[[Mapping[str, int]], float],
        target: float,
        least: Mapping[str, int] | None = None,
        most: Mapping[str, int] | None = None,
    ) -> Solution:
        """The widths of the least divergence with predict(widths) <= target, none of them below `least` or above `most`."""
        low, high = least or {}, most or {}
        allowed = {
            part.name: {
                w: loss for w, loss in self.losses[part.name].items() if low.get(part.name, 0) <= w <= high.get(part.name, part.units)
            }
            for part in self.chosen
        }
        return solve(allowed, predict, target)

    def refined(
        self,
        predict: Callable[[Mapping[str, int]], float],
        target: float,
        least: Mapping[str, int] | None = None,
        most: Mapping[str, int] | None = None,
        *,
        rounds: int = 1,
        progress: Progress | None = None,
    ) -> Solution:
        """As `solve`; then every part is judged again beside the others as narrow as they came out, and it is solved again, `rounds` times.

        What a part loses alone says little of what it loses among narrow ones: parts make up for each other (SPDY, 2201.13096, section 3.3,
        searches for factors on the losses for that reason). A round takes about as long as the survey, and counts only where the network
        as it will be, refitted, comes out better.
        """
        found = self.solve(predict, target, least, most)
        if not found.reachable or not rounds:
            return found
        tell = progress or (lambda what, share: None)
        lost = self.measured(found.widths)
        ladders = {part.name: tuple(self.losses[part.name]) for part in self.chosen}
        for _ in range(rounds):
            around = losses_around(
                self.network,
                self.coupling,
                self.chosen,
                self.ranking,
                ladders,
                found.widths,
                self.data,
                self.judged,
                repair=self.repair,
                progress=tell,
            )
            # What went whole with the others has no neighbours: it stays as it is.
            known = {part.name: around.get(part.name, {found.widths[part.name]: 0.0}) for part in self.chosen}
            other = replace(self, losses=known).solve(predict, target, least, most)
            measured = self.measured(other.widths) if other.reachable and other.widths != found.widths else lost
            if measured >= lost:
                break
            found, lost = other, measured
        return replace(found, loss=lost, exact=False)

    def settled(
        self,
        predict: Callable[[Mapping[str, int]], float],
        target: float,
        least: Mapping[str, int] | None = None,
        most: Mapping[str, int] | None = None,
        *,
        tell: Callable[[str, int], None] | None = None,
    ) -> dict[str, int]:
        """The width of each stream at which the network that is solved for around it, refitted, comes out best. Empty where there is none.

        What a stream loses is bounded (an answer can't be more than wrong), and it saves time everywhere: by losses that add up, all of it
        goes before anything else does. So it is narrowed for as long as the whole network gets better, each time measured as it will be.
        One width that is no better doesn't end it: time doesn't fall with each. tell: called with what is tried.
        """
        settled: dict[str, int] = {}
        for part in self.chosen:
            if part.kind != "hidden":
                continue
            low, high = (least or {}).get(part.name, 0), (most or {}).get(part.name, part.units)
            best, worse = float("inf"), 0
            for width in sorted((w for w in self.losses[part.name] if low <= w <= high), reverse=True):
                fixed = {**settled, part.name: width}
                found = self.solve(predict, target, {**(least or {}), **fixed}, {**(most or {}), **fixed})
                if not found.reachable:
                    continue
                if tell:
                    tell(part.name, width)
                lost = self.measured(found.widths)
                if lost < best:
                    best, chosen, worse = lost, width, 0
                elif (worse := worse + 1) == PATIENCE or isnan(lost):  # nor where nothing is left to normalise
                    break
            if best < float("inf"):
                settled[part.name] = chosen
        return settled

    def measured(self, widths: Mapping[str, int]) -> float:
        """The divergence of the network of these widths, its weights repaired."""
        keep = {part.name: self.ranking[part.name].keep(widths[part.name]) for part in self.chosen if widths[part.name] < part.units}
        small = narrowed(self.network, self.coupling, keep, self.data, repair=self.repair)
        return divergence(answers(self.network, self.judged), answers(small, self.judged))


def survey(
    model: Network,
    calibration: Sequence[Inputs],
    *,
    of: str = "all",
    depth: bool = True,
    importance: str = "obs",
    repair: bool = True,
    skip: Collection[str] = (),
    samples: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Survey:
    """Rank the units of every part, and measure what removing them costs; arguments as for `prune`. Raises InvalidInput."""
    tell = progress or (lambda what, share: None)
    coupling, chosen = chosen_parts(model, of, skip)
    data, judged = Data(enough(calibration, samples), seed=seed), Data(first(calibration, samples), seed=seed)
    tell("second moments of what each layer reads", 0.0)
    moments = gather(model, chosen, data) if repair or importance == "obs" else None
    ranking = ranked(model, chosen, data, importance, tell, moments)
    ladders = {part.name: ladder(part, depth) for part in chosen}
    found = losses(model, coupling, chosen, ranking, ladders, data, repair=repair, progress=tell, moments=moments, judged=judged)
    return Survey(coupling, chosen, ranking, found, model, data, judged, repair)


def chosen_parts(model: Network, of: str, skip: Collection[str]) -> tuple[Coupling, tuple[Part, ...]]:
    """All parts, and those that may be pruned. Raises InvalidInput where there are none."""
    coupling = parts(model.to_graph())
    chosen = tuple(part for part in coupling.parts if not reason(part, of, skip))
    if not chosen:
        why = "; ".join(f"{name}: {said}" for name, said in [*coupling.fixed.items()][:3]) or "no part is of that kind"
        raise InvalidInput(f"nothing of this model can be pruned ({why})")
    return coupling, chosen


def ladder(part: Part, depth: bool = True) -> tuple[int, ...]:
    """The widths that a part may take, from its full one down."""
    most = MOST_STREAM_WIDTHS if part.kind == "hidden" else MOST_WIDTHS
    narrower = default_ladder(part.units, part.removable and depth, most, kind=part.kind)
    return (part.units, *(width for width in narrower if width < part.units))


def reason(part: Part, of: str, skip: Collection[str]) -> str:
    """Why a part is left whole; empty where it isn't."""
    if part.name in skip:
        return "asked to be left whole"
    return "" if of in ("all", part.kind) else f"it is a part of {part.kind}"
