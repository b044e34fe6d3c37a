"""The pass `rdoq`: rate-distortion optimised quantization after training. Weights stay float32, on grids that code into few bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgewise import coding
from edgewise.compress.prune.calibration import Data, evaluating, first, tensors
from edgewise.compress.prune.moments import MOST_COLUMNS, Moments, measured
from edgewise.compress.prune.readers import Reader, every, matrix, unmatrix
from edgewise.compress.rate.rounding import Layer, factor, rounded, steps
from edgewise.compress.rate.sensitivity import Sensitivity, felt, without_norms
from edgewise.errors import InvalidInput
from edgewise.graph import Index
from edgewise.models.network import Network, unescaped
from edgewise.types import Compressed, Inputs

# λ over the squared step. Rate and distortion of entropy-coded uniform quantization have one slope at ln 2 / 6 = 0.116 (D ~ 2^-2R); but
# an error that is fed back moves later columns off zero, which costs bits there: LeNet-5 takes a fifth more bytes at one divergence with
# that slope than without any price, and as many with a quarter of it (benchmarks/lenet/post_training.py).
SLOPE = 0.03
TRIES = 9  # of the search for the step that diverges as much as is allowed
CLOSE = 0.03  # relative: nearer to the divergence isn't looked for
SMALL = 64  # a tensor of fewer elements has a step of its own four times finer: it costs few bytes


def rdoq(
    model: Network,
    *,
    calibration: Sequence[Inputs] | None = None,
    divergence: float = 0.01,
    step: float | None = None,
    size_bytes: int | None = None,
    slope: float = SLOPE,
    samples: int = 256,
    damping: float = 0.01,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Compressed:
    """Round every weight of `model` to a grid: the best bargains of error and bits (CERWU, 2505.18758), errors fed back along each row.

    divergence: relative L2 error of the outputs on the calibration samples that may come of it; the coarsest step within it is searched
    for. size_bytes: instead of a divergence, what all weights may take once they are coded: the finest step within it. step: instead of
    both, the step itself: an error of one step in one weight moves the answers by about that share of their norm. slope: λ over the squared
    step. Without calibration, H is the identity, every tensor counts by its own energy, and the divergence is that of the weights.

    Batch norms are folded into the weights before them. Weights of products and convolutions get a step for each row, other tensors one
    each. Raises InvalidInput for options, and where no step that was tried diverges little enough.
    """
    if not 0 < divergence < 1 or slope < 0 or (step is not None and step <= 0) or (size_bytes is not None and size_bytes < 1):
        raise InvalidInput(
            f"divergence={divergence}, step={step}, size_bytes={size_bytes}, slope={slope}: give 0 < divergence < 1, a step and a size "
            "above 0, slope from 0 up"
        )
    job = prepared(model, calibration, samples=samples, damping=damping, seed=seed, progress=progress)
    if step is not None:
        return job.account(*job.made(step, slope), step)
    if size_bytes is not None:
        found = _searched(job, size_bytes, slope, coded_bytes, -1, progress)
        if found is None:
            raise InvalidInput(f"size_bytes={size_bytes:,}: even the coarsest step tried takes more; allow more, or prune before")
    else:
        found = _searched(job, divergence, slope, job.diverges, 1, progress)
        if found is None:
            raise InvalidInput(f"divergence={divergence:g}: even the finest step tried diverges more; allow more, or leave the weights")
    return job.account(*found)


@dataclass(frozen=True, eq=False)
class Job:
    """What is known before a step is chosen.

    layers: tensor -> the matrix to round. vectors: tensor -> gain of its
    elements. means: of what a reader with a bias behind it meets, (groups, columns): the mean of an error moves there.
    """

    model: Network
    readers: Mapping[str, tuple[Reader, ...]]
    layers: Mapping[str, Layer]
    vectors: Mapping[str, float]
    means: Mapping[str, np.ndarray]
    skipped: Mapping[str, str]
    batches: tuple[Mapping[str, torch.Tensor], ...]
    wanted: tuple[np.ndarray, ...]

    def made(self, step: float, slope: float) -> tuple[Network, tuple[str, ...]]:
        changed = copy.deepcopy(self.model)
        touched = []
        with torch.no_grad():
            for name, layer in self.layers.items():
                grid = steps(layer, step).astype(np.float32)
                touched.append(f"{name}: steps {grid.min():.3g} to {grid.max():.3g}")
                self._place(changed, name, _on_grid(rounded(layer, grid, slope * step**2), grid))
            for name, gain in self.vectors.items():
                weight = changed.weight(name)
                own = np.float32(2.0 ** (np.round(2 * np.log2(step / np.sqrt(gain))) / 2 - (2 if weight.numel() < SMALL else 0)))
                weight.copy_(torch.from_numpy(_on_grid(np.rint(weight.double().numpy() / own), own)).reshape(weight.shape))
                touched.append(f"{name}: step {own:.3g}")
        return changed, tuple(touched)

    def _place(self, changed: Network, name: str, whole: np.ndarray) -> None:
        """whole: (rows of all groups, columns). Where a bias can hold it, it takes up the mean of what rounding changed."""
        weight = changed.weight(name)
        if name not in self.readers:
            weight.copy_(torch.from_numpy(whole).reshape(weight.shape))
            return
        reader = self.readers[name][0]
        if name in self.means and reader.bias is not None:
            lost = (self.layers[name].weights - whole).reshape(len(self.means[name]), -1, whole.shape[1])
            bias = changed.weight(reader.bias.tensor)
            bias.add_((reader.bias.factor * torch.from_numpy(lost @ self.means[name][:, :, None])).reshape(bias.shape).to(bias))
        weight.copy_(unmatrix(torch.from_numpy(whole.reshape(reader.groups, -1, whole.shape[1])), reader))

    def diverges(self, changed: Network) -> float:
        """Relative L2 error of the outputs; without calibration, of the weights."""
        if self.batches:
            pairs = list(zip(_answers(changed, self.batches), self.wanted, strict=True))
        else:
            pairs = [(_array(changed, name), _array(self.model, name)) for name in self.layers]
        apart = sum(float(np.square(found - before).sum()) for found, before in pairs)
        return float(np.sqrt(apart / max(sum(float(np.square(before).sum()) for _, before in pairs), 1e-30)))

    def account(self, changed: Network, touched: tuple[str, ...], step: float) -> Compressed:
        what = "outputs" if self.batches else "weights"
        note = (
            f"rdoq: relative error of the {what} {self.diverges(changed):.4g} at step={step:.4g}; for size alone, operations and time stay"
        )
        return Compressed(changed, touched, self.skipped, (note,))


def prepared(
    model: Network,
    calibration: Sequence[Inputs] | None,
    *,
    samples: int = 256,
    damping: float = 0.01,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Job:
    """All that `rdoq` needs to know before it tries steps: options as there."""
    model, batches = without_norms(model), first(calibration, samples) if calibration else []
    index = Index(model.structure)
    readers = every(model, index)
    vectors: dict[str, float] = {}
    layers: dict[str, Layer] = {}
    means: dict[str, np.ndarray] = {}
    skipped: dict[str, str] = {}
    sensitivity: Sensitivity | None = None
    moments: Moments = {}
    if batches:
        data = Data(batches, seed=seed)
        if progress:
            progress("feeling how much the answers hang on each row", 0.0)
        sensitivity = felt(model, readers, data)
        if progress:
            progress("second moments of what each weight reads", 0.1)
        moments = measured(model, [user for users in readers.values() for user in users if user.columns <= MOST_COLUMNS], data)
    for name in (unescaped(key) for key, _ in model.named_parameters()):
        weight = model.weight(name).detach().cpu().double()
        if not bool(weight.any()):
            skipped[name] = "all zero: it takes no bytes"
        elif name in readers:
            layers[name], mean = _layer(weight, readers[name], sensitivity, moments, damping)
            if mean is not None:
                means[name] = mean
        else:
            gain = _own(weight) if sensitivity is None else sensitivity.others.get(name, 0.0) / sensitivity.energy
            if gain <= 0:
                skipped[name] = "the answers don't hang on it"
            elif weight.ndim > 1 and weight.numel() > SMALL:
                table = weight.reshape(weight.shape[0], -1).numpy()
                layers[name] = Layer(table, np.full(len(table), gain))
            else:
                vectors[name] = gain
    found = tuple(tensors(model, batch) for batch in batches)
    return Job(model, readers, layers, vectors, means, skipped, found, tuple(_answers(model, found)))


def _layer(
    weight: torch.Tensor, users: tuple[Reader, ...], sensitivity: Sensitivity | None, moments: Moments, damping: float
) -> tuple[Layer, np.ndarray | None]:
    """The matrix of one weight; and the mean of what it reads, where one bias can take up what rounding does to it."""
    whole = matrix(weight, users[0]).numpy()
    groups, rows, columns = whole.shape
    flat = whole.reshape(groups * rows, columns)
    if sensitivity is None:
        return Layer(flat, np.full(len(flat), _own(weight))), None
    gain = np.asarray(sum(sensitivity.rows[user.key].numpy() for user in users) / sensitivity.energy)
    gain = gain.reshape(groups, rows) if gain.size == groups * rows else np.broadcast_to(gain, (groups, rows))
    gain = np.maximum(gain, gain.mean(1, keepdims=True) * 1e-6 + 1e-30).ravel()
    if any(user.key not in moments for user in users):
        return Layer(flat, gain), None
    taken = len(users) == 1 and users[0].bias is not None
    found = [moments[user.key] for user in users]
    squares = [one.covariance if taken else one.covariance + one.mean[:, :, None] * one.mean[:, None, :] for one in found]
    factors = np.stack([factor(one.numpy(), damping) for one in torch.stack(squares).sum(0)])
    return Layer(flat, gain, factors if groups > 1 else factors[0]), moments[users[0].key].mean.numpy() if taken else None


def _searched(
    job: Job, limit: float, slope: float, cost: Callable[[Network], float], sense: int, progress: Callable[[str, float], None] | None
) -> tuple[Network, tuple[str, ...], float] | None:
    """The step whose cost is nearest to `limit` from below. sense: 1 where cost grows with the step (divergence), -1 where it falls (size).

    Secants in log-log: an error grows about in proportion to the step, and so do bytes with its inverse, as long as they are few.
    """
    count = sum(layer.weights.size for layer in job.layers.values())
    step = (limit if sense > 0 else 0.05) * float(np.sqrt(12 / max(count, 1)))  # where errors are even and independent
    best: tuple[Network, tuple[str, ...], float] | None = None
    low, high = 0.0, np.inf  # steps that are too fine, or too coarse
    for number in range(TRIES):
        if progress:
            progress(f"looking for the step, {number + 1} of at most {TRIES}", 0.2 + 0.8 * number / TRIES)
        changed, touched = job.made(step, slope)
        got = cost(changed)
        within = got <= limit
        if within and (best is None or sense * (step - best[2]) > 0):
            best = changed, touched, step
        if within and got >= limit * (1 - CLOSE):
            break
        low, high = (step, high) if within == (sense > 0) else (low, step)
        ahead = step * float(np.clip((0.99 * limit / max(got, 1e-12)) ** sense, 1 / 16, 16))
        step = ahead if low < ahead < high else float(np.sqrt(low * high)) if low and np.isfinite(high) else ahead
        if low and high / low < 1.01:
            break
    return best


def coded_bytes(network: Network) -> int:
    """What the weights take once each is coded by whatever makes it smallest."""
    return sum(len(coding.encode(_array32(network, unescaped(key)))) for key, _ in network.named_parameters())


def _answers(model: Network, batches: Sequence[Mapping[str, torch.Tensor]]) -> list[np.ndarray]:
    names = [spec.name for spec in model.structure.signature.outputs]
    with evaluating(model), torch.no_grad():
        found = [model.run(batch) for batch in batches]
    return [one[name].double().cpu().numpy() for one in found for name in names if one[name].is_floating_point()]


def _array(model: Network, name: str) -> np.ndarray:
    return model.weight(name).detach().cpu().double().numpy()


def _array32(model: Network, name: str) -> np.ndarray:
    return np.ascontiguousarray(model.weight(name).detach().cpu().numpy())


def _own(weight: torch.Tensor) -> float:
    """Without data, an error counts in relation to the tensor's own energy, each tensor as much as any other."""
    return 1 / max(float(weight.square().sum()), 1e-30)


def _on_grid(integers: np.ndarray, step: np.ndarray | np.float32) -> np.ndarray:
    """float32(integer) · float32(step), rounded once: what the package's grid coder gives back. step: (rows,) or one."""
    step = np.asarray(step, np.float32)
    return integers.astype(np.float32) * (step[:, None] if step.ndim else step)
