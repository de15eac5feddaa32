"""The renderer of each wire, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from luthien_asgi.request import WireName
from luthien_asgi.testing import render_anthropic, render_openai
from luthien_asgi.testing.parts import Answer

__all__ = ["RENDERERS", "Renderer", "wire_of"]


class Renderer(Protocol):
    """How scripted answers and errors look on one wire."""

    def events(self, answer: Answer, request: Mapping[str, Any], /) -> list[bytes]:
        """Return the framed events of a streamed answer."""
        ...

    def body(self, answer: Answer, request: Mapping[str, Any], /) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        ...

    def error_body(self, type: str, message: str) -> dict[str, Any]:  # noqa: A002 - the field's name
        """Return the body of an error response."""
        ...

    def error_frame(self, type: str, message: str) -> bytes:  # noqa: A002 - the field's name
        """Return an error as an event of a stream that has begun."""
        ...


RENDERERS: Final[Mapping[WireName, Renderer]] = {"openai": render_openai, "anthropic": render_anthropic}


def wire_of(path: str, headers: Mapping[str, str]) -> WireName:
    """Tell which wire a request speaks: by its path, and by its headers where both have that path."""
    return "anthropic" if "/messages" in path or "anthropic-version" in headers else "openai"
