"""What a package says of its rows: by which samples that is found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgewise import measure
from edgewise.graph import Graph
from edgewise.search.packing import ROWS, rows_of
from edgewise.tasks import bound, text_classification
from edgewise.testing import texts
from edgewise.types import Execution, Inputs

pytest.importorskip("tokenizers", reason="tokenizers isn't installed: pip install 'edgewise[text]'")


def test_texts_of_all_lengths_are_asked_whether_they_may_share_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A split is sorted by length: its first rows are short and need hardly any padding."""
    sentences, labels = texts.sentences(200, words=(3, 40))
    rows = [f"{text}\t{label}" for text, label in zip(sentences, labels, strict=True)]
    (tmp_path / "reviews.tsv").write_text("\n".join(["text\tlabel", *rows]))
    graph = Graph.from_proto(texts.model())
    task = bound(text_classification(tmp_path / "reviews.tsv", tokenizer=texts.tokenizer(), validation=0.3), graph.signature)
    asked: list[Inputs] = []

    def found(graph: Graph, execution: Execution, inputs: Inputs, **_: Any) -> Any:
        asked.append(inputs)
        return SimpleNamespace(verdict="independent")

    monkeypatch.setattr(measure, "rows", found)
    trial = cast(Any, SimpleNamespace(execution=Execution("onnxruntime"), divergence=None))
    assert rows_of(graph, task, trial) == "independent"
    held = asked[0]["attention_mask"].sum(axis=1)
    every = task.split("validation").rows.lengths
    assert len(held) == ROWS and (held.min(), held.max()) == (every.min(), every.max())
