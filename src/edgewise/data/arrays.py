"""Pictures that come as arrays: IDX files, .npz, and the user's own function."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise import registry
from edgewise.data.idx import read_idx
from edgewise.data.pictures import ArrayPictures
from edgewise.data.source import SPLIT_NAMES, Source
from edgewise.errors import InvalidData

_IDX = re.compile(r"^(?P<split>[a-z0-9]+)-(?P<what>images|labels)[-.]idx[13]-ubyte(\.gz)?$", re.IGNORECASE)
_IMAGES = ("images", "image", "x", "data", "pictures")
_LABELS = ("labels", "label", "y", "targets", "target")


def own(spec: str, labels: tuple[str, ...] = ()) -> Source:
    """The user's own function, as "module:function". It takes nothing and returns arrays: pictures uint8 (n, height, width[, 1 or 3])
    and labels (n,), as a pair, or under the names that an .npz may have; labels are left out where there are none.

        # shapes.py
        import numpy as np

        def squares():
            rng = np.random.default_rng(0)
            labels = rng.integers(0, 2, size=400)
            images = rng.integers(0, 60, size=(400, 16, 16), dtype=np.uint8)
            images[labels == 1, 4:12, 4:12] += 150
            return {"images": images, "labels": labels, "names": ["empty", "square"]}

        # edgewise fit model.onnx --data shapes:squares
    """
    made = registry.load("task", spec)
    if not callable(made):
        raise InvalidData(f"{spec} is a {type(made).__name__}; give a function without arguments that returns (images, labels)")
    result = made()
    if isinstance(result, Source):
        return result
    if isinstance(result, tuple) and len(result) == 2:
        result = {"images": result[0], "labels": result[1]}
    if not isinstance(result, Mapping):
        raise InvalidData(f"{spec} returned a {type(result).__name__}; expected (images, labels), or a dict of x_train, y_train …")
    return from_arrays(spec, result, labels)


def npz(path: Path, labels: tuple[str, ...] = ()) -> Source:
    """The arrays of an .npz file; see `from_arrays` for their names. Raises InvalidData for a damaged one, and for pickled objects."""
    try:
        # np.load leaves a damaged file open, so the file is ours.
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("it is no zip archive, or is cut off")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                members = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise InvalidData(f"{path}: no .npz that we can read ({error}); write it with np.savez_compressed") from error
    return from_arrays(str(path), members, labels)


def idx_files(root: Path) -> dict[tuple[str, str], Path]:
    """IDX files in `root`: (split, "images" or "labels") -> path; a plain file wins over its .gz."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(root.iterdir(), reverse=True):
        match = _IDX.match(path.name)
        if match and match["split"].lower() in SPLIT_NAMES:
            found[SPLIT_NAMES[match["split"].lower()], match["what"].lower()] = path
    return found


def idx(root: Path, labels: tuple[str, ...] = ()) -> Source:
    """The IDX files in `root`: train-images-idx3-ubyte[.gz] and its labels, and t10k-… as the test split when it is there."""
    files = idx_files(root)
    if ("train", "images") not in files:
        raise InvalidData(f"{root}: IDX files, but no train-images-idx3-ubyte[.gz]; the training images are needed")
    members = {f"{split}_{what}": read_idx(path) for (split, what), path in sorted(files.items())}
    return from_arrays(str(root), members, labels)


def from_arrays(name: str, members: Mapping[str, Any], labels: tuple[str, ...] = ()) -> Source:
    """A Source of named arrays: `images` and `labels` (or x, y …), alone or for each split (x_train, test_images …).

    images: (n, height, width) or (n, height, width, 1 or 3), uint8. labels: (n,) or (n, 1), integers.
    `names` (or class_names): of the classes.
    Raises InvalidData for another shape or dtype, for counts that differ, and for a split without its labels where others have some.
    """
    pixels: dict[str, np.ndarray] = {}
    targets: dict[str, np.ndarray] = {}
    unknown = []
    for key, value in members.items():
        if key in ("names", "class_names", "label_names"):
            labels = labels or tuple(str(each) for each in value)
            continue
        split, what = _role(key)
        if what == "images":
            pixels[split] = _images(f"{name}: {key}", value)
        elif what == "labels":
            targets[split] = _targets(f"{name}: {key}", value)
        else:
            unknown.append(key)
    if not pixels:
        raise InvalidData(f"{name} holds {', '.join(members) or 'nothing'}; expected images, labels or x_train, y_train …")
    if "" in pixels and len(pixels) > 1:
        raise InvalidData(f"{name}: images both with and without a split's name; say of each which split it is (x_train, x_test …)")
    for split, images in pixels.items():
        if targets and len(images) != len(targets.get(split, ())):
            raise InvalidData(f"{name}: {len(images)} {split} images and {len(targets.get(split, ()))} labels; they must be as many")
    if set(targets) - set(pixels):
        raise InvalidData(f"{name}: labels without images for {', '.join(sorted(set(targets) - set(pixels)))}; give both")
    if len({images.shape[1:] for images in pixels.values()}) > 1:
        raise InvalidData(f"{name}: splits of different shapes {sorted({i.shape[1:] for i in pixels.values()})}; they must be the same")

    order = sorted(pixels, key=("", "train", "validation", "test").index)
    joined = pixels[order[0]] if len(order) == 1 else np.concatenate([pixels[split] for split in order])
    given = np.repeat(np.array(order, dtype="U10"), [len(pixels[split]) for split in order])
    findings = (f"arrays of unknown meaning ({', '.join(unknown)}): left out",) if unknown else ()
    if not targets:
        return Source(name, ArrayPictures(joined), None, (), given, findings)
    known = np.concatenate([targets[split] for split in order])
    return Source(name, ArrayPictures(joined), known, _names(name, known, labels), given, findings)


def _role(key: str) -> tuple[str, str]:
    """A member's split and meaning: "x_train" -> ("train", "images"); ("", "") when it has none that we know."""
    words = key.lower().replace("-", "_").split("_")
    split = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    rest = [word for word in words if word not in SPLIT_NAMES]
    if len(split) > 1 or len(rest) != 1:
        return "", ""
    what = "images" if rest[0] in _IMAGES else "labels" if rest[0] in _LABELS else ""
    return (split[0] if split else ""), what


def _images(what: str, value: Any) -> np.ndarray:
    images = np.asarray(value)
    if images.dtype != np.uint8:
        raise InvalidData(f"{what} is {images.dtype}; expected uint8, 0 to 255 (of floats in 0..1: (images * 255).round().astype('uint8'))")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        raise InvalidData(f"{what} has channels first {images.shape}; expected (n, height, width, channels): images.transpose(0, 2, 3, 1)")
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise InvalidData(f"{what} has shape {images.shape}; expected (n, height, width) or (n, height, width, 1 or 3), n at least 1")
    return images


def _targets(what: str, value: Any) -> np.ndarray:
    targets = np.asarray(value)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise InvalidData(f"{what} is {targets.dtype} {targets.shape}; expected integers of shape (n,), the class of each image")
    return targets.astype(np.int64)


def _names(name: str, targets: np.ndarray, labels: tuple[str, ...]) -> tuple[str, ...]:
    low, high = int(targets.min()), int(targets.max())
    count = len(labels) or high + 1
    if low < 0 or high >= count:
        raise InvalidData(f"{name}: labels run from {low} to {high}; expected 0 to {count - 1}, as there are {count} classes")
    if count > max(1000, len(targets)):
        raise InvalidData(f"{name}: labels run to {high} over {len(targets)} images; number the classes 0, 1, 2 … without holes")
    return labels or tuple(str(i) for i in range(count))
