import os

import pytest

from edgewise import devices
from edgewise.records import Device

FAULTY = """
import os, sys, time
import numpy as np
from edgewise.backends import signature
from edgewise.errors import InvalidModel

class Runner:
    def __init__(self, options, signature):
        self.options, self.signature, self.calls = options, signature, 0
    def run(self, inputs):
        self.calls += 1
        print("an engine that prints")
        when = int(self.options.get("after", "0"))
        if self.calls > when and "hang" in self.options:
            time.sleep(600)
        if self.calls > when and "die" in self.options:
            print("the engine's last words", file=sys.stderr, flush=True)
            os._exit(7)
        if self.calls > when and "raise" in self.options:
            raise RuntimeError("a bug in the engine")
        memory = np.ones(int(self.options.get("megabytes", "0")) << 17)
        time.sleep(float(self.options.get("ms", "0")) / 1e3)
        return {"y": inputs["x"]}
    def close(self):
        pass

class Faulty:
    name = "faulty"
    def version(self):
        return "1.0"
    def precisions(self):
        return ("fp32",)
    def load(self, model, execution):
        if "refuse" in execution.options:
            raise InvalidModel("faulty can't load the model: refused")
        return Runner(execution.options, signature.read(model))
"""


@pytest.fixture(scope="session")
def device() -> Device:
    return devices.local()


@pytest.fixture
def faulty(tmp_path, monkeypatch) -> str:
    """The name of a backend that hangs, dies, raises, sleeps or fills memory, as its options say; measuring processes can import it."""
    (tmp_path / "faulty_engine.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return "faulty_engine:Faulty"


@pytest.fixture(autouse=True)
def no_orphans():
    """Every test leaves this process without children."""
    yield
    import psutil

    assert psutil.Process().children(recursive=True) == []
