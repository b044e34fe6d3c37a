"""LiteRT's form of a graph: a flatbuffer, made by `litert-torch` in a process of its own and held against the graph (`convert`).

Nothing here imports torch or the converter but `module` and `child`, which that process runs.
"""

from edgewise.export.litert.converting import CONVERTER, INTERPRETER, Flatbuffers, convert, interpreter

__all__ = ["CONVERTER", "INTERPRETER", "Flatbuffers", "convert", "interpreter"]
