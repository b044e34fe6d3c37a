"""NNCodec 2.1.3, which implements ISO/IEC 15938-17, as a peer: weights to a bitstream and back, in a process of its own.

It wants numpy below 2 and an environment of its own, of which NNCODEC_PYTHON names the interpreter:

    python3 -m venv nnc && nnc/bin/pip install torch==2.13.0
    nnc/bin/pip install --no-deps nncodec==2.1.3 && nnc/bin/pip install 'numpy<2' h5py

Its import pulls in what only its training examples use (torchvision, flwr, wandb …); stand-ins take their place here, and coding calls none
of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# What `nncodec.nn.encode` passes unless told otherwise (dependent quantization and DeepCABAC, nothing tuned by data), but for qp.
SETTINGS = {"qp_density": 2, "nonweight_qp": -75, "use_dq": True, "param_opt": True, "row_skipping": True}
ABSENT = ["torchvision", "wandb", "flwr", "pandas", "cv2", "tqdm", "sentencepiece", "sklearn", "torchmetrics", "ptflops", "transformers"]

CHILD = """
import importlib.abc, importlib.machinery, json, sys
from pathlib import Path
from unittest.mock import MagicMock

folder, absent, settings, qps = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])

class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in absent else None

    def create_module(self, spec):
        made = MagicMock(name=spec.name)
        made.__path__, made.__spec__ = [], spec
        return made

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, StandIn())
import numpy as np
from nncodec import nnc

weights = dict(np.load(folder / "weights.npz"))
for qp in qps:
    coded = bytes(nnc.compress({name: value.copy() for name, value in weights.items()}, qp=qp, return_bitstream=True, **settings))
    (folder / f"{qp}.nnc").write_bytes(coded)
    np.savez(folder / f"{qp}.npz", **nnc.decompress(bytearray(coded)))
"""


def coded(weights: Mapping[str, np.ndarray], qps: Sequence[int]) -> dict[int, tuple[int, dict[str, np.ndarray]]]:
    """qp -> (bytes of the bitstream, the weights that come out of it). Raises RuntimeError where it can't be run."""
    python = os.environ.get("NNCODEC_PYTHON")
    if python is None:
        raise RuntimeError("not run: NNCODEC_PYTHON doesn't name an interpreter with nncodec")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # Names of its own: an .npz can't hold every name that a graph has.
        np.savez(folder / "weights.npz", **{f"p{i}": np.ascontiguousarray(value) for i, value in enumerate(weights.values())})
        command = [python, "-c", CHILD, scratch, json.dumps(ABSENT), json.dumps(SETTINGS), json.dumps(list(qps))]
        # Its paths are not ours: PYTHONPATH would show it another numpy's packages.
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, cwd=scratch, env=clean, capture_output=True, text=True, timeout=1200)
        if done.returncode:
            raise RuntimeError(f"NNCodec failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        found = {}
        for qp in qps:
            with np.load(folder / f"{qp}.npz") as archive:
                back = {name: archive[f"p{i}"].reshape(value.shape) for i, (name, value) in enumerate(weights.items())}
            found[qp] = ((folder / f"{qp}.nnc").stat().st_size, back)
        return found
