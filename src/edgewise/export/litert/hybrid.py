"""Dynamic quantization in a flatbuffer: products that take their integer weights as they are, instead of floats made of them.

The converter has a mode of its own for this, and rounds in it whatever it finds: embeddings, convolutions, layers that were to stay float,
with scales of its own. So it is asked for the weights alone, as integers before a DEQUANTIZE, and FULLY_CONNECTED is then made to read
these: a float input with int8 weights is what the engine's hybrid kernels take (they round the input row by row, in every call).
"""

from __future__ import annotations

import struct

from edgewise import tflite
from edgewise.errors import InvalidModel

# BuiltinOperator, TensorType
_DEQUANTIZE, _FULLY_CONNECTED, _INT8 = 6, 9, 9
_WEIGHT = 1  # input of FULLY_CONNECTED


def hybrid(model: bytes) -> tuple[bytes, int]:
    """`model` with products that read integer weights, and how many there are. Offsets stay what they are: numbers change in their places.

    Raises InvalidModel where there is nothing to change.
    """
    root = tflite.root(model)
    changed = bytearray(model)
    codes = [max(code.number(0, "b"), code.number(3, "i")) for code in root.tables(tflite.MODEL_CODES)]
    count = 0
    for graph in root.tables(tflite.MODEL_SUBGRAPHS):
        types = [tensor.number(1, "b") for tensor in graph.tables(0)]
        operators = list(graph.tables(3))
        kinds = [codes[operator.number(0, "I")] for operator in operators]
        integers = {
            operator.numbers(2)[0]: (operator.numbers(1)[0], number)
            for number, (operator, kind) in enumerate(zip(operators, kinds, strict=True))
            if kind == _DEQUANTIZE and types[operator.numbers(1)[0]] == _INT8
        }
        readers: dict[int, list[tuple[int, int]]] = {}
        for number, operator in enumerate(operators):
            for position, tensor in enumerate(operator.numbers(1)):
                readers.setdefault(tensor, []).append((number, position))
        spent = set()
        for real, (tensor, dequantize) in integers.items():
            users = readers.get(real, [])
            if not users or any(kinds[number] != _FULLY_CONNECTED or position != _WEIGHT for number, position in users):
                continue
            for number, position in users:
                start, _ = operators[number].run(1, 4)
                struct.pack_into("<i", changed, start + 4 * position, tensor)
            spent.add(dequantize)
            count += len(users)
        _without(changed, graph, spent)
    if not count:
        raise InvalidModel(
            "the converter left no product with integer weights: quantizing it gains nothing for LiteRT; give the float graph"
        )
    return bytes(changed), count


def _without(changed: bytearray, graph: tflite.Table, spent: set[int]) -> None:
    """Take operators out of the graph's list: the rest move up, and what is behind the new end is read by nobody."""
    start, count = graph.run(3, 4)
    places = [start + 4 * number for number in range(count)]
    kept = [place + struct.unpack_from("<I", changed, place)[0] for number, place in enumerate(places) if number not in spent]
    struct.pack_into("<I", changed, start - 4, len(kept))
    for place, target in zip(places, kept, strict=False):
        struct.pack_into("<I", changed, place, target - place)
