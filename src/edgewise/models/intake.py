"""`intake`: a user's model from its name: "package.module:callable" or "file.py:callable", "model.onnx", "model.pt2", "my-bert/".

torch is imported only for the kinds that need it, so that a plain ONNX file works on a field install.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from edgewise import graph as graphs
from edgewise import registry
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.models import hub

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from edgewise.models.encoder import Head


@dataclass(frozen=True)
class Intake:
    """A model as it came in. `kind` says which of the three is set; a program can't be trained. folder: of Hugging Face, where it lay."""

    kind: Literal["module", "graph", "program"]
    name: str
    module: torch.nn.Module | None = None
    graph: graphs.Graph | None = None
    program: ExportedProgram | None = None
    folder: Path | None = None


def intake(spec: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None, head: Head | None = None) -> Intake:
    """The model that `spec` names.

    "package.module:callable" or "path/file.py:callable": called without arguments, gives a torch module, put into evaluation mode;
    `weights` is a .safetensors file with exactly its state. "model.onnx": read, checked and made canonical (`edgewise.graph.read`).
    "model.pt2": what torch.export.save wrote; such a file is code, as a Python file is: load only those that you trust.
    "my-bert/": a folder as transformers writes it (`models.huggingface`), with `head`, or with what its weights answer; "org/name": such a
    folder on the Hugging Face hub, which is downloaded.

    Raises InvalidModel when it can't be found, read or built, or holds NaN; MissingExtra when torch is needed and isn't installed.
    """
    text = os.fspath(spec)
    suffix = Path(text).suffix.lower()
    if suffix in (".onnx", ".pt2") and weights is not None:
        raise InvalidInput(f"weights={os.fspath(weights)!r} was given with {text}, which holds its own weights; leave one of them out")
    if suffix == ".onnx":
        return Intake("graph", Path(text).stem, graph=graphs.read(text))
    if suffix == ".pt2":
        from edgewise.models.program import load_program

        return Intake("program", Path(text).stem, program=load_program(text))
    if Path(text).is_dir() or hub.is_name(text):
        if weights is not None:
            raise InvalidInput(f"weights={os.fspath(weights)!r} was given with {text}, which brings its own; leave one of them out")
        from edgewise.models.huggingface import load_folder

        folder = Path(text) if Path(text).is_dir() else hub.download(text)
        encoder = load_folder(folder, head=head)
        _refuse_bad_weights(encoder, text)
        return Intake("module", Path(text).resolve().name, module=encoder, folder=folder)
    place, colon, attribute = text.rpartition(":")
    if not colon or not place or not attribute.isidentifier():
        raise InvalidModel(
            f"{text!r} names no model; give an .onnx or .pt2 file, a Hugging Face folder, or 'package.module:callable' or 'file.py:build'"
        )
    build = _find(place, attribute)
    module = _build(build, text)
    if weights is not None:
        from edgewise.models.weights import load_weights

        load_weights(module, weights, text)
    _refuse_bad_weights(module, text)
    return Intake("module", attribute, module=module.eval())


def _find(place: str, attribute: str) -> Any:
    if place.endswith(".py"):
        found = _import_file(Path(place))
    else:
        with _importing(place), _working_directory_importable():
            found = importlib.import_module(place)
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        likely = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_") and _is_local(value, found)]
        raise InvalidModel(f"{place} has no {attribute!r}; it defines {', '.join(likely[:12]) or 'nothing that can be called'}") from error


def _is_local(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidModel(f"{path} does not exist; give the path of a Python file, as in 'nets/mine.py:build'")
    # A name of its own, so that a user's "json.py" hides no module; imports beside the file work as when it is run as a script.
    name = f"_edgewise_intake_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise InvalidModel(f"{path} can't be imported; give a Python file")
    module = importlib.util.module_from_spec(module_spec)
    before = list(sys.path)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[name] = module
    try:
        with _importing(str(path)):
            module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path[:] = before
    return module


@contextlib.contextmanager
def _importing(place: str) -> Iterator[None]:
    """A user's module runs its own code on import, so anything may be raised."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] in registry.EXTRAS:
            raise registry.missing(error) from error
        if isinstance(error, ModuleNotFoundError) and error.name and (place == error.name or place.startswith(error.name + ".")):
            raise InvalidModel(
                f"there is no module {error.name!r} (for {place!r}); check the spelling, and that it is importable from here"
            ) from error
        raise InvalidModel(f"importing {place} failed: {error}; install what it needs, or correct it") from error
    except SyntaxError as error:
        raise InvalidModel(f"importing {place} failed: {error.msg} ({error.filename}, line {error.lineno}); correct it") from error
    except SystemExit as error:
        raise InvalidModel(
            f"importing {place} ended the program: it is a script; put what it runs under if __name__ == '__main__'"
        ) from error
    except Exception as error:
        raise InvalidModel(f"importing {place} failed: {type(error).__name__}: {_first_line(error)}; correct it") from error


@contextlib.contextmanager
def _working_directory_importable() -> Iterator[None]:
    """As `python -m` has it: a console script leaves the working directory out of the path."""
    if "" in sys.path or str(Path.cwd()) in sys.path:
        yield
        return
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(Path.cwd()))


def _build(build: Any, what: str) -> torch.nn.Module:
    try:
        import torch
    except ImportError as error:
        raise registry.missing(error) from error
    if isinstance(build, torch.nn.Module):
        return build
    if not callable(build):
        raise InvalidModel(f"{what} is a {type(build).__name__}; expected a callable without arguments that gives a torch module")
    try:
        needed = [
            name
            for name, parameter in inspect.signature(build).parameters.items()
            if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):  # a callable without a signature, such as a builtin
        needed = []
    if needed:
        raise InvalidModel(f"{what} needs {', '.join(needed)}; give a callable without arguments: wrap it in a function that sets them")
    try:
        module = build()
    except Exception as error:
        raise InvalidModel(f"{what} failed: {type(error).__name__}: {_first_line(error)}; it has to run without arguments") from error
    if not isinstance(module, torch.nn.Module):
        raise InvalidModel(f"{what} gave a {type(module).__name__}; expected a torch.nn.Module")
    return module


def _refuse_bad_weights(module: torch.nn.Module, what: str) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        nans = int(tensor.isnan().sum()) if tensor.is_floating_point() else 0
        # A buffer may be infinite on purpose (an attention mask); a parameter may not.
        infinities = int(tensor.isinf().sum()) if tensor.is_floating_point() and isinstance(tensor, _parameter_type()) else 0
        if nans or infinities:
            found = f"{nans} NaN" if nans else f"{infinities} infinite"
            raise InvalidModel(
                f"{what}: weight {name!r} {list(tensor.shape)} has {found} values; training diverged: take an earlier checkpoint"
            )


def _parameter_type() -> type:
    import torch

    return torch.nn.Parameter


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
