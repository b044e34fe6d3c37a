"""Update files against `zstd --patch-from` on the raw files: bytes, seconds, and that the result is the new file to the byte.

    python benchmarks/updates.py [--work out/updates] [--epochs 1] [--share 1.0] [--keep DIR] [--no-fashion] [--no-mini-lm]

The Fashion net (benchmarks/fashion/resnet20.safetensors) is trained on for an epoch of Fashion-MNIST, both are quantized to int8 by
`quantize` as it is, and the device's package is updated to the new one: once with every layer moved, once with the head and the last
convolution alone. Then MiniLM, fine-tuned on SST-2 (benchmarks/minilm/tune.py says how; its weights are kept in --work) and in int8
(benchmarks/minilm/int8.py): once after an epoch of fine-tuning more with every weight trained, once after an epoch of the head and the
last of six layers alone. `zstd` gets the raw .onnx files, level 19, with a window over all of them; it is left out where there is no such
command. The records are updates-fashion and updates-mini-lm where one of them was left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "fashion"))
sys.path.insert(0, str(Path(__file__).parent / "minilm"))

from common import record

from edgewise import package
from edgewise.graph import Graph
from edgewise.package import update

CREATED = "2026-01-01T00:00:00Z"


def zstd_bytes(old: bytes, new: bytes, folder: Path) -> int | None:
    """Bytes of zstd's patch of one raw file to the other."""
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    line = [
        "zstd",
        "-q",
        "-f",
        "-19",
        "--long=31",
        "--single-thread",
        f"--patch-from={folder / 'old'}",
        str(folder / "new"),
        "-o",
        str(folder / "z"),
    ]
    try:
        subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        return None
    return (folder / "z").stat().st_size


def updated(name: str, old: Graph, new: Graph, keep: Path | None) -> dict[str, Any]:
    """One update in figures, from a raw package and from a coded one."""
    row: dict[str, Any] = {"weights": sum(int(np.prod(tensor.dims)) for tensor in new.proto.graph.initializer)}
    row["moved"] = round(moved(old, new), 4)
    with tempfile.TemporaryDirectory() as place:
        folder = keep or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        row["zstd_bytes"] = zstd_bytes(old.to_bytes(), new.to_bytes(), Path(place))
        for coders in ("none", "fast"):
            paths = [folder / f"{which}-{coders}.edgew" for which in ("old", "new", "made")]
            for graph, version, path in ((old, 1, paths[0]), (new, 2, paths[1])):
                package.build(graph, created=CREATED, version=version, coders=coders).save(path)
            began = time.perf_counter()
            update.save(package.diff(*paths[:2]), folder / f"{coders}.edgewd")
            made = time.perf_counter()
            package.patch(paths[0], folder / f"{coders}.edgewd", paths[2])
            row[coders] = {
                "package_bytes": paths[1].stat().st_size,
                "update_bytes": (folder / f"{coders}.edgewd").stat().st_size,
                "diff_seconds": round(made - began, 2),
                "patch_seconds": round(time.perf_counter() - made, 2),
                "same": paths[1].read_bytes() == paths[2].read_bytes(),
            }
    beside = row["zstd_bytes"] or float("nan")
    for coders in ("none", "fast"):
        row[coders]["against_zstd"] = round(row[coders]["update_bytes"] / beside - 1, 4)
        row[coders]["of_package"] = round(row[coders]["update_bytes"] / row[coders]["package_bytes"], 4)
        print(
            f"{name:32s} {coders:5s} {100 * row['moved']:5.1f} % moved  package {row[coders]['package_bytes']:11,}  "
            f"update {row[coders]['update_bytes']:10,} ({100 * row[coders]['of_package']:5.2f} %)  zstd {row['zstd_bytes'] or 0:11,} "
            f"({100 * row[coders]['against_zstd']:+.1f} %)  diff {row[coders]['diff_seconds']:.1f} s  "
            f"patch {row[coders]['patch_seconds']:.1f} s  "
            f"{'same' if row[coders]['same'] else 'DIFFERENT'}",
            flush=True,
        )
    return row


