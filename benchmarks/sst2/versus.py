"""What people use for a text model, beside the family of edgewise, in one run: MiniLM on SST-2, one thread, at both lengths.

    EDGEWISE_DATA=… python benchmarks/sst2/versus.py [--epochs 3] [--seed 0] [--half-width 0.01] [--seconds 60] [--work out/sst2]

After train.py, family.py and pruning.py, whose "every other layer kept" is layer dropping with the same distillation. Each peer is set up
as its documentation says first: NNCF for OpenVINO (model_type=TRANSFORMER), ONNX Runtime's dynamic int8, LiteRT's dynamic int8 by
ai-edge-quantizer, and layer dropping in fp32 and under NNCF; OpenVINO in true fp32 and in bf16, its default where the CPU has it. All are
timed by fashion/timing.py against the dense model in true fp32, and score on the 2,693 sentences of dev and test, paired with it.
Needs nncf==3.4.0; EDGEWISE_LITERT_PYTHON for LiteRT (docs/engines.md).
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "fashion"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import peers as others
from common import record, told
from timing import ENGINES, Ratio, Side, compared
from train import TOKENS, WORK, task, tuned

from edgewise import backends, devices, measure, package, tflite
from edgewise.data import metrics
from edgewise.export.litert import convert
from edgewise.export.litert.converting import interpreter
from edgewise.graph import Graph
from edgewise.records import Quality
from edgewise.search.origin import dense_of
from edgewise.types import Execution, Inputs, Outputs, Signature

NAME = "sst2-versus"
DYNAMIC = """
import sys
from ai_edge_quantizer import quantizer, recipe
made = quantizer.Quantizer(sys.argv[1], recipe.dynamic_wi8_afp32()).quantize()
made.export_model(sys.argv[2], overwrite=True)
"""


@dataclass
class Row:
    """A model that is timed: a side for each length, and its answers on the test's sentences."""

    name: str
    sides: list[Side]
    outputs: np.ndarray
    ours: bool = False
    size_bytes: int = 0


class Served:
    """OpenVINO's own file as a Runner."""

    def __init__(self, path: Path, precision: str, signature: Signature) -> None:
        import openvino

        self.signature = signature
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        self._request = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()

    def run(self, inputs: Inputs) -> Outputs:
        return {self.signature.outputs[0].name: np.array(self._request.infer(inputs).to_tuple()[0])}

    def close(self) -> None:
        del self._request


def nncf(dense: Graph, samples: list[Inputs], path: Path) -> Path:
    import nncf as tool
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(dense.to_bytes())
    done = tool.quantize(model, tool.Dataset(samples), model_type=tool.ModelType.TRANSFORMER, subset_size=len(samples))
    openvino.save_model(done, path, compress_to_fp16=False)
    return path


def litert(dense: Graph, samples: list[Inputs], length: int) -> bytes:
    """LiteRT's dynamic int8, of one length, with the card that edgewise's backend reads."""
    sizes = {str(axis): (1 if place == 0 else length) for place, axis in enumerate(dense.signature.inputs[0].shape)}
    plain = convert(dense, samples, Execution("litert"), sizes=sizes)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.tflite", Path(folder) / "dynamic.tflite"
        source.write_bytes(plain)
        subprocess.run([interpreter(), "-c", DYNAMIC, str(source), str(target)], check=True, capture_output=True, timeout=1800)
        made = target.read_bytes()
    card = tflite.interface(plain).card
    return tflite.described(made, card) if card is not None else made


def quantized(name: str, dense: Graph, samples: list[Inputs], split: Any, work: Path) -> Iterator[Row]:
    """NNCF's int8 for OpenVINO, its other operators in each precision."""
    path = nncf(dense, samples, work / f"{name.replace(' ', '-')}-nncf.xml")
    size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    for precision in backends.get("openvino").precisions():
        runner = Served(path, precision, dense.signature)
        outputs = measure.collect(runner, split)
        runner.close()
        sides = [Side(str(path).encode(), "openvino", precision)] * len(TOKENS)
        yield Row(f"{name} → NNCF → OpenVINO {precision}", sides, outputs, size_bytes=size)


def plain(name: str, graph: Graph, engine: str, precision: str, split: Any) -> Row:
    outputs = measure.answers(graph, Execution(engine, precision), split)
    return Row(name, [Side(graph.to_bytes(), engine, precision)] * len(TOKENS), outputs, size_bytes=len(graph.to_bytes()))


