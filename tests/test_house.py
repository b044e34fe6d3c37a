"""The walls of the house, as ARCHITECTURE.md draws them: floors, doors, and what nobody may ask for."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from edgewise import registry

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "edgewise"
ENGINES = ("onnxruntime", "openvino", "litert", "ai_edge_litert")
NETWORK = {"socket", "ssl", "http", "urllib", "ftplib", "smtplib", "asyncio", "requests", "httpx", "aiohttp", "grpc", "zmq"}
PICKLES = {"pickle", "cPickle", "_pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}
# What a device hasn't got: the workshop, optional engines, and what only tests or benchmarks bring.
NOT_IN_THE_FIELD = (
    "torch",
    "onnxscript",
    "transformers",
    "safetensors",
    "scipy",
    "openvino",
    "ai_edge_litert",
    "litert_torch",
    "sklearn",
    "pandas",
    "mlxtend",
    "nncf",
    "cryptography",
    "tokenizers",
    "huggingface_hub",
    "pyarrow",
    "pynvml",
    "mlperf_loadgen",
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "opentelemetry",
)
WORKSHOP = ("rows", "tasks", "models", "steps", "checkpoint", "train", "compress", "export", "recipe", "search", "fitting", "tuning")
LONGEST = 400


@dataclass(frozen=True)
class Module:
    name: str  # "edgewise.graph.costs"
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    target: str  # "edgewise.types", "numpy"
    line: int
    lazy: bool  # inside a function, or for type checkers alone


@cache
def modules() -> dict[str, Module]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text()))
    return found


def imports(module: Module) -> Iterator[Import]:
    """All imports, wherever they stand. `from package import module` names the module, `from module import thing` the module too."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inside = True
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = ".".join(module.package.split(".")[: len(module.package.split(".")) - child.level + 1]) if child.level else ""
                source = ".".join(part for part in (base, child.module or "") if part)
                for alias in child.names:
                    whole = f"{source}.{alias.name}"
                    yield Import(whole if whole in modules() else source, child.lineno, inside)
            else:
                yield from walk(child, inside)

    return walk(module.tree, False)


@cache
def floors() -> dict[str, int]:
    """Room -> floor, as the table in ARCHITECTURE.md says. `report` reads floor 0 only; `testing` stands outside."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (\d) \|([^|]*)\|", text, re.MULTILINE)
    return {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)(?:/|\.py)`", rooms)}


def where(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT)}:{line}"


def test_every_room_has_its_place_in_the_table() -> None:
    rooms = {module.room for module in modules().values()} - {"", "__main__"}
    assert rooms == set(floors()) | {"report", "testing"}


def test_imports_go_down_and_rooms_of_one_floor_do_not_know_each_other() -> None:
    wrong = []
    for module in modules().values():
        if module.room in ("", "__main__", "testing"):
            continue
        # Pages and tables may be read by whoever ends a job; they read the nouns alone.
        floor = floors().get(module.room, 1)
        for found in imports(module):
            if not found.target.startswith("edgewise.") or found.target == "edgewise.__main__":
                continue
            if module.name == "edgewise.cli.emulating" and found.target.startswith("edgewise.testing.emulate"):
                continue  # an emulated device is a fake that users have too, by `edgewise devices emulate`
            room = found.target.split(".")[1]
            below = floors().get(room, {"report": 6, "testing": 99}.get(room, -1))
            # Floor 0 is the one floor whose rooms may know another: all of it raises errors, and records are made of the nouns.
            if room not in (module.room, "errors", "types") and below >= floor:
                wrong.append(f"{where(module, found.line)}: {module.room} (floor {floor}) imports {room} (floor {below})")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_another_in_a_circle() -> None:
    graph = {
        name: {found.target for found in imports(module) if not found.lazy and found.target in modules() and found.target != name}
        for name, module in modules().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imported in a circle: {' → '.join(error.args[1])}")


def test_no_class_stands_deeper_than_two() -> None:
    """Depth counts a class and what it inherits from, ours or another library's; a Protocol or an exception is no implementation."""
    bases = {
        node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }

    def depth(name: str) -> int:
        if name in ("object", "Protocol", "Generic", "Exception", "NamedTuple", "Enum", "StrEnum"):
            return 0
        return 1 + max((depth(base) for base in bases.get(name, ())), default=0)

    def raised(name: str) -> bool:
        return name in ("Exception", "EdgewiseError") or any(map(raised, bases.get(name, ())))

    assert not {name: depth(name) for name in bases if depth(name) > 2 and not raised(name)}


