"""Deep Compression (Han et al. 2016, 1510.00149) on its own nets: pruned and retrained, weights shared and trained, Huffman coded.

    EDGEWISE_DATA=… python benchmarks/lenet/deep_compression.py [lenet-300-100] [lenet-5] [--tiny] [--work out/lenet]

The paper's table of stages. Bytes of the stages "pruned" and "+ shared" are counted as the paper counts them: for each weight that stays,
and each filler that a gap too wide for its index needs, the value (32 bits, or those of its codebook's index) and the gap to the one before
(8 bits in convolutions, 5 in fully connected layers); codebooks and biases as float32. From "+ Huffman" on all bytes are real: what
`edgewise.coding` writes for each tensor with the coders that the paper has (relative indices, palettes, Huffman), then with all of its own,
then the whole package on disk. Of each, the ratio to all parameters in float32.

Bits are the paper's; ratios and epochs were set beforehand by the bytes that they give, and by no image of the test split. That one is read
once, in the end, for the dense net and for the one that comes out of the package; their difference is paired. Interrupted, every training
goes on where it stopped. --tiny: an epoch each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from nets import NETS
from train import WORK, dense, reporter, right, task

import edgewise as ew
from edgewise import coding, measure, package
from edgewise.backends import load
from edgewise.coding.sparse import gaps
from edgewise.compress.prune.sparsify import sparsify
from edgewise.compress.share.sharing import share
from edgewise.data import metrics
from edgewise.graph import Graph, fold
from edgewise.models.network import Network
from edgewise.records import Quality

CREATED = "2026-01-01T00:00:00Z"
PAPERS_CODERS = ("raw", "constant", "packed", "huffman", "sparse", "palette")
INDEX_BITS = {"Conv": 8, "Gemm": 5}
BARS = {"lenet-300-100": 40.0, "lenet-5": 39.0}
MOST_LOST = 0.001  # of the accuracy


@dataclass(frozen=True)
class Setting:
    """ratio: share of the weights that goes. bits: of shared values. pruning, sharing: epochs of each."""

    ratio: float
    bits: Mapping[str, int]
    pruning: int
    sharing: int
    rounds: int = 6
    learning_rate: float = 0.03


SETTINGS = {
    "lenet-300-100": Setting(0.93, {"Gemm": 5}, pruning=48, sharing=8, learning_rate=0.05),
    "lenet-5": Setting(0.94, {"Conv": 8, "Gemm": 5}, pruning=24, sharing=4),
}


def small(name: str, net: Network, data: ew.tasks.ImageClassification, setting: Setting, work: Path) -> tuple[Network, Network]:
    """The net pruned, and the same with shared weights: labels alone, as the paper has it."""
    place = work / f"{name}-{setting.ratio}-{'-'.join(map(str, setting.bits.values()))}-{setting.pruning}-{setting.sharing}"
    pruned = sparsify(
        net,
        task=data,
        ratio=setting.ratio,
        epochs=setting.pruning,
        schedule="rounds",
        rounds=setting.rounds,
        importance="lamp",
        weight=0.0,
        learning_rate=setting.learning_rate,
        checkpoint=place / "pruning",
        progress=reporter(f"{name}, pruning"),
    ).model
    shared = share(
        pruned,
        task=data,
        bits=setting.bits,
        epochs=setting.sharing,
        weight=0.0,
        checkpoint=place / "sharing",
        progress=reporter(f"{name}, sharing"),
    ).model
    return pruned, shared


def counted(net: Network, bits: Mapping[str, int] | None) -> int:
    """Bytes as the paper counts them; bits: of a codebook's index by kind of layer, None for float32 values."""
    kinds = {name: node.op_type for node in net.structure.proto.graph.node for name in node.input}
    total = 0.0
    for name, weight in net.weights().items():
        values = weight.detach().numpy()
        if values.ndim < 2:
            total += 32 * values.size
            continue
        index, value = INDEX_BITS[kinds[name]], 32 if bits is None else bits[kinds[name]]
        entries = len(gaps(np.flatnonzero(values), 2**index - 1))
        total += entries * (index + value) + (0 if bits is None else 32 * (len(np.unique(values)) - 1))
    return int(np.ceil(total / 8))


