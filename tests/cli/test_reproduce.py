"""`edgewise reproduce`: what is kept of the old package. The whole of it runs in test_fit.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise import package
from edgewise.cli.reproduce import repacked
from edgewise.graph import Graph
from edgewise.testing import graphs
from edgewise.types import Execution

FORM = (Path(__file__).parents[1] / "backends" / "forms" / "float-mlp.tflite").read_bytes()


@pytest.mark.parametrize("identical", [True, False])
def test_forms_and_what_is_known_of_rows_go_with_the_model(identical: bool) -> None:
    graph = Graph.from_proto(graphs.mlp()[0])
    old = package.build(
        graph,
        created="",
        execution=Execution("litert", threads=2),
        provenance=package.Provenance(model="mlp"),
        files={"words.txt": b"one\n"},
        rows="independent",
        forms={"litert": package.OwnForm(FORM, "litert")},
    )
    new = repacked(old, graph, identical)
    assert new.files == old.files
    if identical:
        assert new.content_id == old.content_id and new.model_bytes("litert") == FORM
    else:
        assert (new.rows, new.forms("litert")) == (None, ())
        assert new.execution == Execution("onnxruntime", threads=2)
