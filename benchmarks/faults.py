"""Robustness: mutated packages and updates, and a process killed at every write. Prints crashes, hangs, silent acceptances and mixtures: 0.

    python benchmarks/faults.py [--packages 20000] [--updates 2000] [--seed 0] [--keep DIR]
    python benchmarks/faults.py --minutes 120        # `make fuzz`: for as long, guided by coverage, without a record

Two of five mutants keep the hashes of what they were: each has to be refused. The others have every hash made right again, so that decoders
get to see them: each has to be refused or to be another valid package, under another content id; one that was signed has to be refused by
whoever trusts its key. A mutated update is refused and leaves the old file as it was, or gives the file whose hash it states. A case that
takes over 20 s is a hang; one that wants over 1 GiB, or raises anything but our own error, a crash. What failed is kept in DIR.

Guided: a mutant that reaches a line of edgewise.package or edgewise.coding that none reached before joins those that mutants are made of.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import ml_dtypes
import mutations
import numpy as np
from common import record
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from edgewise import coding, package
from edgewise.data.postprocess import Classify
from edgewise.data.preprocess import ImagePreprocess
from edgewise.errors import InvalidPackage
from edgewise.graph import Graph
from edgewise.package import Form, Limits, Package, Trust, rebuild, signing
from edgewise.testing import kills

SECONDS, MEMORY = 20, 1 << 30
LIMITS = Limits(file_bytes=1 << 26, model_bytes=1 << 26)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUST = Trust((signing.PublicKey("maker", KEY.public_key().public_bytes_raw()),))
REFUSED, OTHER, SILENT, CRASH, HANG = "refused", "another valid one", "silent", "crash", "hang"
_WATCHED = tuple(str(Path(module.__file__ or "").parent) for module in (package, coding))


@dataclass
class Corpus:
    """Whole files that mutants are made of. pairs: (old, new, update, the old one's skeleton)."""

    packages: list[bytes]
    pairs: list[tuple[bytes, bytes, bytes, bytes]]
    grown: list[tuple[str, bytes, int]] = field(default_factory=list)  # kind, mutant, the pair that it is of


def weights(moved: float) -> list[Any]:
    dice = np.random.default_rng(0)
    change = np.random.default_rng(1).random((12, 30)) < moved
    whole = [np.rint(dice.normal(0, 8, (12, 30))) + change for _ in range(4)]
    arrays = {
        "int8": whole[0].astype(np.int8),
        "int4": (whole[1] / 4).clip(-8, 7).astype(ml_dtypes.int4),
        "grid": whole[2].astype(np.float32) * np.float32(0.01 + moved),
        "shared": np.linspace(-1, 1, 16, dtype=np.float32)[whole[3].astype(int) % 16],
        "float": (dice.normal(0, 1, (12, 30)) * (1 + 1e-3 * moved * whole[0])).astype(np.float32),
        "sparse": np.where(dice.random((12, 30)) < 0.1, whole[0], 0).astype(np.float16),
    }
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def graph(tensors: list[Any]) -> Graph:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 4, 4]) for name in "xy")
    nodes = [helper.make_node("Add", ["x", "one"], ["y"])]
    made = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(np.float32(1), "one"), *tensors])
    return Graph.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def made(moved: float, coders: str, version: int) -> Package:
    tensors = weights(moved)
    return package.build(
        graph(tensors), created="2026-01-01T00:00:00Z", version=version, coders=coders, postprocess=Classify(("a", "b")),
        preprocess=ImagePreprocess((4, 4), 1, (0.5,), (0.5,)), forms={"lowered": Form(graph(tensors[:2]), "engine", "other")},
    )  # fmt: skip


def written(found: Package, path: Path) -> bytes:
    found.save(path)
    return path.read_bytes()


def corpus(folder: Path) -> Corpus:
    packages, pairs = [], []
    for coders in ("none", "fast", "all"):
        old, new = made(0, coders, 1), signing.sign(made(0.1, coders, 2), KEY)
        files = [written(each, folder / name) for each, name in ((old, "old"), (new, "new"))]
        for reencode in (True, False):
            given = package.diff(folder / "old", folder / "new", reencode=reencode).encode()
            pairs.append((files[0], files[1], given, rebuild.skeleton(old)[0]))
        packages += files
    # The minimal profile: other bytes, the same promises.
    small = package.build(graph(weights(0)[:2]), created="2026-01-01T00:00:00Z")
    small.save(folder / "small", profile="minimal")
    packages += [(folder / "small").read_bytes(), written(signing.sign(package.open(folder / "small"), KEY), folder / "signed")]
    return Corpus(packages, pairs)


