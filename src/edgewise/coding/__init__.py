"""Arrays to the fewest bytes and back, lossless: quantized weights, shared ones, floats, activations. numpy alone."""

from __future__ import annotations

from edgewise.coding.chooser import ALL, CODERS, FAST, coder_of, decode, decode_into, encode
from edgewise.coding.core import implementation

__all__ = ["ALL", "CODERS", "FAST", "coder_of", "decode", "decode_into", "encode", "implementation"]
