"""Figures that the C core, its Python form and the coders share (native/core.h)."""

from __future__ import annotations

LANES = (8, 32)
RANS_BITS = (8, 14)
HUFFMAN_BITS = 12
LARGEST = 2**31 - 1  # magnitude that the adaptive coder takes
