"""From a latency table to a prediction: the time of any combination of widths, as the sum of its layers' times.

A table holds what each part costs at a few widths, all others whole. Parts interact: a convolution's time hangs on the width of what it
reads *and* of what it writes. So every kind of layer gets a time of its own, non-negative, growing with what it does (FEATURES); those
times are fitted to all that was measured. What a part's entries still show beyond that corrects the layers which that part touches, and
whole models measured later (`correct`) correct what lies near them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewise.errors import InvalidInput
from edgewise.graph.graph import Graph
from edgewise.graph.parts import Coupling
from edgewise.measure.sizes import ROUNDINGS, Layout, Size, Terms, layout, terms
from edgewise.records import Interval, JointTime, LatencyTable, LayerModel, WidthTime

FEATURES = ("constant", "output", "input", *(f"macs by {step}" if step > 1 else "macs" for step in ROUNDINGS))

# What a layer is expected to take before anything is measured, in multiply-accumulates: per node, per element written, per element read,
# per multiply-accumulate in each rounding. Only its proportions matter, and only where measurements say little.
EXPECTED = np.array([5000.0, 4.0, 4.0, *([1 / len(ROUNDINGS)] * len(ROUNDINGS))])

FAMILY_SPREAD = 3.0  # a family's efficiency may be this far from expected, relative
GROUP_SPREADS = (0.1, 0.3, 1.0)  # and a layer's from its family's; the one that predicts left-out configurations best is taken
DETAILS = (0.0, 0.5, 1.0)
DETAIL_SPREAD = 0.15  # by how much entries deviate from the layers' sum, relative to the time of the layers that the part touches
SINGLE_NOISE = 0.004  # of a ratio, beyond what its interval says: where memory happens to lie when a model is loaded
JOINT_NOISE = 0.015  # relative; what the layers' sum can't express is part of it
FOLDS = 8

# Corrections: how far from a measured configuration its deviation still counts, in mean relative width; the deviations' usual size.
NEAR, FAR = 0.1, 0.5
DEVIATION = 0.05


@dataclass(frozen=True, eq=False)
class Features:
    """What every kind of layer does as a function of widths, relative to the dense model, as terms.

    kinds: names of the layers' kinds; column: (terms,) kind × feature that a term belongs to; touched: (terms, parts) whether the term's
    nodes change with a part. dense: (kinds × features,) absolute, of the dense model.
    """

    layout: Layout
    kinds: tuple[str, ...]
    families: tuple[str, ...]
    terms: Terms
    column: np.ndarray
    touched: np.ndarray
    dense: np.ndarray

    def values(self, widths: np.ndarray) -> np.ndarray:
        """widths (n, parts) -> (n, terms)"""
        return self.terms.values(self.layout.factors(widths))

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """(n, terms) -> (n, kinds × features): 1 where it is as when dense"""
        gather = np.zeros((len(self.column), len(self.dense)))
        gather[np.arange(len(self.column)), self.column] = 1
        found: np.ndarray = values @ gather
        return found

    @property
    def expected(self) -> np.ndarray:
        """(kinds × features,) shares of the dense time that one would expect without measuring; they sum to 1."""
        raw: np.ndarray = self.dense * np.tile(EXPECTED, len(self.kinds))
        raw /= raw.sum()
        return raw


def features(layout: Layout) -> Features:
    kinds: dict[str, str] = {}  # kind -> family
    found: dict[tuple[int, tuple[int, ...], tuple[int, ...]], float] = {}
    numbers: dict[str, int] = {}
    for layer in layout.layers:
        # Layers without dot products are many and cheap, often fused into others: one kind per operator.
        kind = layer.shape if layer.macs.terms else layer.family
        kinds.setdefault(kind, layer.family)
        number = numbers.setdefault(kind, len(numbers))
        touched = tuple(sorted({*layout.depends(layer.outputs, layer.inputs, layer.macs), *layer.gone}))
        sizes = [(Size({(): 1}), 0), (layer.outputs, 0), (layer.inputs, 0), *((layer.macs, i) for i in range(len(ROUNDINGS)))]
        for feature, (size, rounding) in enumerate(sizes):
            for product, coefficient in layout.products(size, layer.gone, rounding).items():
                row = (number * len(FEATURES) + feature, product, touched)
                found[row] = found.get(row, 0.0) + coefficient
    if not found:
        raise InvalidInput("the model has no layer whose shapes are known; fold it first, and give every input's shape")
    column = np.array([row[0] for row in found])
    touches = np.zeros((len(found), len(layout.parts)))
    for i, (_, _, touched) in enumerate(found):
        touches[i, list(touched)] = 1
    raw = terms((row[1] for row in found), found.values())
    full = raw.values(layout.factors(layout.vector({})[None]))[0]
    dense = np.bincount(column, full, len(kinds) * len(FEATURES))
    relative = Terms(raw.index, raw.coefficient / dense[column])
    return Features(layout, tuple(kinds), tuple(kinds.values()), relative, column, touches, dense)


@dataclass(frozen=True, eq=False)
class Predictor:
    """Milliseconds as a function of widths. Made once (`latency_predictor`), then cheap: some 50 µs a call on a net of 50 layers.

    terms and touched: as in Features, with the fitted times as coefficients (of a dense time of 1). detail: what corrects the layers that a
    part touches, for every width of every part in a row; start: where each part's row starts. near: (corrections, parts) relative widths
    of the whole models that were measured, pull: (corrections,) what each contributes; weight: (parts,) what counts for being near.
    """

    layout: Layout
    dense_ms: float
    terms: Terms
    touched: np.ndarray
    detail: np.ndarray
    start: np.ndarray
    near: np.ndarray
    pull: np.ndarray
    weight: np.ndarray

    def __call__(self, widths: Mapping[str, int]) -> float:
        return self.dense_ms * float(self.ratios(self.layout.vector(widths)[None])[0])

    def ratio(self, widths: Mapping[str, int]) -> float:
        """To the dense model's time."""
        return float(self.ratios(self.layout.vector(widths)[None])[0])

    def ratios(self, widths: np.ndarray) -> np.ndarray:
        """widths (n, parts) -> (n,)"""
        values = self.terms.values(self.layout.factors(widths))
        found: np.ndarray = values.sum(1) + (self.detail[self.start + widths] * (values @ self.touched)).sum(1)
        if len(self.pull):
            found = found * np.exp(_likeness(widths / self._units, self.near, self.weight) @ self.pull)
        return found

    @property
    def _units(self) -> np.ndarray:
        return np.array(list(self.layout.parts.values()))


