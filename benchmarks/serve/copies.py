"""What one further graph of a fixed shape takes in memory, in copies of the weights: the measurement behind `host.memory.COPIES_SHAPE`.

    python benchmarks/serve/copies.py [--mb 16,64] [--shapes 4]

Each model is loaded in a process of its own (`backends.load_all`), for 0 to N shapes and the open graph, as a host does; each graph runs
once. The slope of resident memory over the number of shapes, by least squares, is what one of them takes. Models: a chain of products with
square matrices, and one of 3x3 convolutions, both bound by their weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from common import record
from served import matrices

from edgewise import backends
from edgewise.graph import Graph
from edgewise.host import memory
from edgewise.testing import graphs
from edgewise.types import Execution, Runner

WIDTH = 1024  # of a matrix: 4 MB
CHANNELS = 256  # of a convolution: 2.25 MB


def products(mb: int) -> tuple[Graph, int]:
    """x (batch, length, WIDTH) -> y, and how many bytes its weights have."""
    weights = {f"w{i}": matrix for i, matrix in enumerate(matrices(mb // 4, WIDTH))}
    return linked("MatMul", {}, weights, ("batch", "length", WIDTH))


def convolutions(mb: int) -> tuple[Graph, int]:
    """x (batch, CHANNELS, length, 8) -> y, of 3x3 convolutions."""
    random, shape = np.random.default_rng(0), (CHANNELS, CHANNELS, 3, 3)
    weights = {f"w{i}": 0.02 * random.standard_normal(shape).astype(np.float32) for i in range(round(mb / 2.25))}
    return linked("Conv", {"pads": [1, 1, 1, 1]}, weights, ("batch", CHANNELS, "length", 8))


def linked(kind: str, attributes: dict[str, Any], weights: dict[str, np.ndarray], shape: tuple[int | str, ...]) -> tuple[Graph, int]:
    names = ["x", *(f"h{i}" for i in range(len(weights) - 1)), "y"]
    nodes: list[graphs.Node] = [(kind, [names[i], name], [names[i + 1]], attributes) for i, name in enumerate(weights)]
    made = graphs.build(nodes, {"x": shape}, {"y": shape}, weights)
    return Graph.from_proto(made), sum(array.nbytes for array in weights.values())


def kept(file: Path, backend: str, shapes: int) -> int:
    """Bytes that this process has more with the model and so many graphs of fixed shapes than with the engine alone."""
    memory.keep_apart()
    execution = Execution(backend)
    warm, inputs = graphs.mlp()
    backends.load(warm.SerializeToString(), execution).run(inputs)
    model, alive = file.read_bytes(), list[Runner]()
    memory.give_back()
    before = memory.rss_bytes() - len(model)  # which the host gives up once all is loaded
    lengths = [16 * (1 + number) for number in range(shapes)]
    fixed = [Execution(backend, options={"batch": "1", "axes": f"length={length}"}) for length in lengths]
    for length, runner in zip([*lengths, 8], backends.load_all(model, [*fixed, execution]), strict=True):
        open_to = {"batch": 1, "length": length}
        runner.run({"x": np.ones([open_to.get(str(axis), axis) for axis in runner.signature.inputs[0].shape], np.float32)})
        alive.append(runner)
    del model
    memory.give_back()
    return memory.rss_bytes() - before


def measured(file: Path, backend: str, shapes: int) -> list[int]:
    """For no shape, one, and so on: each in a child, which was forked before the engine began anything."""
    found = []
    for count in range(shapes + 1):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, str(kept(file, backend, count)).encode())
            finally:
                os._exit(0)  # nothing of the parent's is tidied up twice
        os.close(writing)
        with os.fdopen(reading) as told:
            said = told.read()
        os.waitpid(child, 0)
        if not said:
            raise RuntimeError(f"{backend} with {count} shapes: the child said nothing")
        found.append(int(said))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", default="16,64", help="of weights")
    parser.add_argument("--shapes", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for backend in [name for name in backends.taking() if backends.compiles(name)]:
            backends.get(backend).version()  # imported once, for all children
            for mb in map(int, given.mb.split(",")):
                for kind, (graph, weights) in {"products": products(mb), "convolutions": convolutions(mb)}.items():
                    file = Path(temporary) / "model.onnx"
                    file.write_bytes(graph.to_bytes())
                    bytes_kept = measured(file, backend, given.shapes)
                    slope = float(np.polyfit(range(given.shapes + 1), np.array(bytes_kept) / weights, 1)[0])
                    copies = [round(each / weights, 2) for each in bytes_kept]
                    rows[f"{backend}, {kind}, {mb} MB"] = {"weight_bytes": weights, "kept_in_copies": copies, "a_shape": round(slope, 3)}
                    print(f"{backend}, {kind}, {mb} MB: one shape more takes {slope:.2f} times the weights; 0, 1 … {copies}", flush=True)
    if not given.dry:
        record("serve-copies", {"constant": memory.COPIES_SHAPE, "models": rows})


if __name__ == "__main__":
    main()
