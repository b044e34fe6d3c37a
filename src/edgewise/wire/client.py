"""The client's side of the link: one question after the other over TLS, patient with links that drop and workers that restart."""

from __future__ import annotations

import http.client
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from edgewise import errors
from edgewise.errors import EdgewiseError, InvalidInput, MeasurementFailed
from edgewise.wire import messages
from edgewise.wire.keys import Key

PORT = 7070
CALL_S = 30.0  # for one answer; a long poll asks for less
POLL_S = 15.0
CHUNK = 1 << 20
# How long a device may be away before whoever waits gives up: a board that reboots takes one or two minutes.
PATIENCE_S = 900.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
_DROPPED = (OSError, http.client.HTTPException)  # ssl.SSLError is an OSError

Tell = Callable[[str], None]


@dataclass
class Link:
    """A worker at `host`:`port`. tell: is told, in words, of every time that it was away. One caller at a time.

    away: the same for the record. patience_s: how long it may be away.
    """

    host: str
    port: int
    key: Key
    tell: Tell = lambda text: None
    patience_s: float = PATIENCE_S
    away: list[str] = field(default_factory=list)
    _connection: http.client.HTTPSConnection | None = None

    @property
    def address(self) -> str:
        return f"https://{self.host}:{self.port}"

    def here(self) -> messages.Here:
        """What the worker says of itself. Raises MeasurementFailed when it can't be reached, InvalidInput when it speaks otherwise."""
        found = messages.decode(self.call("GET", "/v1/device"), messages.Here)
        if found.version != messages.VERSION:
            raise InvalidInput(
                f"{self.address} speaks version {found.version} of the link, this edgewise version {messages.VERSION}: install the same "
                "edgewise on both"
            )
        return found

    def send(self, blobs: Mapping[str, bytes]) -> None:
        """Send what the worker hasn't got yet, from the byte on that it has."""
        for digest, data in blobs.items():
            while (there := int(self.call("GET", f"/v1/blobs/{digest}"))) < len(data):
                piece = data[there : there + CHUNK]
                self.call("PUT", f"/v1/blobs/{digest}?from={there}&of={len(data)}", piece)

    def job(
        self, kind: str, arguments: dict[str, Any], blobs: Mapping[str, bytes], limit_s: float, resumed: Callable[[], dict[str, Any]] | None
    ) -> Iterator[messages.Event]:
        """Have a job done, and yield what it says; its result comes last. Leaving early cancels it.

        A link that drops is waited for. A worker that restarted has lost the job: it is asked for again, with `resumed()` in place of
        `arguments` where that is given. Raises what the job failed with.
        """
        asked = self._asked(kind, arguments, blobs, limit_s)
        seen = 0
        try:
            while True:
                reply = self.call("GET", f"/v1/jobs/{asked.number}?after={seen}&wait={POLL_S:g}", lost=b"")
                if not reply:  # nobody knows it any more
                    self._was_away(f"the worker at {self.address} was started anew: {kind} is done again")
                    asked, seen = self._asked(kind, resumed() if resumed else arguments, blobs, limit_s), 0
                    continue
                status = messages.decode(reply, messages.Status)
                for event in status.events:
                    seen += 1
                    yield event
                if status.state == "failed":
                    raise _named(status.error, status.message)
                if status.state == "cancelled":
                    raise MeasurementFailed(f"{kind} was cancelled on {self.address}: {status.message}")
                if status.state == "done":
                    return
        except GeneratorExit:
            self._cancel(asked.number)
            raise
        except BaseException as error:
            if not isinstance(error, EdgewiseError):  # Ctrl-C: nobody will fetch the answer
                self._cancel(asked.number)
            raise

    def _asked(self, kind: str, arguments: dict[str, Any], blobs: Mapping[str, bytes], limit_s: float) -> messages.Job:
        job = messages.Job(secrets.token_hex(16), kind, arguments, tuple(blobs), limit_s)
        body = messages.encode(job)
        if len(body) > messages.MOST_BODY:
            raise InvalidInput(
                f"{kind} has inputs of {len(body):,} bytes; at most {messages.MOST_BODY:,} go over the link: measure a smaller batch"
            )
        while True:
            self.send(blobs)
            missing = messages.decode(self.call("POST", "/v1/jobs", body), messages.Missing)
            if not missing.blobs:
                return job
            # (Its cache may have let go of one in between.)

    def _cancel(self, number: str) -> None:
        patience, self.patience_s = self.patience_s, 0.0
        try:
            self.call("DELETE", f"/v1/jobs/{number}", lost=b"")
        except EdgewiseError:
            pass  # it ends by its limit, or when nobody asks for it any more
        finally:
            self.patience_s = patience

    def call(self, method: str, path: str, body: bytes = b"", lost: bytes | None = None) -> bytes:
        """One question and its answer; asked again as long as the link is down. lost: the answer where it is "not found"."""
        since, pause = None, _FIRST_PAUSE_S
        while True:
            try:
                status, reply = self._once(method, path, body)
            except ssl.SSLError as error:
                self.close()
                if _refused(error):
                    raise InvalidInput(
                        f"{self.address} holds another key than {self.key.path} ({self.key.id}): give the file that the worker was "
                        "started with"
                    ) from error
                since = self._wait(since, pause, error)
            except _DROPPED as error:
                self.close()
                since = self._wait(since, pause, error)
            else:
                if since is not None:
                    self._was_away(f"{self.address} was away for {time.monotonic() - since:.0f} s")
                if status == 503:  # its queue is full
                    since = self._wait(since, pause, None)
                elif status == 404 and lost is not None:
                    return lost
                elif status >= 400:
                    raise _told(reply, f"{self.address} answered {method} {path.partition('?')[0]} with status {status}")
                else:
                    return reply
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _once(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(self.host, self.port, timeout=CALL_S, context=self.key.client())
        self._connection.request(method, path, body)
        response = self._connection.getresponse()
        return response.status, response.read()

    def _wait(self, since: float | None, pause: float, error: BaseException | None) -> float:
        now = time.monotonic()
        if since is None:
            since = now
            self.tell(f"{self.address} can't be reached ({error}); waiting for it" if error else f"{self.address} is busy; waiting")
        if now - since + pause > self.patience_s:
            why = f": {error}" if error else ", it has too much to do"
            raise MeasurementFailed(
                f"{self.address} can't be reached{why}. Is the worker running there (edgewise worker --listen 0.0.0.0:{self.port} --key …)?"
            ) from error
        time.sleep(pause)
        return since

    def _was_away(self, text: str) -> None:
        self.away.append(text)
        self.tell(text)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def link(url: str, key: Key, tell: Tell = lambda text: None) -> Link:
    """url: https://host:port, or http:// (the link is encrypted either way); the port is 7070 unless given. Raises InvalidInput."""
    try:
        found = urlsplit(url if "//" in url else f"https://{url}")
        port = found.port or PORT
    except ValueError as error:
        raise InvalidInput(f"{url!r} is no address of a worker ({error}); give one as https://pi.local:{PORT}") from error
    if found.scheme not in ("http", "https") or not found.hostname or found.path.strip("/") or found.query or found.username:
        raise InvalidInput(f"{url!r} is no address of a worker; give one as https://pi.local:{PORT}")
    return Link(found.hostname, port, key, tell)


def _refused(error: ssl.SSLError) -> bool:
    """Whether the two sides hold different keys: one says so by an alert, the other finds the certificate unknown."""
    reason = (error.reason or "").upper()
    return isinstance(error, ssl.SSLCertVerificationError) or any(
        word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "DECRYPT_ERROR", "HANDSHAKE_FAILURE")
    )


def _told(reply: bytes, otherwise: str) -> EdgewiseError:
    try:
        refused = messages.decode(reply, messages.Refused)
    except InvalidInput:
        return MeasurementFailed(otherwise)
    return _named(refused.error, refused.message)


def _named(error: str, message: str) -> EdgewiseError:
    kind = getattr(errors, error, None)
    return (kind if isinstance(kind, type) and issubclass(kind, EdgewiseError) else MeasurementFailed)(message)