def test_nobody_outside_backends_imports_an_engine_or_asks_for_its_name() -> None:
    wrong = []
    for module in modules().values():
        if module.room in ("backends", "registry"):
            continue
        wrong += [
            f"{where(module, found.line)}: imports {found.target}" for found in imports(module) if found.target.split(".")[0] in ENGINES
        ]
        wrong += [
            f"{where(module, node.lineno)}: names {node.value!r}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant) and node.value in ENGINES
        ]
    assert not wrong, "\n".join(wrong)


def test_no_pickle_and_no_network_at_import() -> None:
    wrong = []
    for module in modules().values():
        for found in imports(module):
            top = found.target.split(".")[0]
            if top in PICKLES or (top in NETWORK and not found.lazy and module.room not in ("wire", "worker", "host", "serve")):
                wrong.append(f"{where(module, found.line)}: imports {found.target}")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                unsafe = ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True"
                if unsafe or given.get("allow_pickle", "False") != "False":
                    wrong.append(f"{where(module, node.lineno)}: {ast.unparse(node)[:80]}")
    assert not wrong, "\n".join(wrong)


def test_modules_can_be_held_in_the_head() -> None:
    long = {str(module.path.relative_to(ROOT)): len(module.path.read_text().splitlines()) for module in modules().values()}
    assert not {path: lines for path, lines in long.items() if lines > LONGEST}


def test_every_extra_that_a_message_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(registry.EXTRAS.values()) <= set(extras)


def python(code: str, folder: Path = ROOT, **environment: str) -> str:
    """What `code` prints in an interpreter of its own, started in `folder`."""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment}, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# A sending module would be seen here even where another library brings it in.
GUARD = f"""
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {NOT_IN_THE_FIELD!r} else find(name, *rest)

def listen(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(f"{{event}} {{arguments[1:]}} while importing")

sys.addaudithook(listen)
"""


def test_the_field_needs_nothing_of_the_workshop() -> None:
    field = [name for name, module in modules().items() if module.room not in WORKSHOP and module.room != "__main__"]
    assert len(field) > 40
    code = f"""{GUARD}
import importlib, traceback
for name in {field!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(name, "->", traceback.extract_tb(error.__traceback__)[-3:], error)
"""
    assert python(code) == ""


def test_importing_edgewise_costs_nothing() -> None:
    loaded = python("import sys, edgewise; print(*sorted(sys.modules))").split()
    assert [name for name in loaded if name.startswith("edgewise")] == ["edgewise"]
    assert not {"numpy", "onnx", "rich", "typer"} & set(loaded)


def test_help_loads_no_model_library() -> None:
    code = """
import sys
from edgewise.cli import main
sys.argv = ["edgewise", "--help"]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print("MODULES", *sys.modules)
"""
    loaded = set(python(code).rpartition("MODULES ")[2].split())
    assert not loaded & {"numpy", "onnx", "PIL", "torch", *ENGINES}


def test_every_name_of_the_front_door_opens() -> None:
    python("import edgewise\nfor name in edgewise.__all__: getattr(edgewise, name)")


