"""Damaged requests: what they promise of themselves, and that they reach what they are to reach."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, find, given, settings

from edgewise.testing import damaged


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged.requests("echo", 4))
def test_a_content_length_is_right_whatever_else_is_wrong(data: bytes) -> None:
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    assert int(length.split(b" ")[1]) == len(body)


def test_some_are_right_and_some_are_not() -> None:
    quick = settings(max_examples=2000, deadline=None, database=None)
    head, raw = find(damaged.right(3, 4), lambda found: len(found[1]) == 32, settings=quick)
    assert json.loads(head)["inputs"][0]["shape"] == [2, 4]
    assert find(damaged.damaged(head + raw), lambda data: data != head + raw, settings=quick)
    assert find(damaged.damaged(head + raw), lambda data: len(data) < len(head + raw), settings=quick)