def coded(graph: Graph, coders: tuple[str, ...]) -> int:
    """Bytes of all its float tensors, each coded by whichever of `coders` makes it smallest."""
    arrays = [numpy_helper.to_array(tensor) for tensor in graph.proto.graph.initializer]
    return sum(len(coding.encode(array, coders=coders)) for array in arrays if array.dtype == np.float32)


def answered(graph: Graph, data: ew.tasks.ImageClassification, split: Any) -> Quality:
    runner = load(graph.to_bytes(), ew.Execution("onnxruntime"))
    try:
        return measure.quality(runner, data.split(split), metric="accuracy", labels=data.labels)
    finally:
        runner.close()


def reproduce(name: str, data: ew.tasks.ImageClassification, setting: Setting, work: Path, epochs: int | None) -> dict[str, Any]:
    module = dense(name, data, work, epochs)
    whole = Network(ew.export.export(module, data.example_inputs(2), norms=True))
    data = data.for_model(whole.structure.signature)
    pruned, shared = small(name, whole, data, setting, work)
    graphs = {"dense": fold(whole.to_graph()), "pruned": fold(pruned.to_graph()), "shared": fold(shared.to_graph())}
    built = package.build(
        graphs["shared"], created=CREATED, preprocess=data.preprocess, postprocess=data.postprocess, labels=data.labels, coders="all"
    )
    path = work / f"{name}.edgew"
    built.save(path)
    full = sum(4 * parameter.numel() for parameter in whole.parameters())
    sizes = {
        "dense": full,
        "pruned": counted(pruned, None),
        "+ shared": counted(shared, setting.bits),
        "+ Huffman": coded(graphs["shared"], PAPERS_CODERS),
        "all coders": coded(graphs["shared"], coding.ALL),
        "package": path.stat().st_size,
    }
    opened = package.open(path)
    # What decides is validation; test is read from here on, once.
    validation = {"dense": right(whole, data), "pruned": right(pruned, data), "shared": right(shared, data)}
    data = data.unsealed()
    before, after = answered(graphs["dense"], data, "test"), answered(opened.graph(), data, "test")
    between = answered(graphs["pruned"], data, "test")
    difference = metrics.paired(before, after)
    ratio = full / sizes["+ Huffman"]
    met = ratio >= BARS[name] and difference.difference.value >= -MOST_LOST
    result = {
        "setting": {**asdict(setting), "bits": dict(setting.bits)},
        "parameters": full // 4,
        "nonzero": {n: int(np.count_nonzero(w.detach().numpy())) for n, w in shared.weights().items()},
        "stages": {stage: {"bytes": size, "ratio": round(full / size, 2)} for stage, size in sizes.items()},
        "validation_error_percent": {stage: round(100 * (1 - value), 3) for stage, value in validation.items()},
        "test_error_percent": {
            stage: round(100 * (1 - quality.value.value), 3)
            for stage, quality in (("dense", before), ("pruned", between), ("package", after))
        },
        "test_difference_points": told(difference.difference, 100),
        "bar": f"at least {BARS[name]:g}x after Huffman coding, at no more error than the dense net and 0.1 points (paired)",
        "met": bool(met),
    }
    show(name, result)
    return result


def show(name: str, result: dict[str, Any]) -> None:
    errors = result["test_error_percent"]
    error = {"dense": errors["dense"], "pruned": errors["pruned"], "package": errors["package"]}
    print(f"\n{name}: {result['parameters']:,} parameters")
    for stage, row in result["stages"].items():
        told_error = f"{error[stage]:6.2f} % test error" if stage in error else ""
        print(f"  {stage:12s} {row['bytes']:9,} bytes {row['ratio']:7.1f}x  {told_error}")
    gap = result["test_difference_points"]
    print(
        f"  accuracy against dense: {gap['value']:+.2f} points [{gap['low']:+.2f}, {gap['high']:+.2f}], n={gap['n']}; met: {result['met']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=[*NETS])
    parser.add_argument("--tiny", action="store_true", help="an epoch each, to see that it runs; nothing is recorded")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    torch.set_num_threads(1)
    work = given.work / "tiny" if given.tiny else given.work
    data = task()
    results = {}
    for name in given.nets:
        setting = replace(SETTINGS[name], pruning=2, rounds=2, sharing=1) if given.tiny else SETTINGS[name]
        results[name] = reproduce(name, data, setting, work, 1 if given.tiny else None)
    if not given.tiny:
        record("deep-compression", {"seed": 0, "nets": results})


if __name__ == "__main__":
    main()