def moved(old: Graph, new: Graph) -> float:
    """The share of weights that aren't what they were."""
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in old.proto.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in new.proto.graph.initializer}
    changed = sum(int(np.count_nonzero(array != before[name])) if name in before else array.size for name, array in after.items())
    return changed / sum(array.size for array in after.values())


def fashion(epochs: int, share: float) -> tuple[dict[str, Any], Graph, Graph]:
    """What training did, and both int8 graphs."""
    import torch
    from train import WEIGHTS, task

    import edgewise as ew
    from edgewise.compress.quantize import quantize
    from edgewise.train import train

    torch.set_num_threads(1)
    data = task()
    if share < 1:
        kept = data.dataset.parts["train"]
        data.dataset.parts["train"] = kept[: int(share * len(kept))]
    module = ew.models.intake("edgewise.models.resnet:resnet20", weights=WEIGHTS).module
    done = train(module, data, epochs=epochs, batch_size=64, learning_rate=0.005)
    graphs = []
    for net in (module, done.model):
        dense = ew.export.export(net, data.example_inputs(2), output_names=["logits"])
        graphs.append(quantize(dense, calibration=data.for_model(dense.signature).calibration(256)).model)
    return (
        {"epochs": epochs, "share": share, "learning_rate": 0.005, "losses": [round(loss, 4) for loss in done.losses]},
        graphs[0],
        graphs[1],
    )


def last_alone(old: Graph, new: Graph, count: int) -> Graph:
    """`old` with what `new` has in the last `count` large weights, and their scales."""
    proto, after = ModelProto(), {tensor.name: tensor for tensor in new.proto.graph.initializer}
    proto.CopyFrom(old.proto)
    large = [tensor.name for tensor in proto.graph.initializer if np.prod(tensor.dims) >= 512]
    stems = tuple(name.rsplit(".", 1)[0] for name in large[-count:])
    for tensor in proto.graph.initializer:
        if tensor.name in after and tensor.name.startswith(stems):
            tensor.CopyFrom(after[tensor.name])
    return Graph.from_proto(proto)


def mini_lm(work: Path) -> dict[str, tuple[dict[str, Any], Graph]]:
    """By stage, what training did, and the int8 graph."""
    from int8 import in_int8
    from model import exported
    from tune import STAGES, tuned

    made = {}
    for stage in STAGES:
        module, training = tuned(stage, work)
        made[stage] = training, in_int8(exported(module))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the training pictures")
    parser.add_argument("--keep", type=Path, help="leave the Fashion packages and the update here")
    parser.add_argument("--work", type=Path, default=Path("out/updates"), help="where MiniLM's trained weights are kept")
    parser.add_argument("--no-fashion", action="store_true")
    parser.add_argument("--no-mini-lm", action="store_true")
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    if not given.no_fashion:
        training, old, new = fashion(given.epochs, given.share)
        rows["fashion, every layer"] = {**training, **updated("fashion, every layer", old, new, given.keep)}
        rows["fashion, head and one layer"] = updated("fashion, head and one layer", old, last_alone(old, new, 2), None)
    if not given.no_mini_lm:
        graphs = mini_lm(given.work)
        before = graphs["old"][1]
        for stage, name in (("new", "MiniLM, every layer"), ("alone", "MiniLM, head and one layer")):
            training, after = graphs[stage]
            rows[name] = {**training, "before": graphs["old"][0], **updated(name, before, after, None)}
    bars = (
        "every layer moved: at least 20 % smaller than zstd --patch-from on the raw files; head and one layer: at most 12 % of the package"
    )
    form = "int8: matrix products by quantize(mode='dynamic'), one scale per output channel; embeddings per row, symmetric"
    part = {(True, False): "-fashion", (False, True): "-mini-lm"}.get((not given.no_fashion, not given.no_mini_lm), "")
    record(f"updates{part}", {"bar": bars, "mini_lm": form, "updates": rows})


if __name__ == "__main__":
    main()
