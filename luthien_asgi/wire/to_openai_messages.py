"""The Anthropic conversation as OpenAI messages.

What changes on the way, beside the names:

1. The results of tools become `tool` messages and come first; the other content of the same message follows in one user
   message.
2. `is_error` has no counterpart: the result's text begins with "Error: " then.
3. A tool message holds text only: images and files of a result follow in the user message, each announced by the id of its
   call.
4. Thinking is left out with notice, or goes along as `thinking_blocks` where the backend is a Claude behind LiteLLM, which takes
   signed thinking only.
5. Text and tool calls of one assistant message lose their order: OpenAI's has one content and one list of calls. A message of
   which nothing is left is left out.
6. Blocks of tools that ran at the provider, of MCP servers, compactions, uploads and what the future brings are refused by
   name.
7. Document titles and contexts stand before the document's text; search results become text with their title and source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.wire.conversion import Draft, inexpressible

__all__ = ["MessageWriter"]

Part = dict[str, Any]


@dataclass(slots=True)
class MessageWriter:
    """Writes the messages of one request."""

    draft: Draft
    keep_thinking: bool = False
    keep_cache_control: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)

    def system(self, value: Any, at: str = "system") -> None:  # noqa: ANN401 - a string or blocks
        """Add a system message, unless it would be empty."""
        parts = list(self._parts(value, at))
        if any(part["type"] != "text" for part in parts):
            inexpressible(at, "system prompts are text")
        self._say("system", parts)

    def add(self, message: Mapping[str, Any], at: str) -> None:
        """Add one Anthropic message, which may become several."""
        writers: dict[str, Callable[[Any, str], None]] = {"user": self._user, "assistant": self._assistant, "system": self.system}
        writers[message["role"]](message.get("content"), f"{at}.content")

    def cached(self, source: Mapping[str, Any], target: Part) -> Part:
        """Return the target with the source's cache mark, where the backend takes it."""
        if source.get("cache_control") is None:
            return target
        return {**target, "cache_control": source["cache_control"]} if self.keep_cache_control else target

    def _say(self, role: str, parts: list[Part]) -> None:
        if parts:
            self.messages.append({"role": role, "content": _content_of(parts)})

    # --- user ----------------------------------------------------------------------------------------------------------

    def _user(self, content: Any, at: str) -> None:  # noqa: ANN401 - a string or blocks
        blocks = _blocks(content, at)
        attached: list[Part] = []
        for where, block in blocks:
            if block["type"] == "tool_result":
                attached.extend(self._tool_result(block, where))
        rest = [part for where, block in blocks if block["type"] != "tool_result" for part in self._part(block, where)]
        self._say("user", [*attached, *rest])

    def _tool_result(self, block: Mapping[str, Any], at: str) -> list[Part]:
        """Add the tool message and return what it cannot hold."""
        call = str(block.get("tool_use_id", ""))
        parts = list(self._parts(block.get("content"), f"{at}.content"))
        texts = [part for part in parts if part["type"] == "text"]
        attached = [part for part in parts if part["type"] != "text"]
        if attached and not texts:
            texts = [{"type": "text", "text": "(attached to the next message)"}]
        if block.get("is_error"):
            texts = _marked_as_error(texts)
        message = {"role": "tool", "tool_call_id": call, "content": _content_of(texts)}
        self.messages.append(self.cached(block, message))
        return [{"type": "text", "text": f"Attached to the result of tool call {call}:"}, *attached] if attached else []

    # --- assistant -----------------------------------------------------------------------------------------------------

    def _assistant(self, content: Any, at: str) -> None:  # noqa: ANN401 - a string or blocks
        parts: list[Part] = []
        calls: list[Part] = []
        thinking: list[Part] = []
        for where, block in _blocks(content, at):
            if block["type"] == "tool_use":
                calls.append(self._tool_use(block))
            elif block["type"] in {"thinking", "redacted_thinking"}:
                thinking.append(dict(block))
            else:
                parts.extend(self._part(block, where))
        extra = self._thinking(thinking)
        if parts or calls:
            called = {"tool_calls": calls} if calls else {}
            self.messages.append({"role": "assistant", "content": _content_of(parts) if parts else None, **called, **extra})

    def _tool_use(self, block: Mapping[str, Any]) -> Part:
        arguments = jsontext.dumps(block.get("input") or {}).decode()
        call = {
            "id": block.get("id", ""),
            "type": "function",
            "function": {"name": block.get("name", ""), "arguments": arguments},
        }
        return self.cached(block, call)

    def _thinking(self, blocks: list[Part]) -> dict[str, Any]:
        if not self.keep_thinking:
            return {}
        kept = [block for block in blocks if block.get("signature") or block["type"] != "thinking"]
        if len(kept) < len(blocks):
            self.draft.ignore("messages[].content[].thinking")
        if not kept:
            return {}
        text = "".join(block.get("thinking", "") for block in kept)
        return {"thinking_blocks": kept, **({"reasoning_content": text} if text else {})}

    # --- parts ---------------------------------------------------------------------------------------------------------

    def _parts(self, content: Any, at: str) -> Iterator[Part]:  # noqa: ANN401 - a string, blocks or nothing
        for where, block in _blocks(content, at):
            yield from self._part(block, where)

    def _part(self, block: Mapping[str, Any], at: str) -> Iterator[Part]:
        writer = _WRITERS.get(block["type"])
        if writer is None:
            inexpressible(at, f"a block of type {block['type'][:50]} has no counterpart there")
        parts = list(writer(self, block, at))
        yield from parts[:-1]
        if parts:
            yield self.cached(block, parts[-1])

    def _text(self, block: Mapping[str, Any], at: str) -> Iterator[Part]:
        del at
        if block.get("text"):
            yield {"type": "text", "text": block["text"]}

    def _image(self, block: Mapping[str, Any], at: str) -> Iterator[Part]:
        del at
        source = _source(block)
        is_url = source.get("type") == "url"
        url = source.get("url", "") if is_url else f"data:{source.get('media_type', '')};base64,{source.get('data', '')}"
        yield {"type": "image_url", "image_url": {"url": url}}

    def _document(self, block: Mapping[str, Any], at: str) -> Iterator[Part]:
        source = _source(block)
        match source.get("type"):
            case "text":
                yield _headed(block, ("title", "context"), str(source.get("data", "")))
            case "content":
                if block.get("title") or block.get("context"):
                    yield _headed(block, ("title", "context"), "")
                yield from self._parts(source.get("content"), f"{at}.source.content")
            case _:
                if block.get("context"):
                    yield _headed(block, ("context",), "")
                yield {"type": "file", "file": _file(block, source)}

    def _search_result(self, block: Mapping[str, Any], at: str) -> Iterator[Part]:
        yield _headed(block, ("title", "source"), "")
        yield from self._parts(block.get("content"), f"{at}.content")