class Cases:
    """Makes one mutant after the other, tries it, and says what came of it."""

    def __init__(self, seed: int, kind: str, guided: bool, folder: Path) -> None:
        self.dice = random.Random(f"{seed} {kind}")
        self.kind, self.guided, self.folder = kind, guided, folder
        self.corpus = corpus(folder)
        self.contents = dict(map(self._identified, self.corpus.packages))
        self.lines: set[tuple[str, int]] = set()
        self.mutant = b""

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self.package() if self.kind == "packages" else self.update()

    def package(self) -> str:
        forging = self._mutated_package()
        path = self.folder / "mutant.edgew"
        path.write_bytes(self.mutant)
        with self._watched("packages", 0):
            try:
                found = package.open(path, limits=LIMITS)
            except InvalidPackage:
                return REFUSED
            came = self._used(found)
        # Hashes that nobody made right, or a content id that means something else. (Another signature of the same comes below.)
        content = mutations.content(self.mutant)
        if not forging or self.contents.get(found.content_id, content) != content:
            return SILENT
        if found.signature_bytes:
            with contextlib.suppress(InvalidPackage):
                signing.require(found, TRUST)
                return SILENT
        return came

    def _identified(self, data: bytes) -> tuple[str, bytes]:
        path = self.folder / "whole.edgew"
        path.write_bytes(data)
        return package.open(path).content_id, mutations.content(data)

    def _mutated_package(self) -> bool:
        """Makes a mutant that isn't what it was made of. Returns whether its hashes were made right."""
        grown = [data for kind, data, _ in self.corpus.grown if kind == "packages"]
        while True:
            data = self.dice.choice(grown if grown and self.dice.random() < 0.5 else self.corpus.packages)
            forging = self.dice.random() < 0.6
            try:
                self.mutant = (mutations.package_forged if forging else mutations.blunt)(self.dice, data, self.corpus.packages)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
                continue  # one that grew may be no package any more that could be taken apart
            # (A mutant of a forged one is a forged one.)
            if self.mutant not in self.corpus.packages and self.mutant not in grown:
                return forging or data in grown

    def _used(self, found: Package) -> str:
        """All that anybody does with a package, short of running it."""
        uses: list[Callable[[], Any]] = [found.describe, lambda: found.preprocess, lambda: found.postprocess]
        for entry in found.manifest.entries:
            uses += [lambda name=entry.name: found.graph(name), lambda name=entry.name: found.model_bytes(name)]
        came = OTHER
        for use in uses:
            try:
                use()
            except InvalidPackage:
                came = REFUSED
        return came

    def update(self) -> str:
        chosen = self._mutated_update()
        old, _, whole, _ = self.corpus.pairs[chosen]
        device, given = (self.folder / name for name in ("device.edgew", "mutant.edgewd"))
        device.write_bytes(old)
        given.write_bytes(self.mutant)
        before = set(self.folder.iterdir())
        try:
            with self._watched("updates", chosen):
                package.patch(device, given, limits=LIMITS)
        except InvalidPackage:
            return REFUSED if device.read_bytes() == old and set(self.folder.iterdir()) == before else SILENT
        # Its own hash was made right, and it leads to the file that it states.
        own = hashlib.sha256(self.mutant[:96] + self.mutant[128:]).digest() == self.mutant[96:128]
        stated = hashlib.sha256(device.read_bytes()).digest() == self.mutant[64:96]
        return OTHER if own and stated and self.mutant[96:128] != whole[96:128] else SILENT

    def _mutated_update(self) -> int:
        """Makes a mutant that isn't what it was made of. Returns the number of the pair that it is of."""
        grown = [(data, pair) for kind, data, pair in self.corpus.grown if kind == "updates"]
        others = [pair[2] for pair in self.corpus.pairs]
        while True:
            chosen = self.dice.randrange(len(self.corpus.pairs))
            data = others[chosen]
            if grown and self.dice.random() < 0.5:
                data, chosen = self.dice.choice(grown)
            if self.dice.random() < 0.6:
                self.mutant = mutations.update_forged(self.dice, data, others, self.corpus.pairs[chosen][3])
            else:
                self.mutant = mutations.blunt(self.dice, data, others)
            if self.mutant != data and self.mutant not in others:
                return chosen

    @contextlib.contextmanager
    def _watched(self, kind: str, pair: int) -> Iterator[None]:
        if not self.guided:
            yield
            return
        known = len(self.lines)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            if len(self.lines) > known and len(self.corpus.grown) < 5000:
                self.corpus.grown.append((kind, self.mutant, pair))

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not any(watched in name for watched in _WATCHED):
            return None
        self.lines.add((name, frame.f_lineno))
        return self._trace


