"""What a user would pick instead: NNCF int8 for OpenVINO, ONNX Runtime's static and dynamic int8, Olive where it is installed.

Every peer runs with the settings that its documentation gives first. Needs `pip install nncf==3.4.0` beside edgewise.
NNCF quantizes the ONNX graph itself, so that its result runs in the same processes, timed by the same code, as everybody's.
Olive wants an environment of its own (`pip install torch==2.13.0`, then
`olive-ai==0.13.0 onnxruntime==1.31.1 requests`): OLIVE_PYTHON names its interpreter.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import edgewise as ew
from edgewise import measure
from edgewise.backends import load
from edgewise.graph import Graph
from edgewise.types import Inputs, Split

Row = tuple[str, Graph, ew.Execution]


def answers(graph: Graph, execution: ew.Execution, split: Split) -> np.ndarray:
    """(samples, classes). One sample a call where a scale is taken per call."""
    runner = load(graph.to_bytes(), execution)
    try:
        alone = any(node.op_type == "DynamicQuantizeLinear" for node in graph.proto.graph.node)
        return measure.collect(runner, split, 1 if alone else 64)
    finally:
        runner.close()


def every(dense: Graph, calibration: list[Inputs], threads: int = 1) -> Iterator[Row]:
    """(name, graph, execution) of each peer that can be had here; each form on both engines. calibration: single samples."""
    makers = {"NNCF": nncf, "NNCF mixed": nncf_mixed, "ORT static": ort_static, "ORT dynamic": ort_dynamic, "Olive": olive}
    for name, make in makers.items():
        try:
            graph = make(dense, calibration)
        except Exception as error:  # a peer that fails is a finding, not the end of the run
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
            continue
        for engine in ("onnxruntime", "openvino"):
            yield f"{name} → {engine}", graph, ew.Execution(engine, "fp32", threads)


def nncf(dense: Graph, calibration: list[Inputs], preset: str = "performance", model_type: str | None = None) -> Graph:
    import nncf as tool

    logging.getLogger("nncf").setLevel(logging.ERROR)
    samples = tool.Dataset(calibration)
    chosen = tool.QuantizationPreset.MIXED if preset == "mixed" else tool.QuantizationPreset.PERFORMANCE
    kind = None if model_type is None else tool.ModelType(model_type)
    done = tool.quantize(dense.copy_proto(), samples, preset=chosen, subset_size=len(calibration), model_type=kind)
    return Graph.from_proto(done)


def nncf_mixed(dense: Graph, calibration: list[Inputs]) -> Graph:
    return nncf(dense, calibration, "mixed")


def ort_static(dense: Graph, calibration: list[Inputs]) -> Graph:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(calibration)

        def get_next(self) -> Inputs | None:
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "dense.onnx", Path(folder) / "static.onnx"
        dense.save(source)
        quantize_static(source, target, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        return Graph.load(target)


def ort_dynamic(dense: Graph, calibration: list[Inputs]) -> Graph:
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "dense.onnx", Path(folder) / "dynamic.onnx"
        proto = dense.copy_proto()
        del proto.graph.value_info[:]  # its shape inference fails on those that are there
        Graph.from_proto(proto).save(source)
        quantize_dynamic(source, target, per_channel=True)
        return Graph.load(target)


OLIVE = """
import json, sys
from olive.workflows import run
run(json.loads(sys.argv[1]))
"""


def olive(dense: Graph, calibration: list[Inputs]) -> Graph:
    """Olive's static quantization with its defaults, per channel as everybody's."""
    python = os.environ.get("OLIVE_PYTHON")
    if python is None:
        raise RuntimeError("not run: OLIVE_PYTHON doesn't name an interpreter with olive-ai")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dense.save(folder / "dense.onnx")
        for i, sample in enumerate(calibration):
            for name, values in sample.items():
                (folder / "data" / name).mkdir(parents=True, exist_ok=True)
                values.tofile(folder / "data" / name / f"{i:05}.bin")
        names = list(calibration[0])
        samples = {"data_dir": str(folder / "data"), "input_names": names, "input_shapes": [list(calibration[0][n].shape) for n in names]}
        data = {"name": "samples", "type": "RawDataContainer", "load_dataset_config": {"params": samples}}
        workflow = {
            "input_model": {"type": "ONNXModel", "model_path": str(folder / "dense.onnx")},
            "data_configs": [data],
            "passes": {"static": {"type": "OnnxStaticQuantization", "data_config": "samples", "per_channel": True}},
            "output_dir": str(folder / "out"),
            "cache_dir": str(folder / "cache"),
        }
        quiet = os.environ | {"OLIVE_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1", "HOME": scratch}
        command = [python, "-c", OLIVE, json.dumps(workflow)]
        done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=1800)
        found = sorted((folder / "out").rglob("*.onnx"))
        if not found:
            raise RuntimeError(f"Olive left no model: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        return Graph.load(found[0])
