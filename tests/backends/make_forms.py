"""LiteRT's forms of the graphs that the conformance class runs, a few kB each: `python tests/backends/make_forms.py`.

They are committed, so that the backend is tested wherever the engine can be installed. It needs the engine and the converter (see
`edgewise.export.litert.interpreter`). Run it when a graph in `edgewise.testing.graphs` or the converter's release changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgewise import tflite
from edgewise.export.litert import convert
from edgewise.graph import Graph
from edgewise.testing import graphs
from edgewise.types import Execution

FORMS = Path(__file__).with_name("forms")
SIZES = {"two inputs": {"batch": 1, "sequence": 9}}  # longer than what is asked of it, so that it is filled up


def main(only: str = "") -> None:
    for kind, makers in (("float", graphs.FLOAT), ("quantized", graphs.QUANTIZED)):
        for name, make in makers.items():
            if only and only not in f"{kind} {name}":
                continue
            model, inputs, *_ = make()
            form = convert(Graph.from_proto(model), [inputs], Execution("litert"), sizes=SIZES.get(name))
            (FORMS / f"{kind} {name}.tflite".replace(" ", "-")).write_bytes(form)
            print(kind, name, len(form), tflite.interface(form).card)


if __name__ == "__main__":
    main(*sys.argv[1:])
