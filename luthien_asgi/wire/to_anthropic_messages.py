"""The OpenAI conversation as Anthropic messages, such that the Messages API accepts it.

What changes on the way, beside the names:

1. System and developer messages move to the front, into `system`. Where there is nothing else they are the user's message.
2. Messages of one role in a row become one. In it the results of tools come first, tool calls last: the API's order.
3. Texts that are empty or white space are left out, and messages that hold nothing else: the API refuses them. Where the
   assistant would begin, a user message that says so is put before it.
4. Ids of tool calls keep the API's alphabet and occur once: others get a new one, the same in the call and in its result.
5. Arguments that are not a JSON object become `{"raw_arguments": "<as written>"}`, so that the model sees what it wrote.
6. A custom tool's call becomes a call with `{"input": "<as written>"}`; the deprecated `function_call` and its result become a
   call.
7. Refusals become text. Reasoning without a signature is left out with notice; `thinking_blocks` with signatures are kept.
8. What the Messages API has no words for is refused by name: audio, uploaded files, part types that are not known.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.wire.conversion import Draft, inexpressible
from luthien_asgi.wire.thought_signatures import without_signature

__all__ = ["ConversationWriter"]

Block = dict[str, Any]

_NOT_IN_IDS: Final = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL: Final = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,(.*)", re.DOTALL | re.IGNORECASE)
_OPENING: Final = "(The conversation begins with the assistant.)"
_ORDER: Final[Mapping[str, Mapping[str, int]]] = {
    "user": {"tool_result": -1},
    "assistant": {"thinking": -1, "redacted_thinking": -1, "tool_use": 1},
}
_THINKING: Final = frozenset({"thinking", "redacted_thinking"})


@dataclass(slots=True)
class _Ids:
    """Ids of tool calls that the API accepts, by those that the client uses."""

    current: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def new(self, raw: str) -> str:
        """Return the id of a call, which may be the second one with the client's id."""
        wanted = _legal(raw)
        found, number = wanted, 2
        while found in self.used:
            found, number = f"{wanted}_{number}", number + 1
        self.used.add(found)
        self.current[raw] = found
        return found

    def of(self, raw: str) -> str:
        """Return the id of the call that a result answers."""
        return self.current.get(raw) or _legal(raw)


def _legal(raw: str) -> str:
    raw = without_signature(raw)
    if raw and not _NOT_IN_IDS.search(raw):
        return raw
    mark = zlib.crc32(raw.encode("utf-8", "surrogatepass"))
    return f"{_NOT_IN_IDS.sub('_', raw) or 'call'}_{mark:08x}"


