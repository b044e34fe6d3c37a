"""What an engine loads of a graph: ONNX, or a form of its own that a maker makes (`registry`, "form")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edgewise import backends, registry
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.types import Execution, Inputs


class FormMaker(Protocol):
    """Makes one kind of form. Implementations are named in the registry after the form's name."""

    def obstacle(self) -> str:
        """Why none can be made here, and what to do; "" where they can."""
        ...

    def make(self, graph: Graph, samples: Sequence[Inputs], execution: Execution, sizes: Mapping[str, int] | None) -> bytes:
        """The form of `graph` for `execution`'s engine, held against the graph on `samples`; sizes: what named axes are in it."""
        ...


def obstacle(engine: str) -> str:
    """Why the form that `engine` loads can't be made here; "" where it can, or is the graph itself."""
    maker = _maker(engine)
    return "" if maker is None else maker.obstacle()


def model_for(graph: Graph, samples: Sequence[Inputs], execution: Execution, sizes: Mapping[str, int] | None = None) -> bytes:
    """What `execution`'s engine loads of `graph`. Raises what a maker raises; making one takes seconds to minutes, so keep it."""
    maker = _maker(execution.backend)
    return graph.to_bytes() if maker is None else maker.make(graph, samples, execution, sizes)


def _maker(engine: str) -> FormMaker | None:
    name = backends.form(engine)
    if name == backends.ONNX:
        return None
    if name not in registry.names("form") and ":" not in name:
        raise InvalidInput(f"{engine} loads the form {name!r}, which nothing here makes; known are {', '.join(registry.names('form'))}")
    made: FormMaker = registry.load("form", name)()
    return made