_WRITERS: Final[Mapping[str, Callable[[MessageWriter, Mapping[str, Any], str], Iterator[Part]]]] = {
    "text": MessageWriter._text,  # noqa: SLF001 - its own methods, chosen by dict
    "image": MessageWriter._image,  # noqa: SLF001
    "document": MessageWriter._document,  # noqa: SLF001
    "search_result": MessageWriter._search_result,  # noqa: SLF001
}


def _blocks(content: Any, at: str) -> list[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401 - a string, blocks or nothing
    if content is None or isinstance(content, str):
        return [(at, {"type": "text", "text": content})] if content else []
    blocks = list(content) if isinstance(content, list) else [content]
    for place, block in enumerate(blocks):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            inexpressible(f"{at}[{place}]", "it is not a content block")
    return [(f"{at}[{place}]", block) for place, block in enumerate(blocks)]


def _content_of(parts: list[Part]) -> str | list[Part]:
    """Return one plain text as a string, which every OpenAI-compatible server takes, and anything else as parts."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _marked_as_error(texts: list[Part]) -> list[Part]:
    first, *others = texts or [{"type": "text", "text": "the tool gave no output"}]
    return [{**first, "text": f"Error: {first['text']}"}, *others]


def _source(block: Mapping[str, Any]) -> Mapping[str, Any]:
    source = block.get("source")
    return source if isinstance(source, dict) else {}


def _headed(block: Mapping[str, Any], fields: tuple[str, ...], text: str) -> Part:
    lines = [str(block[field]) for field in fields if block.get(field)]
    return {"type": "text", "text": "\n".join([*lines, text] if text else lines)}


def _file(block: Mapping[str, Any], source: Mapping[str, Any]) -> Part:
    kind = source.get("media_type", "application/pdf")
    return {"filename": str(block.get("title") or "document.pdf"), "file_data": f"data:{kind};base64,{source.get('data', '')}"}
