"""The same as edgewise.coding's C extension in Python and numpy, byte for byte: for devices that had no C compiler at the install.

Some hundred times slower. Functions take buffers and write into buffers as those of native/module.c do, and raise ValueError with the
same texts.
"""

from __future__ import annotations

from edgewise.coding.fallback.adaptive import adaptive_decode, adaptive_encode
from edgewise.coding.fallback.huffman import huffman_decode, huffman_encode
from edgewise.coding.fallback.rans import rans_decode, rans_encode

__all__ = ["adaptive_decode", "adaptive_encode", "huffman_decode", "huffman_encode", "rans_decode", "rans_encode"]