@dataclass(slots=True)
class ConversationWriter:
    """Writes the system prompt and the messages of one request."""

    draft: Draft
    system: list[Block] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    _ids: _Ids = field(default_factory=_Ids)

    def add(self, message: Mapping[str, Any], at: str) -> None:
        """Add one OpenAI message."""
        _ROLES[message["role"]](self, message, at)

    def finish(self) -> None:
        """Put what was added into the API's order. Refuses a conversation that says nothing."""
        if not self.messages and self.system:
            self.messages, self.system = [{"role": "user", "content": self.system}], []
        if not self.messages:
            inexpressible("messages", "they hold nothing but empty texts")
        if self.messages[0]["role"] == "assistant":
            self.messages.insert(0, {"role": "user", "content": [{"type": "text", "text": _OPENING}]})
        for message in self.messages:
            order = _order_in(message)
            message["content"].sort(key=lambda block, order=order: order.get(block["type"], 0))

    def tool_names(self) -> list[str]:
        """Return the names of the tools that were called, each once."""
        calls = (block for message in self.messages for block in message["content"] if block["type"] == "tool_use")
        return list(dict.fromkeys(block["name"] for block in calls))

    def has_unsigned_tool_turn(self) -> bool:
        """Tell whether an assistant message calls a tool without signed thinking before it."""
        turns = (message["content"] for message in self.messages if message["role"] == "assistant")
        return any(turn[-1]["type"] == "tool_use" and "thinking" not in turn[0]["type"] for turn in turns)

    def _say(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"].extend(blocks)
        else:
            self.messages.append({"role": role, "content": blocks})

    # --- roles -------------------------------------------------------------------------------------------------------------

    def _system(self, message: Mapping[str, Any], at: str) -> None:
        blocks = list(self._blocks(message.get("content"), f"{at}.content"))
        if any(block["type"] != "text" for block in blocks):
            inexpressible(f"{at}.content", "system prompts are text")
        self.system.extend(blocks)

    def _user(self, message: Mapping[str, Any], at: str) -> None:
        self._say("user", list(self._blocks(message.get("content"), f"{at}.content")))

    def _tool(self, message: Mapping[str, Any], at: str) -> None:
        self._result(self._ids.of(str(message.get("tool_call_id"))), message.get("content"), f"{at}.content")

    def _function(self, message: Mapping[str, Any], at: str) -> None:
        self._result(self._ids.of(_function_id(message)), message.get("content"), f"{at}.content")

    def _result(self, call: str, content: Any, at: str) -> None:  # noqa: ANN401 - JSON
        block: Block = {"type": "tool_result", "tool_use_id": call}
        blocks = list(self._blocks(content, at))
        if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
            block["content"] = blocks[0]["text"]
        elif blocks:
            block["content"] = blocks
        self._say("user", [block])

    def _assistant(self, message: Mapping[str, Any], at: str) -> None:
        blocks = list(self._thinking(message))
        blocks.extend(self._blocks(message.get("content"), f"{at}.content"))
        blocks.extend(_text(message.get("refusal")))
        blocks.extend(self._call(call) for call in message.get("tool_calls") or ())
        if message.get("function_call"):
            call = message["function_call"]
            blocks.append(self._tool_use(_function_id(call), call.get("name"), _input(call.get("arguments"))))
        self._say("assistant", blocks)

    def _thinking(self, message: Mapping[str, Any]) -> Iterator[Block]:
        for block in message.get("thinking_blocks") or ():
            if isinstance(block, dict) and block.get("type") == "thinking" and block.get("signature"):
                yield {"type": "thinking", "thinking": block.get("thinking", ""), "signature": block["signature"]}
            elif isinstance(block, dict) and block.get("type") == "redacted_thinking" and block.get("data"):
                yield {"type": "redacted_thinking", "data": block["data"]}
            else:
                self.draft.ignore("messages[].thinking_blocks")

    def _call(self, call: Mapping[str, Any]) -> Block:
        if call.get("custom") is not None:
            custom = call["custom"]
            return self._tool_use(call.get("id"), custom.get("name"), {"input": custom.get("input", "")})
        function = call.get("function") or {}
        return self._tool_use(call.get("id"), function.get("name"), _input(function.get("arguments")))

    def _tool_use(self, call: Any, name: Any, arguments: dict[str, Any]) -> Block:  # noqa: ANN401 - JSON
        return {"type": "tool_use", "id": self._ids.new(str(call or "")), "name": str(name or ""), "input": arguments}

    # --- parts -------------------------------------------------------------------------------------------------------------

    def _blocks(self, content: Any, at: str) -> Iterator[Block]:  # noqa: ANN401 - a string, parts or nothing
        if content is None or isinstance(content, str):
            yield from _text(content)
            return
        for place, part in enumerate(content if isinstance(content, list) else [content]):
            if not isinstance(part, dict):
                inexpressible(f"{at}[{place}]", "it is not a content part")
            yield from self._marked(part, _PARTS[part["type"]](self, part, f"{at}[{place}]"))

    def _marked(self, part: Mapping[str, Any], blocks: Iterator[Block]) -> Iterator[Block]:
        """Keep a cache mark of Anthropic's own kind, which many OpenAI clients know."""
        mark = {"cache_control": part["cache_control"]} if part.get("cache_control") else {}
        for block in blocks:
            yield {**block, **mark}

    def _text_part(self, part: Mapping[str, Any], at: str) -> Iterator[Block]:
        del at
        yield from _text(part.get("text", part.get("refusal")))

    def _image(self, part: Mapping[str, Any], at: str) -> Iterator[Block]:
        image = part.get("image_url")
        image = image if isinstance(image, dict) else {"url": image}
        yield {"type": "image", "source": _url_source(image.get("url"), f"{at}.image_url")}

    def _file(self, part: Mapping[str, Any], at: str) -> Iterator[Block]:
        file = part.get("file") or {}
        kind, data = _file_data(file, f"{at}.file")
        title = {"title": file["filename"]} if file.get("filename") else {}
        if kind.startswith("text/"):
            text = _decoded(data, f"{at}.file.file_data")
            yield {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **title}
        else:
            yield {"type": "document", "source": {"type": "base64", "media_type": kind, "data": data}, **title}


_ROLES: Final[Mapping[str, Callable[[ConversationWriter, Mapping[str, Any], str], None]]] = {
    "system": ConversationWriter._system,  # noqa: SLF001 - its own methods, chosen by dict
    "developer": ConversationWriter._system,  # noqa: SLF001
    "user": ConversationWriter._user,  # noqa: SLF001
    "assistant": ConversationWriter._assistant,  # noqa: SLF001
    "tool": ConversationWriter._tool,  # noqa: SLF001
    "function": ConversationWriter._function,  # noqa: SLF001
}
_PARTS: Final[Mapping[str, Callable[[ConversationWriter, Mapping[str, Any], str], Iterator[Block]]]] = {
    "text": ConversationWriter._text_part,  # noqa: SLF001
    "refusal": ConversationWriter._text_part,  # noqa: SLF001
    "image_url": ConversationWriter._image,  # noqa: SLF001
    "file": ConversationWriter._file,  # noqa: SLF001
}


def _order_in(message: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the order of a message's blocks. Thinking that opens its turn stays where it is: the API refuses moved thinking."""
    opens = message["content"][0]["type"] in _THINKING
    return {"tool_use": 1} if opens else _ORDER[message["role"]]


def _text(text: Any) -> Iterator[Block]:  # noqa: ANN401 - JSON
    if isinstance(text, str) and text.strip():
        yield {"type": "text", "text": text}


def _function_id(named: Mapping[str, Any]) -> str:
    """Return the id for the deprecated calls, which have none: by the name, since only one call is open at a time."""
    return f"function_{named.get('name', '')}"


def _input(arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    if not isinstance(arguments, str) or not arguments.strip():
        return arguments if isinstance(arguments, dict) else {}
    try:
        value = jsontext.loads(arguments)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"raw_arguments": arguments}


def _url_source(url: Any, at: str) -> Block:  # noqa: ANN401 - JSON
    if isinstance(url, str) and (found := _DATA_URL.fullmatch(url)):
        return {"type": "base64", "media_type": found[1], "data": found[2]}
    if not isinstance(url, str) or not url.lower().startswith(("https://", "http://")):
        inexpressible(at, "it is neither a web address nor a data URL in base64")
    return {"type": "url", "url": url}


def _file_data(file: Mapping[str, Any], at: str) -> tuple[str, str]:
    if not isinstance(file.get("file_data"), str):
        inexpressible(at, "files are taken as file_data; uploaded ones are stored at OpenAI")
    if found := _DATA_URL.fullmatch(file["file_data"]):
        return found[1] or "application/pdf", found[2]
    return "application/pdf", file["file_data"]


def _decoded(data: str, at: str) -> str:
    try:
        text = base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        inexpressible(at, "it is not text in base64")
    return text
