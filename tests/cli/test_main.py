"""The command line as a whole: what is listed, how fast, and how errors end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgewise import cli
from edgewise.errors import BudgetMissed, InvalidData, MeasurementFailed

MAIN = [sys.executable, "-c", "from edgewise.cli import main; main()"]
Edgewise = Callable[..., tuple[int, str, str]]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`edgewise inspect` becomes a command that raises `error`."""

    def command() -> None:
        """Fail."""
        raise error

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(command=command))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_every_command_is_listed(edgewise: Edgewise, arguments: list[str]) -> None:
    code, out, _ = edgewise(*arguments)
    assert code == 0
    assert all(f"  {name}" in out and entry.help in out for name, entry in cli.COMMANDS.items())
    assert max(map(len, out.splitlines())) <= 81


def test_listing_commands_imports_nothing_heavy() -> None:
    code = "\n".join([
        "import sys; sys.argv[1:] = ['--help']",
        "from edgewise.cli import main",
        "try: main()",
        "finally: print(*sys.modules, file=sys.stderr)",
    ])  # fmt: skip
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {"numpy", "rich", "typer", "click", "onnx", "torch", "msgspec", "inspect", "asyncio"} & set(loaded)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example_and_is_documented(edgewise: Edgewise, name: str) -> None:
    code, out, _ = edgewise(name, "--help")
    assert code == 0
    assert f"Example: edgewise {name} " in out.replace("\n", " ") + " "
    assert max(map(len, out.splitlines())) <= 80
    documented = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
    assert f"## edgewise {name}\n" in documented
    assert f"$ edgewise {name}" in documented


def test_a_workshop_command_without_the_workshop_says_what_brings_it(edgewise: Edgewise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_here", lambda module: False)
    code, _, err = edgewise("demo")
    assert code == 2
    assert "pip install 'edgewise[workshop,demo]'" in err
    listed = edgewise("--help")[1]
    assert "(pip install 'edgewise[workshop,demo]')" in listed
    assert "(an .onnx as it is; other models: pip install 'edgewise[workshop]')" in listed
    assert max(map(len, listed.splitlines())) <= 81
    assert edgewise("fit", "--help")[0] == 0


def test_an_unknown_command_suggests_a_known_one(edgewise: Edgewise) -> None:
    code, _, err = edgewise("mesure", "model.onnx")
    assert code == 2
    assert "did you mean 'measure'?" in err


def test_the_version(edgewise: Edgewise) -> None:
    from edgewise import __version__

    assert edgewise("--version") == (0, f"edgewise {__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InvalidData("cats/ is empty; give pictures"), 2, "cats/ is empty"),
        (BudgetMissed("1.9x"), 3, "1.9x"),
        (MeasurementFailed("it hung"), 4, "it hung"),
        (KeyboardInterrupt("interrupted; 3 trials kept"), 130, "3 trials kept"),
        (KeyboardInterrupt(), 130, "nothing was kept"),
        (ModuleNotFoundError("No module named 'openvino'", name="openvino"), 2, "pip install 'edgewise[openvino]'"),
        (OSError(28, "No space left on device", "out/model.edgew"), 2, "out/model.edgew: No space left"),
        (ZeroDivisionError("division by zero"), 1, "bug in edgewise"),
    ],
)
def test_errors_end_with_a_message_and_their_code(
    edgewise: Edgewise, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    failing(monkeypatch, error)
    ended, out, err = edgewise("inspect")
    assert (ended, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


def test_debug_shows_where_an_error_came_from(edgewise: Edgewise, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, InvalidData("cats/ is empty"))
    code, _, err = edgewise("inspect", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_a_wrong_option_is_a_wrong_input(edgewise: Edgewise) -> None:
    assert edgewise("inspect", "--nonsense")[0] == 2


def test_a_closed_pipe_is_no_error() -> None:
    first = subprocess.Popen([*MAIN, "doctor", "--no-peaks"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert first.stdout is not None and first.stderr is not None
    first.stdout.close()
    assert first.stderr.read() == b""
    first.wait(30)
    first.stderr.close()
