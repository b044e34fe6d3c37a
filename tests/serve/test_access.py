"""Keys, scopes, rates: who gets in, on a clock that only moves when it is told to."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from edgewise.errors import InvalidInput
from edgewise.serve import keys
from edgewise.serve.access import Gate, bearer
from edgewise.serve.limits import Bucket, Limits, Loads
from edgewise.serve.problems import Forbidden, TooMany, Unauthorized
from edgewise.testing import FakeClock


def test_a_key_lets_in_for_its_scopes_alone() -> None:
    one, other = keys.new_key(), keys.new_key()
    gate = Gate(keys.parse(keys.entry("camera", one) + keys.entry("me", other, ("infer", "admin"))))
    assert gate.client(one, "a", "infer").name == "camera"
    assert gate.client(other, "a", "admin").name == "me"
    with pytest.raises(Forbidden, match="admin"):
        gate.client(one, "a", "admin")
    for wrong in (None, "", "password", keys.new_key(), one + "x", keys.hashed(one)):
        with pytest.raises(Unauthorized):
            gate.client(wrong, "a", "infer")


def test_the_file_holds_no_key() -> None:
    key = keys.new_key()
    assert key not in keys.entry("camera", key) and key[3:] not in keys.entry("camera", key)


def test_keys_change_without_a_restart_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "keys.toml"
    old, new = keys.new_key(), keys.new_key()
    path.write_text(keys.entry("camera", old))
    file = keys.KeyFile(path, said.append)
    gate = Gate(file)
    assert not file.poll()
    path.write_text(keys.entry("camera", new) + "# rotated\n")
    assert file.poll() and gate.client(new, "", "infer")
    with pytest.raises(Unauthorized):
        gate.client(old, "", "infer")
    path.write_text("[camera\n")
    assert not file.poll() and gate.client(new, "", "infer") and "not changed" in said[-1]
    path.unlink()
    assert not file.poll() and gate.client(new, "", "infer")
    path.write_text(keys.entry("camera", old))
    os.utime(path, (1, 1))  # a clock that went back
    assert file.poll() and gate.client(old, "", "infer")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[a]\nhash = 'secret'",
        "[a]\nscopes = ['infer']",
        f"[a]\nhash = '{keys.hashed('x')}'\nscopes = ['root']",
        f"[a]\nhash = '{keys.hashed('x')}'\nscope = ['infer']",
        f"[a]\nhash = '{keys.hashed('x')}'\nconcurrent = 0",
        f"[a]\nhash = '{keys.hashed('x')}'\nrequests_per_s = nan",
        f"[a]\nhash = '{keys.hashed('x')}'\n[b]\nhash = '{keys.hashed('x')}'",
    ],
)
def test_a_file_that_is_not_wholly_understood_lets_nobody_in(text: str) -> None:
    with pytest.raises(InvalidInput):
        keys.parse(text)


def test_a_file_without_keys_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("")
    with pytest.raises(InvalidInput, match="--new-key"):
        keys.KeyFile(tmp_path / "keys.toml", print)


@given(st.floats(0.5, 100), st.integers(1, 20), st.lists(st.floats(0, 3), max_size=60))
def test_a_bucket_gives_no_more_than_its_rate(rate: float, burst: int, waits: list[float]) -> None:
    bucket, now, taken = Bucket(rate, burst, 0.0), 0.0, 0
    for wait in waits:
        now += wait
        left = bucket.take(now)
        taken += left == 0
        assert taken <= burst + rate * now + 1e-6
        if left:
            assert left <= 1 / rate + 1e-9


def test_a_client_that_waits_as_told_gets_in() -> None:
    clock = FakeClock()
    gate = Gate(None, Limits(requests_per_s=2, burst=1), clock)
    client = gate.client(None, "10.0.0.1", "infer")
    gate.enter(client)
    with pytest.raises(TooMany) as told:
        gate.enter(client)
    gate.enter(gate.client(None, "10.0.0.2", "infer"))  # another's rate is another's
    clock.sleep(told.value.retry_after_s)
    gate.enter(client)


def test_what_is_in_flight_is_bounded_and_given_back() -> None:
    gate = Gate(None, Limits(concurrent=2), FakeClock())
    client = gate.client(None, "a", "infer")
    gate.enter(client)
    gate.enter(client)
    with pytest.raises(TooMany):
        gate.enter(client)
    gate.leave(client)
    gate.enter(client)


def test_a_key_has_limits_of_its_own() -> None:
    key = keys.new_key()
    gate = Gate(keys.parse(keys.entry("slow", key) + "requests_per_s = 1\nburst = 1\n"), Limits(), FakeClock())
    client = gate.client(key, "a", "infer")
    gate.enter(client)
    with pytest.raises(TooMany):
        gate.enter(client)


def test_idle_clients_are_forgotten() -> None:
    loads = Loads(most=10)
    limits = Limits(requests_per_s=1)
    for number in range(100):
        loads.enter(str(number), limits, 0.0)
        loads.leave(str(number))
    assert len(loads._loads) == 10


def test_bearer() -> None:
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    assert bearer("Basic abc") is None
