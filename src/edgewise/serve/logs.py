"""What the server says: one JSON object a line, on standard error, for people's eyes only where `plain` is asked for."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

LOG = logging.getLogger("edgewise.serve")


class JsonLines(logging.Formatter):
    """time in seconds since the epoch, level, what happened, and its fields (`say`); a traceback under "trace"."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
        told |= getattr(record, "told", {})
        if record.name != LOG.name:
            told["from"] = record.name
        if record.exc_info and record.exc_info[0] is not None:
            told["trace"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(told, ensure_ascii=False, default=str)


class Plain(logging.Formatter):
    """The same for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_line(value)}" for name, value in getattr(record, "told", {}).items())
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        trace = "\n" + "".join(traceback.format_exception(*record.exc_info)) if record.exc_info and record.exc_info[0] else ""
        return f"{when} {record.levelname.lower()}: {record.getMessage()}{' ' if fields else ''}{fields}{trace}"


def _line(value: Any) -> str:
    """As it is where it can't be taken for something else: a client's words may hold line ends, or a terminal's commands."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def set_up(stream: TextIO | None = None, *, plain: bool = False, level: int = logging.INFO) -> None:
    """All loggers of the process to `stream` (standard error), in the one form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Plain() if plain else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOG.setLevel(level)


def say(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """error: whose traceback is written too."""
    LOG.log(level, event, exc_info=error, extra={"told": fields})
