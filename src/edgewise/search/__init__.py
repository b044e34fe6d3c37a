"""Search: the climb from the dense model to one that meets a budget, its trials on disk, and the choice among them."""

from edgewise.search.bench import Bench, Candidate, Reference, shapes_of
from edgewise.search.choose import best, outcomes, shortfall
from edgewise.search.climb import Climb, follow, run, start
from edgewise.search.pace import Pace
from edgewise.search.store import Store

__all__ = [
    "Bench", "Candidate", "Climb", "Pace", "Reference", "Store", "best", "follow", "outcomes", "run", "shapes_of", "shortfall", "start",
]  # fmt: skip
