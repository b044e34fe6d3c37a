"""The converting process: `python -P child.py ROOT FOLDER`, by an interpreter that has litert-torch. Started by `converting` alone.

It reads FOLDER/model.onnx (a prepared graph) and FOLDER/kind, and writes FOLDER/model.tflite, or FOLDER/error: nothing but an ONNX model
and a word comes in, nothing but a flatbuffer and a text goes out. ROOT is where edgewise's source lies, so that it needs no install there.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        borrow(root)
        (folder / "model.tflite").write_bytes(converted((folder / "model.onnx").read_bytes(), (folder / "kind").read_text()))
    except Exception as error:  # whatever torch, JAX or MLIR raise: the parent tells it in its own words
        traceback.print_exc()
        (folder / "error").write_text(reason(error))


def borrow(root: Path) -> None:
    """Let `import edgewise` find what lies in `root`, and no other import: where it is installed, another torch and numpy lie beside it."""
    spec = importlib.util.spec_from_file_location("edgewise", root / "edgewise" / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"no edgewise in {root}")
    sys.modules["edgewise"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def converted(model: bytes, kind: str) -> bytes:
    """The flatbuffer of a prepared graph. kind: "float", "dynamic" or "static" (see `prepare`)."""
    import litert_torch
    import numpy as np
    import torch
    import torchao.quantization.pt2e  # noqa: F401  (registers the operators that round)

    from edgewise.export.litert.module import Lowered
    from edgewise.graph import Graph

    graph = Graph.from_bytes(model)
    example = tuple(torch.from_numpy(np.ones(spec.concrete(), spec.dtype)) for spec in graph.signature.inputs)
    with torch.no_grad():
        # 64-bit integers stay what they are in the graph: a narrower input would wrap around without a word.
        made: Any = litert_torch.convert(Lowered(graph).eval(), example, quant_config=_rounding(kind), enable_x64=True)
    return bytes(made.model_content())


def _rounding(kind: str) -> Any:
    """What tells the converter to look for pairs of quantize and dequantize; the scales are those of the graph.

    Its dynamic mode would round all else too, with scales of its own (see `hybrid`).
    """
    if kind == "float":
        return None
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(config))


def reason(error: BaseException) -> str:
    """The first line that says something, and the node of the graph where it happened."""
    while error.__cause__ is not None and str(error.__cause__).strip():
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("in node")]
    return " ".join([(lines or [type(error).__name__])[0][:300], *notes[:1]])


if __name__ == "__main__":
    main()
