"""A chat request as policies see it: a view of the client's own body, whatever its format.

The body is never changed. An edit returns a new request that shares with the old one whatever the edit did not touch, so what
goes to a provider of the same wire is what the client sent, field by field.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from luthien_asgi import jsontext
from luthien_asgi.request_blocks import Path, RequestBlock, RequestTool, read_blocks, read_tools
from luthien_asgi.request_items import read_item_tools, read_items

__all__ = ["ChatRequest", "RequestBlock", "RequestTool", "WireName", "api_of"]

WireName = Literal["openai", "anthropic", "responses"]
"""A client format: OpenAI's chat completions, Anthropic's messages, OpenAI's Responses. No provider is called in the last one."""


def api_of(wire: WireName) -> Literal["openai", "anthropic"]:
    """Return whose API a format belongs to: credentials, headers and errors are the same in its formats."""
    return "anthropic" if wire == "anthropic" else "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request: the client's format and the parsed body. Treat the body as immutable; edit with the `with_…` methods."""

    wire: WireName
    body: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model name that the client asked for."""
        return str(self.body["model"])

    @property
    def stream(self) -> bool:
        """Whether the client wants the answer streamed."""
        return bool(self.body.get("stream"))

    @property
    def choices(self) -> int:
        """How many answers the client asked for (OpenAI's `n`)."""
        return _whole(self.body.get("n")) or 1

    @property
    def include_usage(self) -> bool:
        """Whether the client wants the usage of a streamed answer: chat completions say so, the other formats always have it."""
        options = self.body.get("stream_options")
        return self.wire != "openai" or (isinstance(options, dict) and bool(options.get("include_usage")))

    @property
    def max_tokens(self) -> int | None:
        """The longest answer in tokens, or None where the client left it to the model."""
        given = (_whole(self.body.get(name)) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"))
        return min((value for value in given if value is not None), default=None)

    @property
    def stop_sequences(self) -> Sequence[str]:
        """Texts at which the model is to stop; the Responses format has none."""
        given = self.body.get({"openai": "stop", "anthropic": "stop_sequences"}.get(self.wire, ""))
        return [text for text in ([given] if isinstance(given, str) else given or ()) if isinstance(text, str)]

    @property
    def has_tools(self) -> bool:
        """Whether the request offers tools to the model."""
        return bool(self.tools())

    def blocks(self) -> list[RequestBlock]:
        """Return every block of the conversation, the system prompt included, in order.

        All text that the request carries to the model is in one of them, save tool definitions (`tools()`) and other parameters.
        """
        return list((read_items if self.wire == "responses" else read_blocks)(self.body))

    def tools(self) -> list[RequestTool]:
        """Return the tools that the request offers to the model."""
        return list((read_item_tools if self.wire == "responses" else read_tools)(self.body))

    def with_text(self, block: RequestBlock, text: str) -> Self:
        """Return the request with other text in one block of it, and nothing else changed.

        A tool call of the Anthropic format and a block of kind `other` that shows JSON take JSON of the same sort. Raises
        `ValueError` for thinking, for what has no text (images, files), for JSON that does not fit, and for a block of another
        request.
        """
        return self.with_texts([(block, text)])

    def with_texts(self, edits: Iterable[tuple[RequestBlock, str]]) -> Self:
        """Return the request with other text in several of its blocks, at the price of one edit. Raises like `with_text`."""
        body = dict(self.body)
        fresh: dict[Path, Any] = {(): body}
        for block, text in edits:
            _edit(fresh, block, text)
        return replace(self, body=body)

    def with_field(self, name: str, value: Any) -> Self:  # noqa: ANN401 - any JSON value
        """Return the request with a top-level field set."""
        return replace(self, body={**self.body, name: value})

    def without_field(self, name: str) -> Self:
        """Return the request without a top-level field."""
        return replace(self, body={key: value for key, value in self.body.items() if key != name})

    def with_model(self, name: str) -> Self:
        """Return the request for another model."""
        return self.with_field("model", name)

    def with_instructions(self, text: str) -> Self:
        """Return the request with something more that the model is told, after the conversation or beside the system prompt."""
        if self.wire == "openai":
            return self.with_field("messages", [*self.body.get("messages", ()), {"role": "system", "content": text}])
        name = "system" if self.wire == "anthropic" else "instructions"
        given = self.body.get(name)
        if isinstance(given, list):
            return self.with_field(name, [*given, {"type": "text", "text": text}])
        return self.with_field(name, f"{given}\n\n{text}" if given else text)


def _whole(value: Any) -> int | None:  # noqa: ANN401 - JSON
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _edit(fresh: dict[Path, Any], block: RequestBlock, text: str) -> None:
    if block.kind in {"thinking", "redacted_thinking"}:
        msg = f"{_where(block)}: thinking cannot be edited, its signature would no longer fit"
        raise ValueError(msg)
    try:
        container = _own(fresh, block.path[:-1])
        last: Any = block.path[-1]
        missing = isinstance(container, dict) and last not in container and block.kind == "tool_result"
        container[last] = _edited(block, "" if missing else container[last], text)
    except (KeyError, IndexError, TypeError) as error:
        msg = f"{_where(block)} is not in this request"
        raise ValueError(msg) from error


def _own(fresh: dict[Path, Any], path: Path) -> Any:  # noqa: ANN401 - JSON
    """Return the container at a path, copied once, together with those around it."""
    if path not in fresh:
        parent = _own(fresh, path[:-1])
        fresh[path] = parent[path[-1]] = copy.copy(parent[path[-1]])
    return fresh[path]


def _edited(block: RequestBlock, old: Any, text: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(old, str) or (old is None and block.kind == "tool_result"):
        return text
    if block.kind not in {"tool_call", "other"}:
        msg = f"{_where(block)} is of kind {block.kind} and has no text to edit"
        raise ValueError(msg)
    new = jsontext.loads(text)
    if not isinstance(new, type(old)):
        msg = f"{_where(block)} is a JSON {type(old).__name__}, not a {type(new).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - the value is wrong, and callers catch one class
    return new


def _where(block: RequestBlock) -> str:
    return ".".join(str(key) for key in block.path)
