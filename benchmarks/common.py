"""What the benchmark scripts share: where data is, and results as small JSON files that name the commit that made them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgewise import backends, devices, measure
from edgewise.graph import Graph
from edgewise.measure import Subject
from edgewise.records import Interval, Latency, Quality, Study
from edgewise.search.store import write
from edgewise.types import Execution, Inputs, to_json

HERE = Path(__file__).parent
RESULTS = HERE / "results"

# Where Debian's package dataset-fashion-mnist puts the four files; the SHA-256 of what each holds (unpacked: Debian packs them anew).
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def fashion() -> Path:
    """The folder with Fashion-MNIST's four IDX files: EDGEWISE_DATA/fashion-mnist, Debian's package, or fetched from the publisher.

    Files are held against the checksums of the published ones.
    """
    own = Path(os.environ.get("EDGEWISE_DATA", "data")) / "fashion-mnist"
    folder = next((place for place in (own, FASHION_DEBIAN) if all((place / name).is_file() for name in FASHION_SHA256)), None)
    if folder is None:  # nor all of it, where a fetch broke off
        folder = own
        folder.mkdir(parents=True, exist_ok=True)
        for name in FASHION_SHA256:
            print(f"fetching {name}", file=sys.stderr)
            urllib.request.urlretrieve(f"{FASHION_URL}/{name}", folder / name)
    for name, wanted in FASHION_SHA256.items():
        found = hashlib.sha256(gzip.decompress((folder / name).read_bytes())).hexdigest()
        if found != wanted:
            raise SystemExit(f"{folder / name}: SHA-256 {found}, expected {wanted}; delete it and fetch it again")
    return folder


def mnist() -> Path:
    """The folder with MNIST's four IDX files, EDGEWISE_DATA/mnist; each is held against its number of samples when it is read."""
    return own("mnist", "MNIST's four IDX files")


def own(name: str, files: str) -> Path:
    """A folder of data that nobody fetches: EDGEWISE_DATA/name. files: what is to lie there."""
    folder = Path(os.environ.get("EDGEWISE_DATA", "data")) / name
    if not folder.is_dir():
        raise SystemExit(f"{folder} doesn't exist; put {files} there, or let EDGEWISE_DATA name the folder that holds {name}/")
    return folder


def commit() -> str:
    """The commit of the working tree, with "+changes" when it isn't clean (results apart)."""
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True)
    status = ["git", "status", "--porcelain", "--", "..", ":!results"]
    changed = subprocess.run(status, cwd=HERE, capture_output=True, text=True, check=True)
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def record(name: str, result: dict[str, Any]) -> None:
    """Keep `result` as results/NAME.json, with the commit, the day and the device; and print it."""
    device = devices.local()
    told = {"cpu": device.cpu, "cores": device.cores, "isa": list(device.isa), "engines": dict(device.backends)}
    whole = {"benchmark": name, "commit": commit(), "date": datetime.now(UTC).date().isoformat(), "device": told, **result}
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(whole, indent=1).encode() + b"\n")
    print(f"\nkept as benchmarks/results/{name}.json")


def keep_study(study: Study, folder: Path) -> None:
    """The study without what is one number per sample (scores, single latencies): small enough to commit, enough for every plot.

    Where the data lay is nobody else's business.
    """

    def thin(value: Any) -> Any:
        if isinstance(value, Quality):
            return replace(value, scores=())
        if isinstance(value, Latency):
            return Latency(tuple(float(np.percentile(value.samples_ms, q)) for q in range(101)))
        if isinstance(value, tuple):
            return tuple(thin(each) for each in value)
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{part.name: thin(getattr(value, part.name)) for part in fields(value)})
        return value

    folder.mkdir(parents=True, exist_ok=True)
    text, here = to_json(thin(study)), os.environ.get("EDGEWISE_DATA", "data")
    for place in {here, str(Path(here).resolve())}:
        text = text.replace(f'"{place}/'.encode(), b'"$EDGEWISE_DATA/')
    write(folder / "study.json", text)


def told(interval: Interval, scale: float = 1.0, digits: int = 3) -> dict[str, float]:
    """An interval for a result file."""
    value, low, high = (round(scale * part, digits) for part in (interval.value, interval.low, interval.high))
    return {"value": value, "low": low, "high": high, "n": interval.n}


def fastest(graph: Graph, inputs: Inputs) -> Subject:
    """The graph on the engine where it is fastest in true fp32, on one thread."""
    subjects = [Subject(graph.to_bytes(), Execution(name)) for name in backends.taking()]
    raced = measure.race(subjects, inputs, devices.local())
    return max(raced, key=lambda one: one.ratio.value if one.ratio else 0.0).subject


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size` (as mount's tmpfs has it: "640k") at `folder`. Needs root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
