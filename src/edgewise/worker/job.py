"""One job: `python -m edgewise.worker.job PARENT_PID FOLDER`. Started by `worker.jobs`, never by hand.

The job comes on standard input, what it says goes to standard output. It dies with the worker (Linux), and its measuring processes with it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from edgewise.errors import EdgewiseError
from edgewise.measure import requests
from edgewise.measure.child import die_first, die_with
from edgewise.wire import messages
from edgewise.worker.calls import Desk, done
from edgewise.worker.jobs import HEADER, KINDS


def main() -> None:
    parent, folder = int(sys.argv[1]), Path(sys.argv[2])
    die_with(parent)
    die_first()
    # What an engine prints on standard output would garble what is said.
    said = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(kind: str, data: bytes) -> None:
        left = memoryview(HEADER.pack(KINDS.index(kind), len(data)) + data)
        while left:
            left = left[said.write(left) :]

    try:
        job = messages.decode(sys.stdin.buffer.read(), messages.Job)
        say("result", done(Desk(folder, say, time.monotonic), requests.read(job.kind, job.arguments)))
    except EdgewiseError as error:
        say("error", f"{type(error).__name__}:{error}".encode())


if __name__ == "__main__":
    main()
