"""When which request is run, refused or given up: pure functions of frozen data, for whoever serves and for whoever simulates servers.

An event (a request came, a call began or ended) makes the next `State`; `admit`, `next_call` and `expired` ask it what to do.
"""

from edgewise.scheduling.admission import Verdict, admit, refused
from edgewise.scheduling.calls import Call, Wait, expired, next_call, rested
from edgewise.scheduling.curve import Curve, Point, paced
from edgewise.scheduling.planning import Planned, plan, turn
from edgewise.scheduling.state import Model, Pending, Running, State, Traffic, begun, ended, judged, queued, seen, without

__all__ = [
    "Call", "Curve", "Model", "Pending", "Planned", "Point", "Running", "State", "Traffic", "Verdict", "Wait", "admit", "begun", "ended",
    "expired", "judged", "next_call", "paced", "plan", "queued", "refused", "rested", "seen", "turn", "without",
]  # fmt: skip
