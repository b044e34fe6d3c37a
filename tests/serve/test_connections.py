"""One connection without a network: what it reads, when its client's time is over, and that no answer is taken for another one's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from edgewise.serve import keys
from edgewise.serve.access import Gate
from edgewise.serve.connections import Bodies, Connection, Patience
from edgewise.serve.direct import Direct
from edgewise.serve.rest import Rest, Served
from edgewise.testing.hosts import FakeHost, identity

from .exchanges import BODY, INFER, post

Play = Callable[[Coroutine[Any, Any, None]], None]
GET = b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n"
SLOW = post("/v2/models/slow/infer")


class Transport(asyncio.Transport):
    """Keeps what is written. taken: whether the client takes it; if not, closing waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = self.aborted = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.written.split(b"HTTP/1.1 ")[1:]]


class Line:
    """A connection to a server of two models: "echo" answers at once, "slow" never."""

    def __init__(self, gate: Gate | None = None, **patience: Any) -> None:
        self.now = 100.0
        self.transport = Transport()
        self.host = FakeHost({"echo": identity(), "slow": identity(delay_s=3600.0)})
        rest = Rest(Served(self.host, gate or Gate(None)))
        config = uvicorn.Config(rest, log_config=None, lifespan="off", ws="none", timeout_keep_alive=60)
        self.connection = Connection(
            config,
            ServerState(),
            {},
            patience=Patience(**patience),
            bodies=Bodies(1 << 20),
            direct=Direct(rest),
            clock=lambda: self.now,
        )
        self.connection.connection_made(self.transport)

    def gets(self, data: bytes) -> None:
        self.connection.data_received(data)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.connection.overdue(self.now)

    async def has_written(self, replies: int) -> None:
        async with asyncio.timeout(10):
            while len(self.transport.statuses()) < replies:
                await asyncio.sleep(0)


@pytest.fixture
def play() -> Play:
    return asyncio.run


@pytest.mark.parametrize("model", ["echo", "slow"])
def test_garbage_behind_a_request_that_waits_is_not_told_as_its_answer(play: Play, model: str) -> None:
    async def tell() -> None:
        line = Line()
        line.gets(post(f"/v2/models/{model}/infer"))
        line.gets(b"nonsense\r\n\r\n")
        assert line.transport.statuses() == ([200, 400] if model == "echo" else []) and line.transport.closing

    play(tell())


@pytest.mark.parametrize("begun", [b"GET /v2 HT", post(INFER)[:-5]])
def test_a_request_that_does_not_end_is_not_told_as_the_answer_of_the_one_before(play: Play, begun: bytes) -> None:
    async def tell() -> None:
        line = Line()
        line.gets(SLOW)
        line.gets(begun)
        line.later(45.0)
        assert line.transport.statuses() == []
        other = Line()
        other.gets(begun)
        other.later(45.0)
        assert other.transport.statuses() == [408] and other.transport.closing

    play(tell())


def test_what_is_not_read_on_purpose_is_not_held_against_the_client(play: Play) -> None:
    """The body of a request behind another one waits until that one is answered, and then has all of its time."""

    async def tell() -> None:
        line = Line(body_s=30.0)
        line.gets(SLOW)
        line.gets(post(INFER)[:-5])
        assert not line.transport.reading
        line.later(300.0)
        assert not line.transport.closing
        line.connection.asking._failed(TimeoutError())  # type: ignore[union-attr]
        assert line.transport.reading
        line.later(29.0)
        line.gets(post(INFER)[-5:])
        await line.has_written(2)
        assert line.transport.statuses() == [500, 200] and not line.transport.closing

    play(tell())


def test_a_body_that_comes_after_its_answer_leaves_an_idle_connection(play: Play) -> None:
    async def tell() -> None:
        line = Line(Gate(keys.parse(keys.entry("me", keys.new_key()))))
        line.gets(post("/v2/repository/index")[: -len(BODY)])
        await line.has_written(1)
        assert line.transport.statuses() == [401] and not line.transport.closing
        line.gets(BODY)
        line.later(59.0)
        assert not line.transport.closing
        line.later(2.0)
        assert line.transport.closing and line.transport.statuses() == [401]

    play(tell())


def test_a_body_that_never_comes_after_its_answer_is_no_other_request(play: Play) -> None:
    async def tell() -> None:
        line = Line(Gate(keys.parse(keys.entry("me", keys.new_key()))))
        line.gets(post("/v2/repository/index")[:-5])
        await line.has_written(1)
        line.later(31.0)
        assert line.transport.closing and line.transport.statuses() == [401]

    play(tell())


def test_no_more_is_read_while_requests_wait_for_others_answers(play: Play) -> None:
    async def tell() -> None:
        line = Line()
        line.gets(SLOW + GET * 100)
        for _ in range(3):
            assert not line.transport.reading
            line.connection.pipeline[-1][0].flow.resume_reading()  # as uvicorn does for whoever reads a body
        assert not line.transport.reading
        line.connection.asking._failed(TimeoutError())  # type: ignore[union-attr]
        while line.connection.pipeline:
            assert not line.transport.reading
            await asyncio.sleep(0)
        assert line.transport.reading
        await line.has_written(101)
        assert line.transport.statuses() == [500] + [200] * 100

    play(tell())


def test_a_client_that_takes_nothing_is_let_go_of(play: Play) -> None:
    """Closing waits until what is written was taken; not for ever."""

    async def tell() -> None:
        for request in (post(INFER), post(INFER, connection="close")):
            line = Line(write_s=20.0)
            line.gets(request)
            line.later(61.0)
            assert line.transport.closing
            line.later(21.0)
            assert line.transport.aborted

    play(tell())


def test_the_end_of_a_body_is_not_counted_as_a_head(play: Play) -> None:
    async def tell() -> None:
        line = Line(head_bytes=10_000)
        body = BODY + b" " * 50_000
        line.gets(post(INFER, body)[:-40_000])
        line.gets(b" " * 40_000 + GET[:10])
        line.gets(GET[10:20])
        line.gets(GET[20:])
        await line.has_written(2)
        assert line.transport.statuses() == [200, 200]

    play(tell())
