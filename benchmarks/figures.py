"""Draw the figures of README and benchmarks from stored records: `python benchmarks/figures.py`.

Reads every study.json below benchmarks/results. Each becomes a pareto.svg beside it, which follows the reader's light or dark; README's
is drawn as docs/pareto-light.svg and docs/pareto-dark.svg too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgewise.records import Study
from edgewise.report import pareto_svg
from edgewise.types import from_json

ROOT = Path(__file__).parents[1]


def draw(results: Path, docs: Path, shown: str) -> list[Path]:
    """The files written."""
    records = {path.parent.relative_to(results).as_posix(): path for path in sorted(results.rglob("study.json"))}
    if shown not in records:
        raise SystemExit(
            f"{results} has no study {shown!r}; it has {', '.join(records) or 'none'}. Run its benchmark first, or name one with --shown"
        )
    written = []
    for name, path in records.items():
        study = from_json(path.read_bytes(), Study)
        drawings = {path.with_name("pareto.svg"): pareto_svg(study)}
        if name == shown:
            drawings |= {docs / f"pareto-{mode}.svg": pareto_svg(study, dark=mode == "dark") for mode in ("light", "dark")}
        for file, drawing in drawings.items():
            file.write_text(drawing)
            written.append(file)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the figures of README and benchmarks from stored records.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of studies")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where README's figures go")
    parser.add_argument("--shown", default="fashion-family/6x", help="the study that README shows")
    arguments = parser.parse_args()
    for path in draw(arguments.results, arguments.docs, arguments.shown):
        print(path)


if __name__ == "__main__":
    main()
