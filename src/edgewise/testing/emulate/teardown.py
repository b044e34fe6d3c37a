"""How everything that belongs to an emulated device goes away, and the guard that sees to it.

All that a device has in the kernel carries its tag, `ew<pid of its owner>x<count>`: control groups, network namespaces (`<tag>-<boot>`),
interfaces (`<tag>h`, `<tag>d`). Run as a script, this file is the device's guard. It waits until its owner closes its standard input or
dies, whatever it dies of, and then ends the processes inside and takes away the rest. It is a process of its own so that neither a second
Ctrl-C nor SIGKILL can stop it halfway; and it needs nothing but the standard library, so that it starts in a few hundredths of a second.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

NAMESPACES = Path("/run/netns")
PATIENCE_S = 20.0
_NAME = re.compile(r"(ew(\d+)x\d+)(?:[hd]|-\d+)?")


def kill(folders: Iterable[Path]) -> None:
    """SIGKILL for everything in these groups, until nothing is left. Raises TimeoutError where something outlives it by 20 s."""
    groups = [group for folder in folders for group in _tree(folder)]
    for group in groups:
        _write(group / "cpu.cfs_quota_us", "-1")  # a process needs time of a processor to die, and would wait for its share
        _write(group / "cpu.max", "max")
        _write(group / "cgroup.kill", "1")  # all at once, where the kernel can (5.14, v2)
    until = time.monotonic() + PATIENCE_S
    while left := _members(groups):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > until:
            raise TimeoutError(f"processes {sorted(left)} of an emulated device didn't end in {PATIENCE_S:.0f} s after SIGKILL")
        time.sleep(0.002)


def _tree(folder: Path) -> list[Path]:
    """The group and those that processes inside may have made under it, the deepest first."""
    return [Path(group) for group, _, _ in os.walk(folder, topdown=False)]


def _members(groups: Iterable[Path]) -> set[int]:
    found: set[int] = set()
    for group in groups:
        with suppress(OSError):
            found.update(map(int, (group / "cgroup.procs").read_text().split()))
    return found


def _write(file: Path, value: str) -> None:
    if file.exists():
        with suppress(OSError):
            file.write_text(value)


def _remove_groups(folders: Iterable[Path]) -> None:
    """A group is busy for a moment after its last process went."""
    until = time.monotonic() + PATIENCE_S
    for folder in folders:
        while groups := _tree(folder):
            try:
                for group in groups:
                    group.rmdir()
            except FileNotFoundError:
                continue  # another one cleans up too
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)


def _remove_network(tag: str) -> None:
    """Interfaces first: a closed connection that still waits for its last answer keeps a namespace alive, and what is in it.

    What a command says is not looked at: another process may be cleaning up too. What counts is that nothing is left.
    """
    until = time.monotonic() + PATIENCE_S
    while left := [name for name in sorted(interfaces()) + namespaces() if tag_of(name) == tag]:
        if time.monotonic() > until:
            raise OSError(f"{', '.join(left)} can't be deleted; try `ip link delete` or `ip netns delete`")
        for name in left:
            kind = "netns" if "-" in name else "link"  # of a link, the other end goes with it
            subprocess.run(["ip", kind, "delete", name], capture_output=True, check=False, timeout=PATIENCE_S)


def interfaces() -> set[str]:
    from socket import if_nameindex

    return {name for _, name in if_nameindex()}


def namespaces() -> list[str]:
    return sorted(file.name for file in NAMESPACES.iterdir()) if NAMESPACES.is_dir() else []


def everything(tag: str, tops: Sequence[Path]) -> None:
    """End what runs in the device `tag` and remove all of it; what is gone already is no error.

    tops: the folders in which control groups stand. Raises OSError (TimeoutError among them) where something can't be removed.
    """
    folders = [top / tag for top in tops]
    kill(folders)
    _remove_network(tag)
    _remove_groups(folders)


def tag_of(name: str) -> str | None:
    """The tag of the device that a group, a namespace or an interface of this name belongs to; None where it belongs to none."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def stale(tops: Sequence[Path], mine: Iterable[str]) -> list[str]:
    """Tags of devices whose owner is dead. mine: those of this process that live; others under its number are of one before it."""
    groups = [folder.name for top in tops for folder in top.glob("ew*")]
    tags = {tag for name in (*groups, *namespaces(), *interfaces()) if (tag := tag_of(name))} - set(mine)
    return sorted(tag for tag in tags if (owner := _owner(tag)) == os.getpid() or not _alive(owner))


def _owner(tag: str) -> int:
    found = _NAME.fullmatch(tag)
    return int(found[2]) if found else 0


def _alive(process: int) -> bool:
    """A zombie is dead: it only waits for its parent to look."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def _guard(owner: int, tag: str, *tops: str) -> None:
    alive = os.pidfd_open(owner)
    if os.getppid() == owner:  # otherwise it died before we could hold on to it, and its number may be another's
        print("ready", flush=True)
        select.select([alive, sys.stdin], [], [])
    everything(tag, [Path(top) for top in tops])


if __name__ == "__main__":
    _guard(int(sys.argv[1]), *sys.argv[2:])
