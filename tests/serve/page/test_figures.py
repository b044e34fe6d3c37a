"""The page's JSON."""

from __future__ import annotations

import json

from edgewise.host import Status
from edgewise.serve.page import Memory, figures
from edgewise.serve.vitals import Vitals
from edgewise.testing.hosts import FakeHost, identity


class Host(FakeHost):
    extra: tuple[Status, ...] = ()

    def index(self) -> list[Status]:
        return [*super().index(), *self.extra]


def test_models_with_their_versions_in_order() -> None:
    host = Host({"net": identity(versions=("1", "2", "10")), "away": identity(loaded=False)})
    host.extra = (Status("net", "9", "failed", "torn"), Status("torn", "1", "failed", "torn"), Status("new", "1", "loading"))
    now = 100.0
    vitals = Vitals(lambda: now)
    vitals.finished("net", "2", "success", 0.01, rows=4)
    vitals.finished("net", "", "refused", 0.0)
    told = json.loads(figures(host, vitals, Memory(5, 10)))
    assert told["memory"] == {"used_bytes": 5, "cap_bytes": 10}
    assert {model["name"]: model["state"] for model in told["models"]} == {
        "away": "absent",
        "net": "ready",
        "new": "loading",
        "torn": "failed",
    }
    net = told["models"][1]
    assert [each["version"] for each in net["versions"]] == ["1", "2", "9", "10"]
    assert net["recent"]["requests"] == 2 and net["recent"]["rows"] == {"4": 1} and len(net["rates"]) == len(told["p99s_ms"]) == 60
    assert net["versions"][1]["recent"]["requests"] == 1
    assert net["versions"][2] | {"recent": 0} == {"version": "9", "state": "failed", "reason": "torn", "recent": 0, "total": None}
    assert net["versions"][0]["total"]["success"] == {"count": 0, "seconds": 0.0}


def test_nothing_at_all() -> None:
    told = json.loads(figures(FakeHost({}), Vitals()))
    assert told["models"] == [] and told["memory"] is None and told["recent"]["p50_ms"] is None
