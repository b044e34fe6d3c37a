"""The worker as a systemd unit: it starts with the machine, and again when it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import InvalidInput

NAME = "edgewise-worker.service"


@dataclass(frozen=True)
class Unit:
    """What stands in the unit's command line. python: of the environment that edgewise is installed in."""

    python: str
    listen: str
    key: Path
    folder: Path
    cache_mb: float

    def text(self, *, for_all: bool) -> str:
        """for_all: of the whole system, not of one user's session."""
        words = [self.python, "-m", "edgewise", "worker", "--listen", self.listen, "--key", str(self.key), "--folder", str(self.folder)]
        line = " ".join(map(_quoted, [*words, "--cache-mb", f"{self.cache_mb:g}"]))
        return f"""[Unit]
Description=edgewise worker: measures models for a workshop
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={line}
Restart=always
RestartSec=2
KillMode=control-group
NoNewPrivileges=yes
PrivateTmp=yes

[Install]
WantedBy={"multi-user.target" if for_all else "default.target"}
"""


def installed(unit: Unit, *, root: Path = Path("/"), run: bool = True) -> str:
    """Write the unit, for all where that may be done, else for this user; enable and start it. Says what was done.

    Raises InvalidInput where there is no systemd.
    """
    for_all = os.geteuid() == 0
    folder = root / "etc/systemd/system" if for_all else root / str(Path.home() / ".config/systemd/user").lstrip("/")
    if run and shutil.which("systemctl") is None:
        raise InvalidInput(
            "there is no systemctl here: --install is for machines with systemd; start `edgewise worker` as your system starts services"
        )
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(unit.text(for_all=for_all))
    except OSError as error:
        raise InvalidInput(f"can't write {path}: {error.strerror}") from error
    scope = [] if for_all else ["--user"]
    for line in (["daemon-reload"], ["enable", "--now", NAME]):
        if run:
            done = subprocess.run(["systemctl", *scope, *line], capture_output=True, text=True, check=False, timeout=60)
            if done.returncode:
                raise InvalidInput(f"{path} is written, but systemctl {' '.join(line)} failed: {done.stderr.strip()}")
    more = "" if for_all else "\nIt runs while you are logged in; loginctl enable-linger keeps it running."
    return f"{path}: started, and started again with the machine.\nIts log: journalctl {' '.join([*scope, '-u', NAME])}{more}"


def _quoted(word: str) -> str:
    """For systemd: % stands for itself doubled; quotes where there are blanks."""
    word = word.replace("%", "%%").replace("\\", "\\\\")
    return '"' + word.replace('"', '\\"') + '"' if set(word) & set(" \"'\t") else word
