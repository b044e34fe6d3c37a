"""A study on disk: every trial a file of its own, written whole, so that an interrupted search goes on where it stopped.

FOLDER/study.json            what was asked and, in the end, the verdict
FOLDER/trials/KEY.json       one trial
FOLDER/models/KEY.onnx       the graph that a recipe made
FOLDER/models/KEY.form       an engine's own form of one
FOLDER/notes/KEY.json        intermediate results that took long
FOLDER/training/, answers/   what trainings go on from, until the search is over
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.records import Study, Trial
from edgewise.types import from_json, to_json


def key(*parts: object) -> str:
    """A name for what follows from `parts`: the same parts, the same name, in every process."""
    return hashlib.sha256("\n".join(repr(part) for part in parts).encode()).hexdigest()[:20]


class Store:
    """Trials and graphs under `folder`, by key.

    check: called before anything is kept; raises where what was found can't be trusted, as after an interrupt that an engine swallowed.
    record: where the study itself is kept, for several that share their trials.
    """

    def __init__(self, folder: Path, check: Callable[[], None] = lambda: None, record: Path | None = None) -> None:
        self.folder = folder
        self._check = check
        self._record = record or folder / "study.json"
        try:
            for part in (folder / "trials", folder / "models", self._record.parent):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"{folder}: can't keep a study there ({error.strerror}); give another folder") from error

    def trial(self, name: str) -> Trial | None:
        """The trial of that key, if it is there and whole; one that can't be read counts as not there."""
        return self._read(self.folder / "trials" / f"{name}.json", Trial)

    def keep(self, trial: Trial) -> Trial:
        self._check()
        write(self.folder / "trials" / f"{trial.key}.json", to_json(trial))
        return trial

    def study(self) -> Study | None:
        return self._read(self._record, Study)

    def close(self, study: Study) -> None:
        self._check()
        write(self._record, to_json(study))

    def tidy(self) -> None:
        """Let go of what only an unfinished search needs: checkpoints of trainings that are over, and what their teacher answered."""
        for part in ("training", "answers"):
            shutil.rmtree(self.folder / part, ignore_errors=True)

    def has_graph(self, name: str) -> bool:
        return (self.folder / "models" / f"{name}.onnx").exists()

    def graph(self, name: str, make: Callable[[], Graph]) -> tuple[Graph, str]:
        """The graph kept under that key, or made and kept; and its path inside the folder."""
        path = self.folder / "models" / f"{name}.onnx"
        if path.exists():
            return Graph.load(path), f"models/{name}.onnx"
        graph = make()
        self._check()
        graph.save(path)
        return graph, f"models/{name}.onnx"

    def form(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The form kept under that key, or made and kept."""
        path = self.folder / "models" / f"{name}.form"
        if path.exists():
            return path.read_bytes()
        made = make()
        self._check()
        write(path, made)
        return made

    def noted(self, name: str) -> Any:
        """What `note` kept under that name; None when there is nothing."""
        path = self.folder / "notes" / f"{name}.json"
        return msgspec.json.decode(path.read_bytes()) if path.exists() else None

    def note(self, name: str, value: Any) -> None:
        """Keep a small JSON value: an intermediate result that took long to find."""
        self._check()
        (self.folder / "notes").mkdir(exist_ok=True)
        write(self.folder / "notes" / f"{name}.json", to_json(value))

    def _read(self, path: Path, kind: type[Any]) -> Any:
        try:
            return from_json(path.read_bytes(), kind)
        except (FileNotFoundError, InvalidInput):
            return None


def write(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: a reader, or a crash, sees the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
