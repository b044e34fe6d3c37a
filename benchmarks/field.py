"""The field install: `pip install .` in an empty environment. Its size, that no torch came along, and how long `edgewise --help` takes;
then with the server in it (the extras serve and grpc), and what each other extra that a device may want adds, one after the other.

python benchmarks/field.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import record

ROOT = Path(__file__).parents[1]
SERVER = ("serve", "grpc")
EXTRAS = ("keys", "otel", "text", "litert", "parquet", "openvino")


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 2**20


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        tools = Path(scratch) / "bin"
        packages = next(Path(scratch).glob("lib/python*/site-packages"))
        empty = megabytes(packages)
        install = [tools / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
        subprocess.run(install, check=True)
        subprocess.run([tools / "pip", "check"], check=True)
        listed = subprocess.run([tools / "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout.lower()
        times = []
        for _ in range(11):
            began = time.perf_counter()
            subprocess.run([tools / "edgewise", "--help"], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        whole = megabytes(packages)
        extras, before, server, bytecode = {}, whole, whole, 0.0
        for extra in (*SERVER, *EXTRAS):
            subprocess.run([tools / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{ROOT}[{extra}]"], check=True)
            now = megabytes(packages)
            extras[extra], before = round(now - before), now
            if extra == SERVER[-1]:
                subprocess.run([tools / "edgewise", "serve", "--help"], check=True, capture_output=True)
                server, bytecode = now, sum(megabytes(folder) for folder in packages.rglob("__pycache__"))
        result = {
            "bar": "no torch; at most 250 MB, with the server in it too; edgewise --help in at most 0.3 s",
            "site_packages_mb": round(whole),
            "with_the_server_mb": round(server),
            "of_which_bytecode_mb": round(bytecode),
            "empty_environment_mb": round(empty),
            "extras_add_mb": extras,
            "torch": any(line.startswith("torch==") for line in listed.splitlines()),
            "help_seconds": {"median": round(statistics.median(times), 3), "most": round(max(times), 3), "n": len(times)},
        }
        print(f"with {' and '.join(SERVER)} {server:.0f} MB, of which {bytecode:.0f} MB are compiled bytecode (pip install --no-compile)")
        print(f"extras, one after the other: {extras} MB more")
        print(
            f"{whole:.0f} MB, of which {empty:.0f} MB are the empty environment's; --help {statistics.median(times):.2f} s (n={len(times)})"
        )
    record("field", result)


if __name__ == "__main__":
    main()
