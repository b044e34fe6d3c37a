"""Takes itself into an emulated device and becomes the command that is to run there. Run as a script, with the standard library alone:

    inside.py NAMESPACE PARENT REPORT GROUP... -- COMMAND...

NAMESPACE is the file of a network namespace. PARENT is the number of the process with whose end this one is to end too, or 0. Why it can't
be done is written to the file descriptor REPORT, which closes without a word when COMMAND has started. `ip netns exec` would do less: it
mounts /sys anew, and with that hides from the command the limits that it is under.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1


def main(namespace: str, parent: int, report: int, groups: list[str], command: list[str]) -> None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if parent:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                return
        for group in groups:
            (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
        door = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(door, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
        os.set_inheritable(report, False)
        for name in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, which a command would inherit
            signal.signal(name, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(report, f"{error.filename or command[0]}: {error.strerror}".encode())
        sys.exit(127)


if __name__ == "__main__":
    split = sys.argv.index("--")
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:split], sys.argv[split + 1 :])
