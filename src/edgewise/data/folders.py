"""Pictures as files: a folder per class, with or without train/, validation/ and test/ above, or a flat folder without labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from edgewise.data.picture import SUFFIXES
from edgewise.data.pictures import FilePictures
from edgewise.data.source import SPLIT_NAMES, Source
from edgewise.errors import InvalidData


def folder(root: Path, labels: tuple[str, ...] = ()) -> Source:
    """The pictures under `root`, decoded only when they are taken. Raises InvalidData when the layout says two things at once."""
    children = _folders(root)
    if children and any(c.name.lower() == "train" for c in children) and all(c.name.lower() in SPLIT_NAMES for c in children):
        parts = [(SPLIT_NAMES[c.name.lower()], c) for c in children]
        if len({name for name, _ in parts}) < len(parts):
            raise InvalidData(f"{root}: two folders stand for one split ({', '.join(c.name for c in children)}); keep one of each")
    else:
        parts = [("", root)]

    found: list[tuple[str, str, Path]] = []  # split, class, file
    others: Counter[str] = Counter()
    flat: list[bool] = []
    empty: list[str] = []
    for split, top in parts:
        classes = _folders(top)
        loose = _pictures(top, others, deep=False)
        if classes and loose:
            raise InvalidData(
                f"{top}: pictures ({loose[0].name}, …) beside folders ({classes[0].name}, …); put all into classes, or all into one folder"
            )
        flat.append(not classes)
        found += [(split, "", file) for file in loose]
        for each in classes:
            files = _pictures(each, others, deep=True)
            found += [(split, each.name, file) for file in files]
            if not files:
                empty.append(str(each.relative_to(root)))
    if len(set(flat)) > 1:
        raise InvalidData(f"{root}: some splits have class folders and some don't; give all of them class folders, or none")
    if not found:
        raise InvalidData(f"{root}: no pictures ({', '.join(sorted(SUFFIXES))}), no IDX files and no .npz; check the path")

    findings = []
    if others:
        kinds = ", ".join(f"{count} × {suffix or 'no ending'}" for suffix, count in others.most_common(5))
        findings.append(f"{sum(others.values())} files are no pictures by their ending ({kinds}): left out")
    pictures = FilePictures(root, tuple(str(file.relative_to(root)) for _, _, file in found))
    given = np.array([split for split, _, _ in found])
    if all(flat):
        if labels:
            raise InvalidData(f"{root}: labels were given, but the pictures lie in no class folders; make a folder for each label")
        return Source(str(root), pictures, None, (), given, tuple(findings))
    if empty:
        raise InvalidData(f"{root}: no picture in class folder {', '.join(empty[:5])}; add some, or remove the folder")
    names = _order({name for _, name, _ in found}, labels, root)
    index = {name: i for i, name in enumerate(names)}
    targets = np.array([index[name] for _, name, _ in found], dtype=np.int64)
    return Source(str(root), pictures, targets, names, given, tuple(findings))


def _order(found: set[str], labels: tuple[str, ...], root: Path) -> tuple[str, ...]:
    if not labels:
        return tuple(sorted(found))
    if len(set(labels)) != len(labels):
        raise InvalidData(f"labels hold {Counter(labels).most_common(1)[0][0]!r} twice or more; give each class once, in the model's order")
    if found - set(labels):
        raise InvalidData(f"{root}: class folders {sorted(found - set(labels))[:5]} aren't among the {len(labels)} labels; they must match")
    if set(labels) - found:
        raise InvalidData(f"{root}: no class folder for the labels {sorted(set(labels) - found)[:5]}; they must be the same")
    return labels


def _folders(where: Path) -> list[Path]:
    return sorted(child for child in where.iterdir() if child.is_dir() and not child.name.startswith("."))


def _pictures(where: Path, others: Counter[str], *, deep: bool) -> list[Path]:
    """Picture files by their ending, sorted; what has another ending is counted in `others`. Hidden files are nobody's data."""
    files = sorted(f for f in (where.rglob("*") if deep else where.iterdir()) if f.is_file() and not f.name.startswith("."))
    others.update(f.suffix.lower() for f in files if f.suffix.lower() not in SUFFIXES)
    return [f for f in files if f.suffix.lower() in SUFFIXES]
