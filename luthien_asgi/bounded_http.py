"""uvicorn's fast HTTP protocol with a bound that it lacks: how many bytes a request may send that are no body.

httptools keeps a header's name and value until they are whole, whatever their length, and uvicorn keeps all headers: a stranger
fills the memory with one request that never gets to its body, before anybody asks for a key. `h11`, the slower one, has a bound.
What is within the bound here is the middleware's to judge (`Limits.header_bytes`), with an error in the client's format.
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_BYTES", "BoundedHttpToolsProtocol"]

HEAD_BYTES: Final = 256 * 1024
"""Bytes that come one after the other and are no body: request line and headers, trailers, extensions of chunks."""
_REFUSAL: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """One connection. What a client sends too much of is refused, and the connection closed."""

    _no_body = 0
    """Bytes since the last that were a body, or ended a part of a message."""

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._no_body += len(data)
        super().data_received(data)
        if self._no_body > HEAD_BYTES and not self.transport.is_closing():
            cycle = getattr(self, "cycle", None)
            if cycle is None or cycle.response_complete:  # else it would stand in the middle of an answer
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin with the body."""
        self._no_body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._no_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; what follows is the next one."""
        self._no_body = 0
        super().on_message_complete()
