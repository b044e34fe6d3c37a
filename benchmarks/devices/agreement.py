"""One package measured here and through a worker on the loopback, in turns: ten pairs, medians within 2 %; and what a waiting worker takes.

    EDGEWISE_DATA=… python benchmarks/devices/agreement.py [--pairs 10] [--turns 20] [--seconds 0.25]

The Fashion net (fashion/train.py's weights), in float, on one thread of ONNX Runtime. A pair is
`--turns` times `measure.profile` here and as often there, in turns and soon after one another (a shared machine's clock has moods of
seconds); its ratio is the median of those of the medians of each two. The worker's idle memory is its resident set, its idle load the
processor time that it takes in half a minute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "fashion"))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from loopback import worker
from train import WEIGHTS, task

import edgewise as ew
from edgewise import devices, measure
from edgewise.graph import Graph
from edgewise.measure.statistics import median_interval
from edgewise.types import Execution

BAR = 0.02


def idle(pid: int, seconds: float) -> dict[str, float]:
    """Of the process: resident megabytes, and the share of a core over so many seconds."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(seconds)
    share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"resident_mb": round(resident / 1024, 1), "share_of_a_core": round(share, 5)}


def net() -> tuple[Graph, Any]:
    module = ew.models.intake("edgewise.models.resnet:resnet20", weights=WEIGHTS).module
    known = task()
    return ew.export.export(module, known.example_inputs(2), output_names=["logits"]), known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.25)
    given = parser.parse_args()
    graph, known = net()
    inputs = known.example_inputs(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder, worker(Path(folder)) as there:
        assert there.process is not None
        waiting = idle(there.process.pid, 30.0)
        far, near = measure.connect(there.link(), "there"), devices.local()
        pairs = []
        for number in range(given.pairs):
            medians: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(given.turns):
                for device in (near, far) if (number + turn) % 2 == 0 else (far, near):
                    done = measure.profile(graph.to_bytes(), Execution("onnxruntime"), inputs, device, seconds=given.seconds)
                    medians[device.address == "local"].append(statistics.median(done.latency.samples_ms))
            pairs.append(statistics.median(there_ms / here for here, there_ms in zip(medians[True], medians[False], strict=True)))
            here, there_ms = (statistics.median(medians[local]) for local in (True, False))
            print(f"pair {number}: {here:.4f} ms here, {there_ms:.4f} ms there: {pairs[-1]:.4f}", flush=True)
        ratio = median_interval(pairs)
        rows.append({"there_over_here": told(ratio, digits=4), "pairs": [round(one, 4) for one in pairs]})
    met = abs(ratio.value - 1) <= BAR and waiting["resident_mb"] <= 60 and waiting["share_of_a_core"] <= 0.002
    print(f"there / here: {ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]; waiting: {waiting}")
    record(
        "device-agreement",
        {
            "bar": "medians within 2 % over 10 pairs; a waiting worker takes at most 60 MB and 0.2 % of a core",
            "rows": rows,
            "waiting": waiting,
            "met": met,
        },
    )


if __name__ == "__main__":
    main()
