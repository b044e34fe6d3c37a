"""LeNet-5 without any retraining: the fewest bytes by rate-distortion rounding (`rdoq`) at a validation error of at most 1.0 %.

    EDGEWISE_DATA=… python benchmarks/lenet/post_training.py [--work out/lenet]

For three prices of a bit (slope: none, `rdoq`'s own, and that of independent errors) and a ladder of divergences: bytes of all coded
weights, biases and steps included, and the error on the 5,000 validation images. The smallest at the default slope within 1.0 % is packed
in the minimal profile, opened again, and answers the test images, once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from deep_compression import CREATED, answered
from train import WORK, dense, right, task

import edgewise as ew
from edgewise import package
from edgewise.compress.rate.rdoq import SLOPE, coded_bytes, rdoq
from edgewise.data import metrics
from edgewise.graph import fold
from edgewise.models.network import Network

SLOPES = (0.0, SLOPE, 0.116)
DIVERGENCES = (0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2)
MOST_ERROR = 0.01
BAR_BYTES = 26_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = task()
    whole = Network(ew.export.export(dense("lenet-5", data, given.work), data.example_inputs(2), norms=True))
    data = data.for_model(whole.structure.signature)
    print(f"dense: {1 - right(whole, data):.2%} validation error", flush=True)
    rows: list[dict[str, Any]] = []
    best: tuple[int, float, Network] | None = None
    for slope in SLOPES:
        for divergence in DIVERGENCES:
            net = rdoq(whole, calibration=data.calibration(), divergence=divergence, slope=slope, samples=512).model
            size, error = coded_bytes(net), 1 - right(net, data)
            rows.append({"slope": slope, "divergence": divergence, "bytes": size, "validation_error_percent": round(100 * error, 3)})
            print(f"slope {slope:5.3f}  divergence {divergence:4.2f}  {size:7,} bytes  {error:.2%} validation error", flush=True)
            if slope == SLOPE and error <= MOST_ERROR and (best is None or size < best[0]):
                best = size, error, net
    if best is None:
        raise SystemExit(f"none of these keeps within {MOST_ERROR:.1%}")
    size, error, net = best
    path = given.work / "lenet-5-post-training.edgew"
    built = package.build(
        fold(net.to_graph()), created=CREATED, preprocess=data.preprocess, postprocess=data.postprocess, labels=data.labels
    )
    built.save(path, profile="minimal")
    data = data.unsealed()
    before, after = answered(fold(whole.to_graph()), data, "test"), answered(package.open(path).graph(), data, "test")
    found = {
        "bytes": size,
        "file_bytes": path.stat().st_size,
        "validation_error_percent": round(100 * error, 3),
        "test_error_percent": {"dense": round(100 * (1 - before.value.value), 3), "small": round(100 * (1 - after.value.value), 3)},
        "test_difference_points": told(metrics.paired(before, after).difference, 100),
    }
    print(f"chosen: {found}")
    record(
        "lenet-post-training",
        {
            "bar": f"at most {BAR_BYTES:,} bytes at a validation error of at most {MOST_ERROR:.1%}",
            "rows": rows,
            "chosen": found,
            "met": size <= BAR_BYTES,
        },
    )


if __name__ == "__main__":
    main()
