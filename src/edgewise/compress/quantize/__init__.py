"""Post-training quantization: a float graph and some samples in, the same graph in 8-bit integers out. Neither labels nor torch."""

from edgewise.compress.quantize.post_training import quantize
from edgewise.compress.quantize.sensitivity import Sensitivity, sensitivity
from edgewise.compress.quantize.within import quantize_within

__all__ = ["Sensitivity", "quantize", "quantize_within", "sensitivity"]
