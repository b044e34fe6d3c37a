"""A server of the page alone, with figures that a test sets, and a headless Chromium in front of it."""

from __future__ import annotations

import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgewise.host import NoModel, Refused, Status
from edgewise.serve.page import HEADERS, Memory, document, figures
from edgewise.serve.vitals import Vitals
from edgewise.testing.hosts import FakeHost, identity

ADMIN = "ew_secret"


class Served:
    """What stands behind the page. key: what load and unload ask for, "" for nothing. closed: whether the figures ask for it too."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.host = FakeHost({})
        self.extra: list[Status] = []
        self.vitals = Vitals(lambda: self.now)
        self.memory: Memory | None = Memory(151_000_000, 256_000_000)
        self.key = ""
        self.closed = False
        self.asked: list[str] = []
        self.fails: Exception | None = None
        self.broken = False
        self.port = 0

    def index(self) -> list[Status]:
        return [*FakeHost.index(self.host), *self.extra]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, headers, body = await self._answer(scope["method"], scope["path"], dict(scope["headers"]))
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, path: str, given: dict[bytes, bytes]) -> tuple[int, dict[str, str], bytes]:
        allowed = not self.key or given.get(b"authorization") == f"Bearer {self.key}".encode()
        if path == "/":
            return 200, HEADERS, document()
        json = {"content-type": "application/json"}
        if path == "/page/figures":
            if self.broken:
                return 500, json, b"{}"
            if self.closed and not allowed:
                return 401, json, b'{"error": "this server wants a key"}'
            host = FakeHost(self.host.models)
            host.index = self.index  # type: ignore[method-assign]
            return 200, json, figures(host, self.vitals, self.memory)
        self.asked.append(f"{method} {path}")
        if not allowed:
            return 401, json, b'{"error": "this server wants a key"}'
        *_, name, verb = path.split("/")
        try:
            if self.fails is not None:
                raise self.fails
            await getattr(self.host, verb)(name)
        except (NoModel, Refused) as error:
            return 503, json, b'{"error": "%s"}' % str(error).encode()
        return 200, json, b""


def busy(served: Served) -> Served:
    """A minute of many models, as it may well be."""
    draw = random.Random(0)
    served.host.models = {
        "digits": identity(),
        "minilm-sentiment-classification-6x": identity(versions=("1", "2", "10")),
        "resnet14": identity(),
        "spare": identity(loaded=False),
        "<b>bold</b>": identity(loaded=False),
    }
    served.extra = [
        Status("torn", "3", "failed", "models/torn/3/model.edgew is cut short: 1,024 of 35,012 bytes"),
        Status("coming", "1", "loading"),
        Status("digits", "2", "failed", "its outputs aren't those of version 1"),
    ]
    for _ in range(60):
        served.now += 1
        for name, version, rate, ms in (
            ("digits", "1", 120, 1.2),
            ("minilm-sentiment-classification-6x", "10", 30, 21.0),
            ("minilm-sentiment-classification-6x", "2", 6, 24.0),
            ("resnet14", "1", 4, 8.0),
        ):
            for _ in range(max(0, round(draw.gauss(rate, rate / 4)))):
                seconds = ms / 1e3 * draw.lognormvariate(0, 0.35)
                cached = name == "resnet14" and draw.random() < 0.6
                served.vitals.finished(
                    name, version, "success", seconds, queued_s=seconds / 3, rows=draw.choice((1, 1, 2, 4, 8)), cached=cached
                )
        if draw.random() < 0.2:
            served.vitals.finished("digits", "", "refused", 0.0001)
        if draw.random() < 0.1:
            served.vitals.finished("minilm-sentiment-classification-6x", "10", "late", 0.05)
    return served


@pytest.fixture
def minute() -> Callable[[Served], Served]:
    return busy


@pytest.fixture
def served() -> Iterator[Served]:
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'edgewise[serve]'")
    made = Served()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made.port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(made, log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="module")  # while it runs, so does its event loop in this thread
def browser(programs: Callable[..., None]) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    programs("chromium", packages=("chromium",))
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Callable[..., Any]]:
    """Opens the page; keywords are those of a browser's context. What its console says is in `page.said`."""
    contexts = []

    def to(**context: Any) -> Any:
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(f"http://127.0.0.1:{served.port}/")
        return page

    yield to
    for context in contexts:
        context.close()
