"""What the rung of pruning asks of training."""

import pytest

from edgewise import devices
from edgewise.search import pruning


@pytest.mark.parametrize(("sets", "said"), [(("avx512f", "amx_bf16"), ", precision='bf16'"), (("avx2",), ""), (("asimd", "bf16"), "")])
def test_training_is_in_bf16_where_the_cpu_multiplies_it(monkeypatch, sets, said):
    monkeypatch.setattr(devices, "isa", lambda: sets)
    assert pruning._training_precision() == said
