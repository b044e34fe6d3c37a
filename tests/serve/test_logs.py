"""What a client says stays within its line."""

from __future__ import annotations

import json
import logging

from edgewise.serve import logs


def test_a_clients_words_make_no_lines_of_their_own() -> None:
    record = logging.LogRecord("edgewise.serve", logging.INFO, "", 0, "request", (), None)
    record.told = {"path": "/v2\n12:00:00 info: all is well\x1b[2J", "status": 404}
    for form in (logs.Plain(), logs.JsonLines()):
        line = form.format(record)
        assert len(line.splitlines()) == 1 and "\x1b" not in line and "404" in line
    assert json.loads(logs.JsonLines().format(record))["path"] == record.told["path"]
