"""README and docs are executed: a block that doesn't run, a command or an option that doesn't exist, a link to nothing, fails here.

A ```python block runs, after those above it in the same file and with their names, in an empty folder. One whose first line is a comment
with a file's name (`# my_engine.py`) is written there instead; a test_*.py among these is run by pytest in the end. A block that has
`<!-- not run: reason -->` right above it is left out. In ```console blocks, `$ edgewise …` is held against the command line's own help.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgewise import cli
from edgewise.search import climb

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERY_PAGE = [*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"))]
FENCE = re.compile(r"(?P<before>[^\n]*)\n\n?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    code: str
    line: int
    skipped: bool

    @property
    def file(self) -> str:
        """The name of the file that this block is; "" when it is to be run."""
        named = re.match(r"# (\w+\.py)\n", self.code)
        return named[1] if named else ""


def blocks(page: Path, language: str) -> list[Block]:
    text = "\n\n" + page.read_text()
    return [
        Block(found["code"], text[: found.start("code")].count("\n") - 1, found["before"].startswith("<!-- not run:"))
        for found in FENCE.finditer(text)
        if found["language"] == language
    ]


@pytest.fixture
def apart(briefly: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, with short looks at the clock: here it matters that a page's code runs, not what it finds."""
    monkeypatch.setattr(climb, "INT8", climb.INT8[:1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        if block.file:
            (tmp_path / block.file).write_text(block.code)
        elif not block.skipped:
            # Newlines in front, so that an error names the line of the page.
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
    tests = [str(path) for path in tmp_path.glob("test_*.py")]
    if tests:
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@cache
def help_of(command: str, *task: str) -> str:
    """task: `--task` and its name, which decides what options there are."""
    code = f"from edgewise.cli import main; main([{command!r}, *{task!r}, '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(page: Path) -> list[list[str]]:
    """The words of every `$ edgewise …` in the page's console blocks, comments and what follows a pipe left out."""
    lines = "\n".join(block.code for block in blocks(page, "console")).replace("\\\n", " ").splitlines()
    said = [line.removeprefix("$ ") for line in lines if line.startswith(("$ edgewise ", "$ .venv/bin/edgewise "))]
    return [shlex.split(line.split(" | ")[0], comments=True)[1:] for line in said]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for command, *words in commands(page):
        if command.startswith("-"):
            assert command in cli.overview()
            continue
        assert command in cli.COMMANDS
        at = words.index("--task") if "--task" in words else len(words)
        said = help_of(command, *words[at : at + 2])
        wrong = [word for word in words if word.startswith("--") and word.partition("=")[0] not in said]
        assert not wrong, f"edgewise {command} has no {wrong}"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_described(command: str) -> None:
    assert any(words[0] == command for page in PAGES for words in commands(page))
    assert f"Example: edgewise {command}" in " ".join(help_of(command).split())


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    local = [target.partition("#")[0] for pair in targets for target in pair if target and "://" not in target]
    assert not [target for target in local if target and not (page.parent / target).exists()]


def test_pages_name_no_path_of_one_machine() -> None:
    """Data is named by whoever runs a thing: no page, script or module knows where it lies."""
    wrong = [
        f"{path.relative_to(ROOT)}: {found}"
        for folder in ("src", "docs", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md")
        for found in re.findall(r"/(?:home|work|root|Users)/\w+", path.read_text())
    ]
    assert not wrong
