"""The pass `factorize`: a table that rows are looked up in becomes a narrower one, and a matrix that widens what was looked up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from edgewise.compress.prune.calibration import Data, enough, evaluating, present, tensors
from edgewise.compress.prune.refit import refit
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index, infer_shapes
from edgewise.graph.index import all_names, fresh
from edgewise.models.network import Network
from edgewise.types import Compressed, Inputs

# Rows for each column, below which a second factor takes too much of what the first one saves.
LEAST_ROWS = 4


@dataclass(frozen=True, eq=False)
class _Table:
    """name: of the initializer (rows, columns); gathers: the nodes that look rows of it up."""

    name: str
    values: np.ndarray
    gathers: tuple[onnx.NodeProto, ...]


def factorize(
    model: Network,
    *,
    calibration: Sequence[Inputs],
    rank: int | None = None,
    lost: float | None = None,
    repair: bool = True,
    samples: int = 256,
    skip: Collection[str] = (),
) -> Compressed:
    """Give each embedding table (rows, columns) as the product of (rows, rank) and (rank, columns): fewer bytes, all rows still there.

    rank: columns of the narrow table; or lost: the share of what the rows hold, squared and each row as often as it is looked up, that may
    go (0.1: a tenth); the least rank that keeps the rest is taken. Give one of them. skip: tables to leave whole. repair: the layers behind
    are set anew, to give what they gave (`prune.refit`). samples: how many of `calibration` are looked at, and as many more as it takes
    to some 30,000 tokens.

    The basis is the best for rows as often as the calibration samples look them up: the leading eigenvectors of T' diag(w) T (Eckart and
    Young 1936, for weighted rows). Rows that they don't look up share what Good and Turing say unseen rows will get: as many look-ups as
    there were of rows that were seen once (Good 1953). So a row that is never seen in calibration isn't given up. The rank is a part of the
    network from then on, which `prune` may take more from. Raises InvalidInput for arguments, and where there is no table to factorize.
    """
    if (rank is None) == (lost is None):
        raise InvalidInput("factorize wants a rank or what may be lost; give one of rank, lost")
    if rank is not None and (not isinstance(rank, int) or rank < 1):
        raise InvalidInput(f"rank={rank!r}; give the number of columns that stay, 1 or more")
    if lost is not None and not 0 <= lost < 1:
        raise InvalidInput(f"lost={lost!r}; give a share from 0 to below 1")
    data = Data(batches=enough(calibration, samples))
    tables, skipped = _tables(model, skip)
    if not tables:
        why = "; ".join(f"{name}: {reason}" for name, reason in [*skipped.items()][:3]) or "nothing looks rows up in a stored table"
        raise InvalidInput(f"there is no table to factorize ({why})")
    counts = _looked_up(model, tables, data)
    proto, taken, made = model.to_graph().copy_proto(), all_names(model.structure.proto), []
    for table in tables:
        values, vectors = _basis(table.values.astype(np.float64), expected(counts[table.name]))
        share = np.append(values[::-1].cumsum()[::-1], 0.0) / max(values.sum(), 1e-300)  # what goes with so many kept
        columns = rank if rank is not None else max(1, int(np.argmax(share <= (lost or 0.0) + 1e-12)))
        rows, width = table.values.shape
        if columns * (rows + width) >= rows * width:
            skipped[table.name] = f"with {columns} columns, both factors together would be no smaller than the table of {width}"
            continue
        _put(proto, table, vectors[:, :columns], taken)
        made.append(f"{table.name}: {rows}×{width} → {rows}×{columns} · {columns}×{width}, {share[columns]:.2%} lost")
    if not made:
        raise InvalidInput(f"nothing was factorized ({'; '.join(f'{name}: {reason}' for name, reason in skipped.items())}); ask for less")
    found = Network(infer_shapes(Graph.from_proto(proto, model.structure.notes)))
    return Compressed(refit(found, model, {}, data) if repair else found, tuple(made), skipped)


def expected(counts: np.ndarray) -> np.ndarray:
    """(rows,) shares of the look-ups to come, from how often each row was looked up; they sum to 1.

    Unseen rows together get the share of the look-ups that met a row for the only time (Good 1953, equation 9), alike.
    """
    total, unseen = counts.sum(), counts == 0
    if not total or unseen.all():
        return np.full(len(counts), 1 / len(counts))
    left = float((counts == 1).sum()) / total if unseen.any() else 0.0
    left = min(max(left, 1 / total if unseen.any() else 0.0), 0.5)
    found: np.ndarray = (1 - left) * counts / total
    found[unseen] = left / max(int(unseen.sum()), 1)
    return found


def _tables(network: Network, skip: Collection[str]) -> tuple[list[_Table], dict[str, str]]:
    index = Index(network.structure)
    weights = network.weights()
    if unknown := [name for name in skip if name not in weights]:
        raise InvalidInput(f"skip names {unknown[0]!r}, which is no weight; the weights are {', '.join([*weights][:8])}")
    found, skipped = [], {}
    for name, weight in weights.items():
        users = index.consumers(name)
        if weight.dim() != 2 or not any(user.op_type == "Gather" and user.input[0] == name for user in users):
            continue
        if name in skip:
            skipped[name] = "asked to be left whole"
        elif not all(user.op_type == "Gather" and user.input[0] == name and not _axis(user) for user in users) or name in index.outputs:
            skipped[name] = "more than looking rows up is done with it"
        elif weight.shape[0] < LEAST_ROWS * weight.shape[1]:
            skipped[name] = f"{weight.shape[0]} rows are too few for {weight.shape[1]} columns"
        else:
            found.append(_Table(name, weight.detach().cpu().numpy(), users))
    return found, skipped


def _axis(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 0)


def _looked_up(network: Network, tables: Sequence[_Table], data: Data) -> dict[str, np.ndarray]:
    """Table -> (rows,) how often each row is looked up; not for what fills sequences up to one length."""
    counts = {table.name: np.zeros(len(table.values), np.int64) for table in tables}
    taps = tuple(dict.fromkeys(gather.input[1] for table in tables for gather in table.gathers))
    with evaluating(network), torch.no_grad():
        for batch in data.batches:
            seen, mask = network.run(tensors(network, batch), taps=taps), present(batch)
            for table in tables:
                for gather in table.gathers:
                    rows = seen[gather.input[1]].cpu().numpy()
                    rows = rows[mask] if mask is not None and rows.shape == mask.shape else rows.reshape(-1)
                    np.add.at(counts[table.name], rows, 1)  # -1 is the last row, as Gather has it
    return counts


def _basis(table: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, falling, and eigenvectors (columns, columns) of the rows' second moments."""
    values, vectors = np.linalg.eigh((table * weights[:, None]).T @ table)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def _put(proto: onnx.ModelProto, table: _Table, vectors: np.ndarray, taken: set[str]) -> None:
    """Exchange `table` for its rows in the basis `vectors` (columns, rank), and widen what is looked up, in place."""
    stored = next(tensor for tensor in proto.graph.initializer if tensor.name == table.name)
    kind = table.values.dtype
    stored.CopyFrom(numpy_helper.from_array((table.values.astype(np.float64) @ vectors).astype(kind), table.name))
    basis = fresh(f"{table.name}.basis", taken)
    proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(vectors.T.astype(kind)), basis))
    for gather in table.gathers:
        place = next(i for i, node in enumerate(proto.graph.node) if node.name == gather.name)
        node, whole = proto.graph.node[place], gather.output[0]
        narrow = fresh(f"{whole}_narrow", taken)
        node.output[0] = narrow
        proto.graph.node.insert(place + 1, helper.make_node("MatMul", [narrow, basis], [whole], name=f"{node.name}_widened"))
