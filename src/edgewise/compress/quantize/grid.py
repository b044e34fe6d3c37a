"""`Grid`: the integers that stand for real numbers, and the arithmetic of ONNX's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Below this a range is a constant (a dead channel, an all-zero tensor): a scale near the smallest float would make 1 / scale overflow.
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True, eq=False)
class Grid:
    """real = scale * (integer - zero_point), with integers in low..high; per channel along `axis`, or one for the whole tensor.

    scale: () or (channels,) float32; zero_point: same shape, int32. Rounding is half to even, as ONNX's QuantizeLinear (opset 13) has it.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    low: int
    high: int
    axis: int | None = None

    def quantize(self, real: np.ndarray) -> np.ndarray:
        """The nearest integers, as int32."""
        scale, zero = self._spread(real.ndim)
        integers = np.rint(np.asarray(real, np.float32) / scale)
        integers += zero
        return np.clip(integers, self.low, self.high, out=integers).astype(np.int32)

    def dequantize(self, integers: np.ndarray) -> np.ndarray:
        scale, zero = self._spread(integers.ndim)
        return ((integers - zero) * scale).astype(np.float32)

    def fake(self, real: np.ndarray) -> np.ndarray:
        """`real` rounded onto the grid, as float32: what a consumer behind a Q/DQ pair reads."""
        scale, zero = self._spread(real.ndim)
        rounded = np.rint(np.asarray(real, np.float32) / scale)
        np.clip(rounded, self.low - zero, self.high - zero, out=rounded)
        rounded *= scale
        return rounded

    def _spread(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        scale = np.asarray(self.scale, np.float32)
        zero = np.asarray(self.zero_point, np.float32)
        if self.axis is None or scale.ndim == 0:
            return scale, zero
        shape = [1] * rank
        shape[self.axis] = -1
        return scale.reshape(shape), zero.reshape(shape)


def activation_grid(low: float, high: float, *, symmetric: bool = False) -> Grid:
    """Unsigned 8 bits over low..high, widened to hold zero exactly: padding and ReLU need it (Jacob 2018, section 2.1).

    With `symmetric`, a range on both sides of zero is centred at 128, and one that starts at zero keeps all 255 steps.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if symmetric and low < 0:
        bound = max(-low, high)
        scale, zero = max(bound / 127, SMALLEST_SCALE), 128
    else:
        scale = max((high - low) / 255, SMALLEST_SCALE)
        zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return Grid(np.array(scale, np.float32), np.array(zero, np.int32), 0, 255)
