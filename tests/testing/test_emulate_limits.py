"""What is asked of an emulated device, in figures and in words, and where it can't be had."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.cli.emulating import emulate
from edgewise.errors import InvalidInput
from edgewise.testing.emulate import Link, emulated, missing, parse_cpu, parse_link, parse_memory


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("20mbit,20ms", Link(20, 20)),
        ("20mbit,20ms,5ms,1%", Link(20, 20, 5, 0.01)),
        (" 1.5 Gbit , 0.5ms ", Link(1500, 0.5)),
        ("250kbit", Link(0.25)),
        ("20ms,1%", Link(None, 20, 0, 0.01)),
        ("none", Link()),
    ],
)
def test_a_link_in_words(text: str, link: Link) -> None:
    assert parse_link(text) == link


@pytest.mark.parametrize("text", ["20", "20mbit,20", "20mbit;20ms", "20mbit,30mbit", "1ms,2ms,3ms", "1%,2%", "-1ms", "fast"])
def test_a_link_in_other_words_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(repr(text)) + ".*20mbit,20ms,5ms,1%"):
        parse_link(text)


@pytest.mark.parametrize(
    "wrong", [{"mbit": 0}, {"mbit": float("inf")}, {"delay_ms": -1}, {"delay_ms": 5, "jitter_ms": 6}, {"loss": 1.1}, {"loss": float("nan")}]
)
def test_a_link_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=list(wrong)[-1]):
        Link(**wrong)


@given(st.integers(1, 10_000), st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 100))
def test_a_link_written_and_read_is_the_same(mbit: int, delay: int, jitter: int, loss: int) -> None:
    jitter = min(delay, jitter)
    assert parse_link(f"{mbit}mbit,{delay}ms,{jitter}ms,{loss}%") == Link(mbit, delay, jitter, loss / 100)


def test_a_link_says_what_it_is() -> None:
    assert str(Link(20, 20, 5, 0.01)) == "20 Mbit/s, 20 ± 5 ms one way, 1 % of packets lost"
    assert str(Link()) == "as fast as this machine"


def test_shares_and_sizes_in_words() -> None:
    assert [parse_cpu("25%"), parse_cpu("0.25"), parse_cpu("100%")] == [0.25, 0.25, 1]
    assert [parse_memory(text) for text in ("256M", "256MB", "1.5g", "256Mi", "3000000")] == [
        256_000_000, 256_000_000, 1_500_000_000, 268_435_456, 3_000_000,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "fast", "25", "0", "25 %%", "-1", f"{os.cpu_count()}01%"])
def test_shares_that_this_machine_has_not(text: str) -> None:
    with pytest.raises(InvalidInput, match="share of one core"):
        parse_cpu(text)


@pytest.mark.parametrize("text", ["", "much", "256X", "256i", "-1M", "1k"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="memory"):
        parse_memory(text)


def test_off_linux_and_without_root_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "need root" in str(missing())
    with pytest.raises(InvalidInput, match=r"no device can be emulated here: .*need root; run with sudo"), emulated():
        pass
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "this is darwin; run on Linux" in str(missing())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks for more than the system")
def test_without_iproute_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "ip and tc of iproute2" in str(missing())


@pytest.mark.parametrize("wrong", [{"cpu": 0}, {"cpu": 1000.0}, {"memory_bytes": 1000}])
def test_limits_are_looked_at_first(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))), emulated(**wrong):  # type: ignore[arg-type]
        pass


def test_the_command_needs_a_command() -> None:
    with pytest.raises(InvalidInput, match="no command"):
        emulate("25%", "256M", "none", [])
