"""What every step of a training stands on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Products of more shapes than oneDNN keeps kernels for by itself, twice.
PRODUCTS = """
import edgewise.steps
import torch
weight = torch.randn(16, 24).bfloat16()
for turn in range(2):
    for rows in range(1, 1101):
        torch.randn(rows, 16).bfloat16() @ weight
    print("turn over", flush=True)
"""


def test_kernels_of_many_shapes_are_compiled_once() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS],
        env={**environment, "ONEDNN_VERBOSE": "2"},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    first, second, _ = done.stdout.split("turn over")
    if "create:cache_miss" not in first:
        pytest.skip("torch multiplies without oneDNN on this CPU")
    assert "create:cache_miss" not in second
