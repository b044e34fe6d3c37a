"""A model's own process: `python -m edgewise.host.child PARENT_PID`. Started by `edgewise.host.processes`, never by hand.

It loads one file and answers calls, blocked in a read between them. It ends when its standard input does, and on Linux with its parent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.host import loading
from edgewise.host.loading import Runners
from edgewise.measure.child import die_first, die_with
from edgewise.measure.messages import HEADER, Array, Failed, pack, unpack


class Open(msgspec.Struct, frozen=True, tag=True):
    """Load this file, which was looked at as `content_id`; "" for a plain graph, which has none of its own."""

    path: str
    content_id: str
    backend: str | None
    threads: int | None


class Run(msgspec.Struct, frozen=True, tag=True):
    inputs: dict[str, Array]


class Ready(msgspec.Struct, frozen=True, tag=True):
    pass


class Ran(msgspec.Struct, frozen=True, tag=True):
    outputs: dict[str, Array]


Asked = Open | Run
Told = Ready | Ran | Failed

encode = msgspec.msgpack.Encoder().encode
decode_asked = msgspec.msgpack.Decoder(Asked).decode
decode_told = msgspec.msgpack.Decoder(Told).decode


def main() -> None:
    die_with(int(sys.argv[1]))
    die_first()
    # Answers get a descriptor of their own: what an engine prints on standard output would otherwise garble them.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Until `asked` ends. An error raised on purpose is an answer; any other ends the process with its traceback."""
    runner: Runners | None = None
    while header := asked.read(HEADER.size):
        told: Told
        try:
            match decode_asked(asked.read(HEADER.unpack(header)[0])):
                case Open() as what:
                    runner, told = _opened(what), Ready()
                case Run(inputs):
                    if runner is None:
                        raise InvalidInput("asked before a model was loaded")
                    told = Ran(pack(runner.run(unpack(inputs))))
        except EdgewiseError as error:
            told = Failed(type(error).__name__, str(error))
        body = encode(told)
        data = memoryview(HEADER.pack(len(body)) + body)
        while data:
            data = data[answers.write(data) :]


def _opened(what: Open) -> Runners:
    model = loading.read(Path(what.path), backend=what.backend, threads=what.threads)
    if what.content_id and (model.package is None or model.package.content_id != what.content_id):
        raise InvalidInput(f"{what.path} changed while it was loaded; it is looked at again")
    return Runners(model, eager=True)


if __name__ == "__main__":
    main()
