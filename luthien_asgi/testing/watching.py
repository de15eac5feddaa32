"""Validates what an ASGI app answers, while it leaves: the validators at the one place where every response passes.

    watch = ResponseWatch("openai")
    await app(scope, watch.receiving(receive), watch.sending(send))
    assert not watch.finish()                   # violations of the stream or the body

It changes nothing and delays nothing, so an app under test cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthien_asgi import jsontext
from luthien_asgi.testing.running import Message, Receive, Send
from luthien_asgi.testing.validate import StreamValidator, ValidatedWire, read_body
from luthien_asgi.testing.violations import Violation

__all__ = ["ResponseWatch"]


class ResponseWatch:
    """Watches one request and its response on one wire.

    A response that ended is held to all rules; of one that did not, because somebody broke it off, what left is held to them.
    """

    def __init__(self, wire: ValidatedWire, *, strict: bool = True) -> None:
        self.wire: ValidatedWire = wire
        self.status = 0
        """The HTTP status; 0 until the response has begun."""
        self.complete = False
        """The last part of the body left."""
        self.disconnected = False
        """The app was told that the client had left, before the response was complete."""
        self._strict = strict
        self._request: list[bytes] = []
        self._body: list[bytes] = []
        self._stream: StreamValidator | None = None

    def receiving(self, receive: Receive) -> Receive:
        """Return `receive` as the app gets it."""

        async def watched() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self._request.append(bytes(message.get("body", b"")))
            elif not self.complete:
                self.disconnected = True
            return message

        return watched

    def sending(self, send: Send) -> Send:
        """Return `send` as the app gets it."""

        async def watched(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                self._begin(message)
            elif message["type"] == "http.response.body":
                self._continue(message)

        return watched

    def finish(self) -> list[Violation]:
        """Return everything that was wrong. Call it when the app has returned or raised."""
        if self._stream is not None:
            if self.complete:
                self._stream.end()
            return self._stream.violations
        return self._whole() if self.complete else []

    def _begin(self, message: Mapping[str, Any]) -> None:
        self.status = message["status"]
        headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
        if headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            self._stream = StreamValidator(self.wire, strict=self._strict, include_usage=self._asked_for_usage())

    def _continue(self, message: Mapping[str, Any]) -> None:
        part = bytes(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self._stream is None:
            self._body.append(part)
        else:
            self._stream.feed(part)

    def _whole(self) -> list[Violation]:
        report = read_body(self.wire, b"".join(self._body), strict=self._strict)
        if (self.status >= 400) != (report.summary.get("ended") == "an error"):
            what = f"the status is {self.status}, the body is {report.summary.get('ended')}"
            return [*report.violations, Violation(rule="status", message=what, event=0, offset=0)]
        return report.violations

    def _asked_for_usage(self) -> bool | None:
        if self.wire != "openai":
            return None
        try:
            request = jsontext.loads(b"".join(self._request))
        except ValueError:
            return None
        options = request.get("stream_options") if isinstance(request, dict) else None
        return isinstance(options, dict) and options.get("include_usage") is True
