"""What the benchmarks' server does when the script that started it is killed: it ends too."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("uvloop")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "serve"
STANDING = "import time; print('http://127.0.0.1:1', flush=True); time.sleep(100)"
SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import served
print(served.start(Path("models"), Path("."), program=(sys.executable, "-c", sys.argv[2])).pid, flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_server_ends_with_the_script_that_started_it(how: signal.Signals, tmp_path: Path) -> None:
    line = [sys.executable, "-c", SCRIPT, str(BENCHMARKS), STANDING]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as script:
        assert script.stdout is not None
        server = psutil.Process(int(script.stdout.readline()))
        assert server.is_running()
        script.send_signal(how)
        script.wait(30)
    try:
        until = time.monotonic() + 30
        with contextlib.suppress(psutil.NoSuchProcess):
            while server.status() != psutil.STATUS_ZOMBIE:  # nobody need have asked what became of it
                assert time.monotonic() < until, "it runs on"
                time.sleep(0.02)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()
