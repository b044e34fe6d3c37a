"""Every registered engine that is installed keeps the contract."""

import pytest

from edgewise import backends
from edgewise.testing import BackendConformance
from edgewise.types import Backend


@pytest.mark.parametrize("backend", list(backends.installed().values()), ids=lambda backend: backend.name, indirect=True)
class TestInstalled(BackendConformance):
    @pytest.fixture
    def backend(self, request: pytest.FixtureRequest) -> Backend:
        return request.param
