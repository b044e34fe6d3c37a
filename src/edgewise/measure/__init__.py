"""Time, memory, energy and fidelity, by the laws of measurement in ARCHITECTURE.md.

Time is taken in processes of their own (`profile`, `compare`, `race`); what a model answers is taken in this one (`answers`, `quality`,
`divergence`, `layers`). A measuring process imports this package, so what is heavy and it doesn't need is imported where it is used.
"""

from edgewise.measure.elsewhere import connect, interruptions
from edgewise.measure.fidelity import Layer, Parting, answers, collect, divergence, layers, quality
from edgewise.measure.independence import Rows, rows
from edgewise.measure.interleave import Contender, compare, race
from edgewise.measure.profiling import profile
from edgewise.measure.roofline import Work, roofline_ms, work
from edgewise.measure.roofs import peaks
from edgewise.measure.spotcheck import spot_check
from edgewise.measure.subject import Subject
from edgewise.measure.timing import latency

__all__ = [
    "Contender",
    "Layer",
    "Parting",
    "Rows",
    "Subject",
    "Work",
    "answers",
    "collect",
    "compare",
    "connect",
    "divergence",
    "interruptions",
    "latency",
    "layers",
    "peaks",
    "profile",
    "quality",
    "race",
    "roofline_ms",
    "rows",
    "spot_check",
    "work",
]
