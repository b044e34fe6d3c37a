"""The worker's own process: `python -m edgewise.worker HOST PORT KEY FOLDER CACHE_BYTES`, which `edgewise worker` becomes.

Apart from the command, so that what reads command lines isn't in memory for months.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from edgewise.errors import EdgewiseError
from edgewise.wire import keys
from edgewise.worker.server import Settings, serve


def main() -> int:
    host, port, key, folder, cache_bytes = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)

    def log(text: str) -> None:
        logging.getLogger("edgewise").warning(text)

    try:
        held = keys.read(key)
        print(f"edgewise worker on https://{host}:{port}, key {held.id} ({held.path.name})", flush=True)
        if host not in ("127.0.0.1", "::1", "localhost"):
            print("Whoever holds that key can measure here; nobody else gets in.", flush=True)
        serve(Settings(host, int(port), Path(folder), int(cache_bytes)), held.server, log)
    except EdgewiseError as error:
        print(f"edgewise: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