def latency_predictor(graph: Graph, parts: Coupling, table: LatencyTable) -> Predictor:
    """The predictor that `table` stands for. `graph`, with its `parts`, is the one that was measured, or one of the same structure."""
    return predictor(table, layout(graph, parts, **axes_of(graph, table.inputs)))


def axes_of(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of the graph's named axes when its inputs have these shapes."""
    found = {}
    for spec in graph.signature.inputs:
        for axis, size in zip(spec.shape, shapes.get(spec.name, ()), strict=False):
            if isinstance(axis, str):
                found[axis] = int(size)
    return found


def predictor(table: LatencyTable, layout: Layout) -> Predictor:
    """Raises InvalidInput when the table is of another network, or nothing was fitted to it yet (`fitted`)."""
    if dict(table.units) != dict(layout.parts):
        raise InvalidInput("the latency table is of a network with other parts; measure one for this network")
    if table.model is None:
        raise InvalidInput("the latency table isn't complete: nothing was fitted to it; go on measuring with known=table")
    known = features(layout)
    shares = np.zeros((len(known.kinds), len(FEATURES)))
    for i, kind in enumerate(known.kinds):
        shares[i] = table.model.shares.get(kind, 0.0)
    return _predictor(table, known, shares.reshape(-1), table.model.detail)


def correct(table: LatencyTable, widths: Mapping[str, int], ratio: Interval | float) -> LatencyTable:
    """`table` with the time of a whole model of these widths, to the dense one's. Predictions near it follow it; the entries stay."""
    measured = ratio if isinstance(ratio, Interval) else Interval(ratio, ratio, ratio, 1)
    return replace(table, corrections=(*table.corrections, JointTime(dict(widths), measured)))


def fitted(table: LatencyTable, layout: Layout) -> LatencyTable:
    """`table` with the layers' times fitted to its entries and joint configurations.

    In two steps: each family's efficiency, then every kind of layer's around its family's (non-negative least squares, with a ridge towards
    what was expected). How far a kind may be from its family, and how far entries correct the sum, is what predicts joint configurations
    best that were left out of the fit, an eighth of them at a time; `error` and `worst` are those predictions'.
    """
    known = features(layout)
    measured = _Measured.of(table, known)
    joint = np.flatnonzero(measured.joint)
    spread, detail, error, worst = 0.3, 1.0, None, None
    if len(joint) >= FOLDS:
        found: dict[tuple[float, float], np.ndarray] = {}
        for tried in GROUP_SPREADS:
            apart = {part: np.zeros(len(joint)) for part in DETAILS}
            for fold in range(FOLDS):
                out = joint[fold::FOLDS]
                shares = _shares(known, measured, np.setdiff1d(np.arange(len(measured.ratio)), out), tried)
                for part in DETAILS:
                    guessed = _predictor(replace(table, corrections=()), known, shares, part).ratios(measured.widths[out])
                    apart[part][fold::FOLDS] = guessed / measured.ratio[out] - 1
            found |= {(tried, part): np.abs(errors) for part, errors in apart.items()}
        (spread, detail), errors = min(found.items(), key=lambda pair: float(np.square(pair[1]).mean()))
        error, worst = float(np.median(errors)), float(errors.max())
    shares = _shares(known, measured, np.arange(len(measured.ratio)), spread).reshape(len(known.kinds), -1)
    rows = {kind: tuple(row.tolist()) for kind, row in zip(known.kinds, shares, strict=True)}
    return replace(table, model=LayerModel(rows, detail, error, worst))


@dataclass(frozen=True, eq=False)
class _Measured:
    """All measurements of a table as rows: the dense model itself, entries (each measurement once), joint configurations."""

    widths: np.ndarray  # (n, parts)
    ratio: np.ndarray
    noise: np.ndarray  # standard deviation of the ratio
    joint: np.ndarray  # bool
    columns: np.ndarray  # (n, kinds × features)

    @staticmethod
    def of(table: LatencyTable, known: Features) -> _Measured:
        entries = [entry for entry in table.entries if not entry.measured_as]
        widths = [{}, *({entry.part: entry.width} for entry in entries), *(one.widths for one in table.joint)]
        ratio = np.array([1.0, *(entry.ratio.value for entry in entries), *(one.ratio.value for one in table.joint)])
        noise = [
            0.002,
            *map(_entry_noise, entries),
            *(np.hypot(_deviation(one.ratio), JOINT_NOISE * one.ratio.value) for one in table.joint),
        ]
        vectors = np.stack([known.layout.vector(one) for one in widths])
        joint = np.arange(len(ratio)) > len(entries)
        return _Measured(vectors, ratio, np.array(noise), joint, known.gathered(known.values(vectors)))


def _entry_noise(entry: WidthTime) -> float:
    return float(np.hypot(_deviation(entry.ratio), SINGLE_NOISE / entry.together))


def _deviation(ratio: Interval) -> float:
    return ratio.half_width / 1.96


def _shares(known: Features, measured: _Measured, rows: np.ndarray, spread: float) -> np.ndarray:
    """(kinds × features,) shares of the dense time, fitted to `rows`; they sum to 1."""
    active = known.dense > 0
    expected = known.expected[active]
    scale = 1 / measured.noise[rows]
    x, y = measured.columns[np.ix_(rows, active)] * scale[:, None], measured.ratio[rows] * scale
    # Families: a factor on what was expected, for each feature.
    families = sorted(set(known.families))
    member = np.array([families.index(family) * len(FEATURES) + i for family in known.families for i in range(len(FEATURES))])[active]
    first = np.zeros((len(member), len(families) * len(FEATURES)))
    first[np.arange(len(member)), member] = expected
    first = first[:, first.any(0)]
    ridge = 1 / FAMILY_SPREAD**2
    factors = nonnegative((x @ first).T @ (x @ first) + ridge * np.eye(first.shape[1]), (x @ first).T @ y + ridge)
    prior = first @ factors
    # Kinds: around it, by a share of what the whole layer takes (and a little, so that nothing is ruled out).
    kind = np.repeat(np.arange(len(known.kinds)), len(FEATURES))[active]
    width = spread * (np.bincount(kind, prior)[kind] + 0.002)
    scaled = x * width
    found = np.zeros(len(active))
    found[active] = width * nonnegative(scaled.T @ scaled + np.eye(len(width)), scaled.T @ y + prior / width)
    found /= found.sum()
    return found


def nonnegative(gram: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimises x·gram·x / 2 - target·x, for a positive definite `gram` (n, n): block principal pivoting.

    Kim and Park 2011, "Fast nonnegative matrix factorization", section 4: exchange all that is on the wrong side; where that stops helping,
    one at a time, which can't go round in circles (Murty's rule).
    """
    size = len(target)
    free = np.ones(size, bool)
    fewest, patience = size + 1, 3
    slack = 1e-10 * (float(np.abs(target).max(initial=0)) + 1e-300)
    x = np.zeros(size)
    for _ in range(20 * size + 20):  # far more than it takes; rounding alone could go on for ever
        x = np.zeros(size)
        x[free] = np.linalg.solve(gram[np.ix_(free, free)], target[free])
        wrong = np.where(free, x < 0, gram @ x - target < -slack)
        count = int(wrong.sum())
        if not count:
            break
        if count < fewest:
            fewest, patience = count, 3
        elif patience:
            patience -= 1
        else:
            wrong &= np.arange(size) == np.flatnonzero(wrong)[-1]
        free ^= wrong
    return np.maximum(x, 0)


def _predictor(table: LatencyTable, known: Features, shares: np.ndarray, detail: float) -> Predictor:
    times = Terms(known.terms.index, known.terms.coefficient * shares[known.column])
    used = _merged(times, known.touched)
    units = np.array(list(known.layout.parts.values()), np.int64)
    start = np.concatenate([[0], np.cumsum(units + 1)[:-1]]).astype(np.int64)
    whole = used[0].values(known.layout.factors(known.layout.vector({})[None]))[0] @ used[1]
    weight = whole / max(whole.sum(), 1e-300)
    empty = np.zeros((0, len(units)))
    plain = Predictor(known.layout, table.dense_ms, *used, np.zeros(int((units + 1).sum())), start, empty, np.zeros(0), weight)
    detailed = replace(plain, detail=detail * _detail(table.entries, plain))
    if not table.corrections:
        return detailed
    widths = np.stack([known.layout.vector(one.widths) for one in table.corrections])
    ratio = np.array([one.ratio.value for one in table.corrections])
    noise = np.array([(_deviation(one.ratio) / one.ratio.value) ** 2 for one in table.corrections]) / DEVIATION**2 + 0.01
    near = widths / units
    pull = np.linalg.solve(_likeness(near, near, weight) + np.diag(noise), np.log(ratio / detailed.ratios(widths)))
    return replace(detailed, near=near, pull=pull)


def _merged(times: Terms, touched: np.ndarray) -> tuple[Terms, np.ndarray]:
    """Terms of the same factors and the same parts as one, and those that take no time left out."""
    found: dict[tuple[tuple[int, ...], bytes], list[float]] = {}
    rows: dict[tuple[tuple[int, ...], bytes], int] = {}
    for i in np.flatnonzero(times.coefficient):
        row = (tuple(times.index[i].tolist()), touched[i].tobytes())
        rows.setdefault(row, int(i))
        found.setdefault(row, []).append(float(times.coefficient[i]))
    kept = list(rows.values())
    return Terms(times.index[kept], np.array([sum(found[row]) for row in rows])), touched[kept]


def _detail(entries: Sequence[WidthTime], plain: Predictor) -> np.ndarray:
    """What entries show beyond the layers' sum, relative to the time of the layers that the part touches, for every width of every part.

    Shrunk towards zero where it drowns in noise: the posterior mean under N(0, DETAIL_SPREAD²). Between entries it is linear, at the full
    width zero. A removed part (width 0) touches nothing any more.
    """
    found = np.zeros_like(plain.detail)
    if not entries:
        return found
    names = list(plain.layout.parts)
    numbers = np.array([names.index(entry.part) for entry in entries])
    vectors = np.stack([plain.layout.vector({entry.part: entry.width}) for entry in entries])
    values = plain.terms.values(plain.layout.factors(vectors))
    beyond = np.array([entry.ratio.value for entry in entries]) - values.sum(1)
    time = (values @ plain.touched)[np.arange(len(entries)), numbers] * DETAIL_SPREAD
    noise = np.array([_entry_noise(entry) for entry in entries])
    relative = beyond * time / (time**2 + noise**2) * DETAIL_SPREAD
    for number, (name, units) in enumerate(plain.layout.parts.items()):
        points = {entry.width: relative[i] for i, entry in enumerate(entries) if entry.part == name and entry.width > 0} | {units: 0.0}
        widths = sorted(points)
        row = np.interp(np.arange(units + 1), widths, [points[width] for width in widths])
        row[0] = 0.0
        found[plain.start[number] : plain.start[number] + units + 1] = row
    return found


def _likeness(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(n, parts), (m, parts) relative widths -> (n, m): 1 where equal. Half of a deviation is taken to hold far around, half only near."""
    apart = (np.square(one[:, None] - other[None]) * weight).sum(2)
    found: np.ndarray = 0.5 * np.exp(-apart / (2 * NEAR**2)) + 0.5 * np.exp(-apart / (2 * FAR**2))
    return found