def test_no_engine_tells_anybody_that_it_is_used(tmp_path: Path) -> None:
    """Two engines would write an id into the home folder and post events, unless they are kept from it (see ARCHITECTURE.md)."""
    code = """
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
from edgewise import backends
from edgewise.testing import graphs
from edgewise.types import Execution
model, inputs = graphs.mlp()
for name in backends.taking():
    backends.load(model.SerializeToString(), Execution(name)).run(inputs)
for name in backends.taking("tflite"):
    with open(FORM, "rb") as file:
        backends.load(file.read(), Execution(name)).run(inputs)
print(*(name for name in sys.modules if name.partition(".")[0] == "openvino_telemetry" and sys.modules[name]))
"""
    code = code.replace("FORM", repr(str(ROOT / "tests/backends/forms/float-mlp.tflite")))
    # A proxy that isn't there: should this test ever fail, nothing leaves even then. CI, when it is set, keeps both quiet anyway.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    loaded = python(code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"), CI="", **nowhere)
    assert loaded.split() == []
    assert list(tmp_path.iterdir()) == []


def test_fit_takes_an_onnx_where_torch_is_not(tmp_path: Path) -> None:
    """The main job and `reproduce`, from the shell and to the end, without the rungs that train; a module is refused with the pip line."""
    code = f"""{GUARD}
import contextlib, io, json, os
import numpy as np
import onnx
from edgewise import cli, measure
from edgewise.records import Peaks
from edgewise.search import climb
from edgewise.testing import graphs

compare, profile, race = measure.compare, measure.profile, measure.race
measure.compare = lambda *a, **k: compare(*a, **{{**k, "max_seconds": 0.5, "block_ms": 5, "min_pairs": 6}})
measure.profile = lambda *a, **k: profile(*a, **{{**k, "seconds": 0.05, "min_samples": 10}})
measure.race = lambda *a, **k: race(*a, block_ms=5, min_rounds=6, rounds=6)
measure.peaks = lambda device, threads: Peaks(threads, 50.0, 100.0, 10.0)
climb.INT8 = climb.INT8[:2]

def edgewise(*words):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main(words)
        except SystemExit as done:
            return done.code, said.getvalue()

random = np.random.default_rng(0)
labels = np.arange(120) % 2
images = random.integers(0, 100, (120, 8, 8), dtype=np.uint8) + (150 * labels[:, None, None]).astype(np.uint8)
np.savez("pictures.npz", images=images, labels=labels)
weights = {{"w": random.standard_normal((8, 1, 3, 3), dtype=np.float32), "head": np.stack([-np.ones(8), np.ones(8)], 1).astype(np.float32)}}
nodes = [("Conv", ["image", "w"], ["c"], {{"pads": [1, 1, 1, 1]}}), ("Relu", ["c"], ["r"]), ("GlobalAveragePool", ["r"], ["p"]),
         ("Flatten", ["p"], ["f"]), ("MatMul", ["f", "head"], ["logits"])]
onnx.save(graphs.build(nodes, {{"image": ("batch", 1, 8, 8)}}, {{"logits": ("batch", 2)}}, weights), "net.onnx")

fit = ("--data", "pictures.npz", "--speedup", "1000", "--max-drop", "100%", "--threads", "1", "-o")
print(json.dumps([
    edgewise("fit", "net.onnx", *fit, "out"),
    edgewise("reproduce", "out/model.edgew", "net.onnx", "--data", "pictures.npz"),
    edgewise("fit", "net.pt2", *fit, "other"),
    edgewise("fit", "net.py:build", *fit, "other"),
    edgewise("reproduce", "out/model.edgew", "net.pt2", "--data", "pictures.npz"),
    (int(os.path.exists("other")), ""),
    edgewise("--help"),
]))
"""
    (tmp_path / "net.py").write_text("import torch\ndef build(): ...\n")
    line = "pip install 'edgewise[workshop]'"
    done, again, *refused, other, listing = json.loads(python(code, tmp_path))
    assert (done[0], again[0], other[0], listing[0]) == (3, 0, 0, 0), (done, again)
    assert "Budget missed" in done[1] and "same to the bit" in again[1]
    assert "needs torch" in (tmp_path / "out" / "report.html").read_text()
    for ended, said in refused:
        assert ended == 2 and said.strip().endswith(line), said
    assert f"(an .onnx as it is; other models: {line})" in listing[1]