def work(pipe: Connection, seed: int, kind: str, guided: bool, count: int, folder: Path) -> None:
    """In a process of its own: `count` cases, each told before it is tried and after."""
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
    cases = Cases(seed, kind, guided, folder)
    turns = iter(cases)
    for _ in range(count):
        pipe.send("begins")
        try:
            came = next(turns)
        except BaseException as error:
            came = f"{CRASH}: {type(error).__name__}: {str(error)[:200]}"
            turns = iter(cases)
        pipe.send((came, len(cases.lines), cases.mutant if came.startswith((SILENT, CRASH)) else b""))
    pipe.send(None)


def _address_space() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def fuzzed(kind: str, count: int, seed: int, keep: Path, *, guided: bool = False, until: float = float("inf")) -> Counter[str]:
    """What came of `count` mutants. A process that dies or hangs costs its case, and another one goes on with other dice."""
    came: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    told = time.monotonic()
    while came.total() < count and time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(there, seed + came.total(), kind, guided, count - came.total(), Path(folder)))
            process.start()
            there.close()
            began = False
            while time.monotonic() < until:
                # The first answer takes as long as the imports.
                if not here.poll(SECONDS if began else 120):
                    came[HANG] += 1
                    _kept(keep, kind, HANG, folder)
                    break
                try:
                    said = here.recv()
                except EOFError:
                    came[CRASH] += 1
                    _kept(keep, kind, CRASH, folder)
                    break
                if said is None:
                    break
                if said == "begins":
                    began = True
                    continue
                what, lines, mutant = said
                came[what.partition(":")[0]] += 1
                if mutant:
                    print(f"{kind}: {what}", flush=True)
                    _kept(keep, kind, what.partition(":")[0], folder, mutant)
                if time.monotonic() > told + 30:
                    told = time.monotonic()
                    print(f"{kind}: {dict(came)}" + (f", {lines} lines reached" if guided else ""), flush=True)
            process.kill()
            process.join()
    return came


def _kept(keep: Path, kind: str, what: str, folder: str, mutant: bytes = b"") -> None:
    """Leave the mutant for whoever looks into it."""
    if not mutant:
        path = Path(folder) / ("mutant.edgew" if kind == "packages" else "mutant.edgewd")
        mutant = path.read_bytes() if path.exists() else b""
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{what}-{hashlib.sha256(mutant).hexdigest()[:12]}.{'edgew' if kind == 'packages' else 'edgewd'}"
    path.write_bytes(mutant)
    print(f"kept as {path}", flush=True)


def killed(folder: Path) -> dict[str, int]:
    """`patch` and `save` killed at everything that they do to files: how often, and how often neither of the two files was left."""
    kills_, mixtures = 0, 0
    for old, new, whole, _ in corpus(folder).pairs:
        device, given = folder / "device.edgew", folder / "update.edgewd"
        source = folder / "source.edgew"
        source.write_bytes(new)
        given.write_bytes(whole)
        for job, first, second in (("patch", device, given), ("save", source, device)):
            device.write_bytes(old)
            for _ in kills.everywhere(job, first, second):
                kills_ += 1
                mixtures += device.read_bytes() not in (old, new)
                device.write_bytes(old)
            mixtures += device.read_bytes() != new
    return {"kills": kills_, "mixtures": mixtures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=int, default=20_000)
    parser.add_argument("--updates", type=int, default=2_000)
    parser.add_argument("--minutes", type=float, help="go on for as long, guided by coverage, half on packages and half on updates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("out/faults"))
    given = parser.parse_args()
    if given.minutes is not None:
        worst = 0
        for number, kind in enumerate(("packages", "updates")):
            end = time.monotonic() + 30 * given.minutes
            came = fuzzed(kind, 10**12, given.seed + number, given.keep, guided=True, until=end)
            print(f"{kind}: {dict(came)}")
            worst += came[SILENT] + came[CRASH] + came[HANG]
        sys.exit(1 if worst else 0)
    result: dict[str, Any] = {"seed": given.seed}
    for kind, count in (("packages", given.packages), ("updates", given.updates)):
        came = fuzzed(kind, count, given.seed, given.keep)
        result[kind] = {"mutants": came.total(), **{name: came[name] for name in (REFUSED, OTHER, CRASH, HANG, SILENT)}}
    with tempfile.TemporaryDirectory() as folder:
        result["writes"] = killed(Path(folder))
    for kind in ("packages", "updates"):
        row = result[kind]
        print(f"{row['mutants']:,} mutated {kind}: " + ", ".join(f"{row[name]:,} {name}" for name in (REFUSED, OTHER, CRASH, HANG, SILENT)))
    print(f"{result['writes']['kills']} kills at a write: {result['writes']['mixtures']} mixtures")
    bar = "20,000 mutated packages, 2,000 mutated updates, kill at every write: 0 crashes, 0 hangs, 0 silent acceptances, 0 mixtures"
    record("faults", {"bar": bar, **result})


if __name__ == "__main__":
    main()
