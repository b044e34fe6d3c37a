"""A board with 64-bit Arm cores that isn't there: Debian's Python for it and edgewise's field install, run by QEMU. Never for times.

    script = board(repository, folder)
    subprocess.run([script, "-m", "edgewise", "run", "package.edgew", …])

The packages come from Debian and PyPI, and are kept in the user's cache; `missing()` says what is not here. Programs under QEMU see this
machine's files and network. This machine's own settings stay as they are: no foreign architecture is added, no program is registered.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from edgewise.errors import EdgewiseError

PROGRAMS = ("qemu-aarch64", "aarch64-linux-gnu-gcc")
PACKAGES = ("qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")  # of Debian, which have them
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LIBRARIES = ("python3.11", "libstdc++6", "libgomp1")
EXTRAS = ("worker", "keys")
_LONGEST_S = 600.0
# What an engine reads at its start, in place of this machine's. (Of an x86 one's, ONNX Runtime makes a null pointer.)
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


def missing() -> str | None:
    """Why no such board can be made here and what to do about it, or None where it can."""
    if not sys.platform.startswith("linux"):
        return f"programs for aarch64 are run by QEMU's user mode, and this is {sys.platform}; run on Linux"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} can't be found (on Debian: apt install {' '.join(PACKAGES)})"
    if not KEYRING.exists() or shutil.which("apt-get") is None or _suite() is None:
        return "the board's Python is Debian 12's, which apt-get brings and Debian's keyring proves; neither is on this machine"
    return None


def board(repository: Path, folder: Path) -> Path:
    """A program that runs as the board's Python with edgewise installed, from the sources of `repository`.

    folder: empty; edgewise itself is put there, its C extension compiled for the board. Raises EdgewiseError where something can't be had.
    """
    kept = _kept(repository)
    site, system = kept / "site", kept / "system"
    script = folder / "python"
    shutil.copytree(repository / "src" / "edgewise", folder / "edgewise", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    _compile(folder / "edgewise" / "coding")
    # Programs start others by sys.executable, and the kernel would not know what to do with one for aarch64.
    (folder / "sitecustomize.py").write_text(f"import sys\n\nsys.executable = {str(script)!r}\n")
    libraries = f"{system}/usr/lib/aarch64-linux-gnu:{system}/lib/aarch64-linux-gnu"
    given = {"LD_LIBRARY_PATH": libraries, "PYTHONHOME": f"{system}/usr", "PYTHONPATH": f"{folder}:{site}"}
    settings = " ".join(f"-E {shlex.quote(f'{name}={value}')}" for name, value in given.items())
    script.write_text(f'#!/bin/sh\nexec qemu-aarch64 -L {shlex.quote(str(system))} {settings} {system}/usr/bin/python3.11 "$@"\n')
    script.chmod(0o755)
    return script


def field(repository: Path) -> list[str]:
    """What the field install on a device needs, as pip's requirements."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]


def _kept(repository: Path) -> Path:
    """The folder of Debian's and PyPI's packages, made once."""
    wanted, constraints = field(repository), repository / "constraints.txt"
    key = hashlib.sha256("\n".join([*wanted, *LIBRARIES, str(_suite()), CPUINFO, constraints.read_text()]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewise"
    kept = cache / f"aarch64-{key}"
    if kept.exists():
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="aarch64-") as scratch:
        new = Path(scratch) / "new"
        _debian(Path(scratch), new / "system")
        line = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target", new / "site")
        platforms = [part for tag in ("2_28", "2_27", "2_17") for part in ("--platform", f"manylinux_{tag}_aarch64")]
        fixed = ("--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:", "-c", constraints)
        _run(sys.executable, *line, *platforms, *fixed, *wanted)
        try:
            new.rename(kept)
        except OSError:
            if not kept.exists():  # another was faster
                raise
    return kept


def _debian(scratch: Path, system: Path) -> None:
    """Python and its libraries, unpacked into `system`; apt's state is in `scratch`, apart from this machine's."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "state" / "status").touch()
    source = scratch / "sources.list"
    source.write_text(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {_suite()} main\n")
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Retries": "2",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "state" / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::SourceList": source,
    }
    apt = ["apt-get", "-qq", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    _run(*apt, "update")
    _run(*apt, "install", "-y", "--no-install-recommends", "--download-only", *LIBRARIES)
    system.mkdir(parents=True)
    for archive in sorted((scratch / "cache" / "archives").glob("*.deb")):
        _run("dpkg-deb", "-x", archive, system)
    (system / "proc").mkdir()
    (system / "proc" / "cpuinfo").write_text(CPUINFO)


def _suite() -> str | None:
    """Debian's codename of the release whose Python is 3.11: its libraries are those that the compiler here was made for."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return None
    return "bookworm" if "VERSION_CODENAME=bookworm" in lines else None


def _compile(coding: Path) -> None:
    sources = [coding / "native" / f"{name}.c" for name in ("module", "rans", "huffman", "adaptive")]
    headers = sysconfig.get_paths()["include"]  # of the stable ABI: the same on every 64-bit Linux
    _run("aarch64-linux-gnu-gcc", "-std=c11", "-O3", "-shared", "-fPIC", f"-I{headers}", *sources, "-o", coding / "_native.abi3.so")


def _run(*line: str | Path) -> None:
    try:
        done = subprocess.run(_plain(line), capture_output=True, text=True, check=False, timeout=_LONGEST_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise EdgewiseError(f"{line[0]} took over {_LONGEST_S:.0f} s") from error
    if done.returncode:
        raise EdgewiseError(f"{' '.join(_plain(line[:6]))} … failed: {(done.stderr or done.stdout).strip()[-400:]}")


def _plain(line: Sequence[str | Path]) -> list[str]:
    return [os.fspath(part) for part in line]
