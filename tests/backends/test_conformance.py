"""Every registered engine that is installed keeps the contract."""

from pathlib import Path

import pytest

from edgewise import backends, tflite
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.testing import BackendConformance
from edgewise.types import Backend

FORMS = Path(__file__).with_name("forms")


@pytest.mark.parametrize("backend", [backends.get(name) for name in backends.taking()], ids=lambda backend: backend.name, indirect=True)
class TestInstalled(BackendConformance):
    @pytest.fixture
    def backend(self, request: pytest.FixtureRequest) -> Backend:
        return request.param


@pytest.mark.skipif(not backends.taking("tflite"), reason="no engine that loads LiteRT's form is installed")
class TestLiteRt(BackendConformance):
    """On the forms that make_forms.py made of the same graphs, found by the hash on their cards."""

    @pytest.fixture
    def backend(self) -> Backend:
        return backends.get(backends.taking("tflite")[0])

    def form(self, model: bytes) -> bytes:
        try:
            sha256 = Graph.from_bytes(model).sha256
        except InvalidInput:
            return model  # a broken one, which the engine has to refuse itself
        made = [path.read_bytes() for path in sorted(FORMS.glob("*.tflite"))]
        return next((form for form in made if (card := tflite.interface(form).card) and card.graph == sha256), model)
