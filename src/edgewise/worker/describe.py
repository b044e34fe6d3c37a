"""This device, for a worker that doesn't import numpy: `python -m edgewise.worker.describe` prints the Device as JSON."""

from __future__ import annotations

import sys

from edgewise import devices
from edgewise.types import to_json


def main() -> None:
    sys.stdout.buffer.write(to_json(devices.local()))


if __name__ == "__main__":
    main()
