"""What the page shows, as JSON: of the repository, of the last minute, and since each model was first loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from edgewise import __version__
from edgewise.host import Host, Statistics, Status
from edgewise.serve.vitals import Recent, Vitals

# A model is what its best version is.
_ORDER = ("ready", "loading", "unloading", "absent", "failed")


class Memory(NamedTuple):
    """used_bytes: of models that are loaded, above the idle server. cap_bytes: the most that they may take; 0 without a cap."""

    used_bytes: int
    cap_bytes: int = 0


def figures(host: Host, vitals: Vitals, memory: Memory | None = None) -> bytes:
    """JSON for the page. memory: None where nobody measures it.

    {"server", "memory", "recent", "rates", "p99s_ms", "models": [{"name", "state", "recent", "rates", "versions": [{"version", "state",
    "reason", "recent", "total"}]}]}: "recent" of the last minute (`vitals.Recent`), "rates" and "p99s_ms" of each of its seconds, "total"
    since the version was first loaded, None where it never was.
    """
    statistics = host.statistics()
    by_model: dict[str, list[Status]] = {}
    for status in host.index():
        by_model.setdefault(status.name, []).append(status)
    told = {
        "server": {"name": "edgewise", "version": __version__},
        "memory": memory._asdict() if memory else None,
        "recent": _recent(vitals.recent()),
        "rates": vitals.rates(),
        "p99s_ms": vitals.p99s_ms(),
        "models": [_model(name, by_model[name], statistics, vitals) for name in sorted(by_model)],
    }
    return msgspec.json.encode(told)


def _model(name: str, versions: Iterable[Status], statistics: Mapping[tuple[str, str], Statistics], vitals: Vitals) -> dict[str, Any]:
    shown = sorted(versions, key=lambda status: (not status.version.isdigit(), len(status.version), status.version))
    states = {status.state for status in shown}
    return {
        "name": name,
        "state": next(state for state in _ORDER if state in states),
        "recent": _recent(vitals.recent(name)),
        "rates": vitals.rates(name),
        "versions": [
            {
                "version": status.version,
                "state": status.state,
                "reason": status.reason,
                "recent": _recent(vitals.recent(name, status.version)),
                "total": _total(statistics.get((name, status.version))),
            }
            for status in shown
        ],
    }


def _recent(recent: Recent) -> dict[str, Any]:
    return {**msgspec.to_builtins(recent, str_keys=True), "mean_rows": recent.mean_rows}


def _total(statistics: Statistics | None) -> dict[str, Any] | None:
    return None if statistics is None else msgspec.to_builtins(statistics, str_keys=True)
