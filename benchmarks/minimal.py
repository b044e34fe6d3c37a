"""The minimal profile, byte by byte: what each part of the file takes for small nets, and the full profile beside it.

python benchmarks/minimal.py

Weights are simulated: multiples of a step, most of them 0, as pruning and rate-distortion quantization leave them. What they take says
nothing about accuracy; all the rest of the file is what a trained net of that shape has. "graph" and "metadata" are before both are coded
together ("structure"). "weights" has what says where one ends; "weights one by one" is each coded alone, without that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from common import record

from edgewise import coding, export, package
from edgewise.data.postprocess import Classify
from edgewise.data.preprocess import ImagePreprocess
from edgewise.graph import Graph
from edgewise.package import minimal
from edgewise.package.minimal import graphs, layout, metadata, net

CREATED = "2026-01-01T00:00:00Z"
DIGITS = tuple("0123456789")
CONVOLUTION = {"auto_pad": "NOTSET", "dilations": [1, 1], "group": 1, "kernel_shape": [5, 5], "pads": [0, 0, 0, 0], "strides": [1, 1]}
POOL = {
    "auto_pad": "NOTSET", "ceil_mode": 0, "dilations": [1, 1], "kernel_shape": [2, 2], "pads": [0, 0, 0, 0], "storage_order": 0,
    "strides": [2, 2],
}  # fmt: skip
DENSE = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}


def lenet5(first: int, second: int, hidden: int) -> onnx.ModelProto:
    """Caffe's form, as torch's exporter writes it: conv 5 × 5, pool 2, conv 5 × 5, pool 2, fc, ReLU, fc 10."""
    shapes = {
        "0.weight": (first, 1, 5, 5), "0.bias": (first,), "2.weight": (second, first, 5, 5), "2.bias": (second,),
        "5.weight": (hidden, 16 * second), "5.bias": (hidden,), "7.weight": (10, hidden), "7.bias": (10,),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "0.weight", "0.bias"], ["conv2d"], **CONVOLUTION),
        helper.make_node("MaxPool", ["conv2d"], ["max_pool2d"], **POOL),
        helper.make_node("Conv", ["max_pool2d", "2.weight", "2.bias"], ["conv2d_1"], **CONVOLUTION),
        helper.make_node("MaxPool", ["conv2d_1"], ["max_pool2d_1"], **POOL),
        helper.make_node("Reshape", ["max_pool2d_1", "target"], ["view"], allowzero=1),
        helper.make_node("Gemm", ["view", "5.weight", "5.bias"], ["linear"], **DENSE),
        helper.make_node("Relu", ["linear"], ["relu"]),
        helper.make_node("Gemm", ["relu", "7.weight", "7.bias"], ["linear_1"], **DENSE),
    ]
    target = numpy_helper.from_array(np.array([-1, 16 * second], np.int64), "target")
    return model(nodes, "linear_1", shapes, [target])


def lenet300() -> onnx.ModelProto:
    shapes = {f"{2 * i + 1}.{kind}": shape for i, (rows, columns) in enumerate(((300, 784), (100, 300), (10, 100)))
              for kind, shape in (("weight", (rows, columns)), ("bias", (rows,)))}  # fmt: skip
    target = numpy_helper.from_array(np.array([-1, 784], np.int64), "target")
    nodes = [helper.make_node("Reshape", ["image", "target"], ["view"], allowzero=1)]
    last = "view"
    for i in range(3):
        nodes.append(helper.make_node("Gemm", [last, f"{2 * i + 1}.weight", f"{2 * i + 1}.bias"], [f"linear_{i}"], **DENSE))
        last = f"linear_{i}"
        if i < 2:
            nodes.append(helper.make_node("Relu", [last], [f"relu_{i}"]))
            last = f"relu_{i}"
    return model(nodes, "linear_2", shapes, [target])


def model(nodes: list[onnx.NodeProto], output: str, shapes: dict[str, tuple[int, ...]], others: list[TensorProto]) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "graph", [given], [made], [*weights, *others])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def resnet8() -> onnx.ModelProto:
    from edgewise.models.resnet import resnet8

    return export.export(resnet8().eval(), {"image": np.zeros((1, 1, 28, 28), np.float32)}).copy_proto()


def sparse(proto: onnx.ModelProto, kept: float, step: float = 0.03) -> Graph:
    """The same net, its float weights multiples of `step`, a share of `kept` of them not 0."""
    random = np.random.default_rng(0)
    for weight in proto.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            shape = tuple(weight.dims)
            drawn = np.rint(random.laplace(0, 1.5, shape)) * (random.random(shape) < kept)
            values = drawn.astype(np.float32) * np.float32(step) + np.float32(0)
            weight.CopyFrom(numpy_helper.from_array(values.reshape(shape), weight.name))
    return Graph.from_proto(proto)


def nets() -> Iterator[tuple[str, Graph, ImagePreprocess]]:
    grey = ImagePreprocess((28, 28), 1, (0.1307,), (0.3081,))
    yield "LeNet-5, 20-50-500", sparse(lenet5(20, 50, 500), 0.01), grey
    yield "LeNet-5, 3-8-12", sparse(lenet5(3, 8, 12), 0.2), grey
    yield "LeNet-300-100", sparse(lenet300(), 0.01), grey
    yield "ResNet-8", sparse(resnet8(), 0.1), grey


def parts(graph: Graph, preprocess: ImagePreprocess) -> dict[str, Any]:
    built = package.build(graph, created=CREATED, preprocess=preprocess, postprocess=Classify(DIGITS))
    found = minimal.sections(built)
    file = minimal.with_signature(minimal.encode(built), bytes(layout.SIGNATURE_BYTES))
    weights = [len(coding.encode(numpy_helper.to_array(weight))) for weight in graph.proto.graph.initializer]
    streams = len(found.weights)
    assert minimal.encode(minimal.decode(file)) == file
    return {
        "header": minimal.sizes(file)["header"],
        "graph": len(graphs.encode(net.of(graph.proto))),
        "metadata": len(metadata.encode(built.manifest)),
        "structure": len(found.structure),
        "weights": streams,
        "weights_one_by_one": sum(weights),
        "hash": layout.HASH_BYTES,
        "signature": layout.SIGNATURE_BYTES,
        "file": len(file),
        "all_but_weights": len(file) - streams,
        "full_profile": built.size_bytes,
        "nodes": len(graph.proto.graph.node),
        "parameters": sum(int(np.prod(weight.dims)) for weight in graph.proto.graph.initializer),
    }


def main() -> None:
    results = {}
    for name, graph, preprocess in nets():
        results[name] = parts(graph, preprocess)
        print(f"{name}: " + ", ".join(f"{what.replace('_', ' ')} {size:,}" for what, size in results[name].items()))
    record("minimal", {"bar": "LeNet-5 as a complete file: all but the weights at most 650 bytes", "bytes": results})


if __name__ == "__main__":
    main()