def rows_of(dense: Graph, known: Any, given: argparse.Namespace) -> Iterator[Row]:
    split = known.unsealed().split("test")
    samples = known.calibration(300, batch_size=1)
    work = given.work / "peers"
    work.mkdir(parents=True, exist_ok=True)
    family = sorted((given.work / f"family-{given.epochs}-{given.seed}").glob("*x/model.edgew"), key=lambda at: float(at.parent.name[:-1]))
    if not family:
        raise SystemExit(f"no family in {given.work}; run benchmarks/sst2/family.py first")
    for path in family:
        found = package.open(path)
        execution = found.execution
        if execution is None:
            raise SystemExit(f"{path} says nothing of how it runs")
        graph = Graph.from_bytes(found.model_bytes())
        outputs = measure.answers(graph, execution, split)
        side = Side(found.model_bytes(), execution.backend, execution.precision, 1, tuple(execution.options.items()))
        yield Row(f"edgewise {path.parent.name}", [side] * len(TOKENS), outputs, ours=True, size_bytes=path.stat().st_size)
    if "bf16" in backends.get("openvino").precisions():
        yield plain("dense → OpenVINO bf16", dense, "openvino", "bf16", split)
    yield from quantized("dense", dense, samples, split, work)
    dynamic = others.ort_dynamic(dense, samples)
    yield plain("dense → ORT dynamic int8", dynamic, "onnxruntime", "fp32", split)
    yield plain("dense → ORT dynamic int8 → OpenVINO", dynamic, "openvino", "fp32", split)
    for kept in ("every-other-layer-kept", "the-first-layer-kept"):
        path = given.work / f"pruning-{given.epochs}" / f"{kept}-{given.seed}" / "model.edgew"
        if not path.exists():
            print(f"{path} isn't there; benchmarks/sst2/pruning.py makes it", flush=True)
            continue
        short = Graph.from_bytes(package.open(path).model_bytes())
        name = kept.replace("-", " ")
        for engine in ENGINES:
            yield plain(f"{name} → {engine} fp32", short, engine, "fp32", split)
        yield from quantized(name, short, samples, split, work)
    if "litert" in backends.installed():
        forms = [litert(dense, samples, length) for length in TOKENS]
        runner = backends.load(forms[-1], Execution("litert"))
        outputs = measure.collect(runner, split, 1)
        runner.close()
        sides = [Side(form, "litert") for form in forms]
        yield Row("dense → LiteRT dynamic int8", sides, outputs, size_bytes=len(forms[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="of the family and of pruning.py, whose models are taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half-width", type=float, default=0.01, help="of a timing's interval, relative, at which it may end")
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest that it takes for a model and a length")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    data = task()
    _, dense = dense_of(tuned(given.work), data, None)
    known = data.for_model(dense.signature)
    split = known.unsealed().split("test")
    feeds = known.timed_inputs()
    bases = []
    for feed in feeds:
        one, other = (Side(dense.to_bytes(), engine) for engine in ENGINES)
        bases.append(other if compared(one, other, feed, given.half_width, given.seconds).value > 1 else one)
    whole = scored(measure.answers(dense, Execution(bases[0].engine), split), known, split)
    print(f"dense: {whole.value.value:.2%}, true fp32 on {', '.join(base.engine for base in bases)} is 1.0x", flush=True)
    found: list[tuple[Row, Quality, list[Ratio]]] = []
    for row in rows_of(dense, known, given):
        quality = scored(row.outputs, known, split)
        ratios = [compared(*pair, feed, given.half_width, given.seconds) for *pair, feed in zip(bases, row.sides, feeds, strict=True)]
        found.append((row, quality, ratios))
        points = 100 * metrics.paired(whole, quality).difference.value
        print(f"{row.name:48} {' / '.join(f'{ratio.value:5.2f}' for ratio in ratios)}x  {points:+.2f} points", flush=True)
    ours, theirs = ([one for one in found if one[0].ours == mine] for mine in (True, False))
    better = [(peer[0].name, own[0].name) for peer in theirs for own in ours if ahead(peer, own)]
    record(
        NAME,
        {
            "bar": "no peer is better than a member of the family on both axes: faster at every length, and more accurate, both at 95 %",
            "tokens": TOKENS,
            "references": [base.engine for base in bases],
            "isa": list(devices.local().isa),
            "dense": told(whole.value, 100),
            "rows": [
                {
                    "name": row.name,
                    "speedups": [ratio.told() for ratio in ratios],
                    "accuracy": told(quality.value, 100),
                    "points": told(metrics.paired(whole, quality).difference, 100),
                    "size_bytes": row.size_bytes,
                }
                for row, quality, ratios in found
            ],
            "better": better,
            "met": not better,
        },
    )


def scored(outputs: np.ndarray, known: Any, split: Any) -> Quality:
    return metrics.quality("accuracy", "test", outputs, split.targets, known.labels)


def ahead(one: tuple[Row, Quality, list[Ratio]], other: tuple[Row, Quality, list[Ratio]]) -> bool:
    """Whether `one` is faster at every length, and more accurate on the same sentences, each beyond the interval."""
    faster = all(mine.low > its.high for mine, its in zip(one[2], other[2], strict=True))
    return faster and metrics.paired(other[1], one[1]).difference.low > 0


if __name__ == "__main__":
    main()
