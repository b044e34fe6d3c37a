"""The page as what answers where the REST side has nothing: `Edge(settings, open_host, page=application)`."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgewise.serve.access import bearer
from edgewise.serve.http import Application, Head, Receive, Reply, Scope, Send, problem, send_reply
from edgewise.serve.page.document import HEADERS, document
from edgewise.serve.page.figures import Memory, figures
from edgewise.serve.problems import NotFound, WrongMethod
from edgewise.serve.rest import Served

FRESH_S = 0.5  # however many look at the page, figures are made twice a second at most


def application(served: Served, memory: Callable[[], Memory] | None = None, clock: Callable[[], float] = time.monotonic) -> Application:
    """/ for anyone; /page/figures for those with a key, where keys are asked for. memory: what models take, where somebody measures it."""
    kept: tuple[float, bytes] | None = None

    def fresh() -> bytes:
        nonlocal kept
        if kept is None or clock() - kept[0] >= FRESH_S:
            kept = clock(), figures(served.host, served.vitals, memory() if memory else None)
        return kept[1]

    def reply(scope: Scope) -> Reply:
        path = scope["path"]
        if path not in ("/", "/page/figures"):
            raise NotFound(f"there is nothing at {path[:200]!r}; /docs lists what is")
        if scope["method"] not in ("GET", "HEAD"):
            raise WrongMethod(f"{path} takes GET, not {scope['method'][:20]}")
        if path == "/":
            kind, *others = ((name.encode(), value.encode()) for name, value in HEADERS.items())
            return Reply(200, (document(),), kind[1], others)
        head, address = Head(scope["headers"]), scope.get("client")
        key = bearer(head.authorization) if head.authorization else head.api_key or None
        served.gate.client(key, address[0] if address else "", "infer")
        return Reply(200, (fresh(),), headers=((b"cache-control", b"no-store"),))

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            found = reply(scope)
        except Exception as error:  # whatever fails, whoever asked is answered
            found = problem(error)
        await send_reply(send, found)

    return answer
