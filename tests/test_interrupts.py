"""Ctrl-C that an engine's bindings swallow, or make another error of."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from edgewise.cli.progress import telling
from edgewise.errors import InvalidModel
from edgewise.interrupts import interruptible
from edgewise.records import Trial
from edgewise.search.store import Store
from edgewise.types import Execution


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """Python's own handler, whoever started the tests, and whatever a test leaves behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    left = signal.signal(signal.SIGINT, before)
    assert left is signal.default_int_handler


def swallowed() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_swallowed_it_is_raised_at_the_next_look_and_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible() as check:
        check()
        swallowed()
        check()
        pytest.fail("went on")
    with pytest.raises(KeyboardInterrupt), interruptible():
        swallowed()
    with pytest.raises(KeyboardInterrupt), telling(Console(file=io.StringIO())) as tell:
        swallowed()
        tell("next", 0.5, None)


def test_turned_into_another_error_it_is_an_interrupt_again() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        swallowed()
        raise ImportError("initialization failed")
    assert isinstance(caught.value.__cause__, ImportError)
    with pytest.raises(ValueError, match="ours"), interruptible():
        raise ValueError("ours")


def test_one_inside_another_both_know() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible() as outer:
        with pytest.raises(KeyboardInterrupt), interruptible() as inner:
            swallowed()
            inner()
        outer()


def test_a_programs_own_way_to_stop_is_left_to_it() -> None:
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    with interruptible() as check:
        signal.raise_signal(signal.SIGINT)
        check()
    assert heard == [1]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_in_another_thread_nothing_is_changed() -> None:
    found = []

    def work() -> None:
        with interruptible() as check:
            check()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_a_store_keeps_nothing_that_was_found_after_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible() as check:
        store = Store(tmp_path, check)
        store.keep(Trial("before", "int8", "", Execution("e"), "measured"))
        try:
            swallowed()
            raise InvalidModel("the engine can't run the model")  # what its bindings made of it
        except InvalidModel as error:
            store.keep(Trial("after", "int8", "", Execution("e"), "failed", reason=str(error)))
    assert [path.stem for path in (tmp_path / "trials").iterdir()] == ["before"]
    with pytest.raises(KeyboardInterrupt):
        store.note("n", 1)
    assert store.noted("n") is None
