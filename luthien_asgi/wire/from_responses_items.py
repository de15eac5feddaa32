"""The items of a Responses request as messages of chat completions.

What changes on the way, beside the names:

1. `instructions` and developer messages become system messages: every model knows those, and OpenAI's treat them alike.
2. What the assistant said and called in one turn (reasoning, message, calls) becomes one message. Text that comes after a call
   is put before it: results have to follow calls at once.
3. A tool message holds text only, save where the Messages API follows: images and files of a result come in the next user
   message, each announced by the id of its call.
4. A custom tool's call becomes a function's with `{"input": "<text>"}` where the model takes no custom tools.
5. Thinking that a provider signed goes back to that provider, as `thinking_blocks`. Any other reasoning is left out with notice:
   neither format takes back what it did not sign.
6. Items of OpenAI's own tools, compactions, uploads and what the future brings are refused by name. Ids and states of items
   are names of a store that is not here; annotations, log probabilities and the phase of old text are left out with notice.
7. A field that is not known is refused by name; on what an assistant said, where servers add what they like and clients send it
   back, it is left out with notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.reasoning_items import decode
from luthien_asgi.request_items import ADDITIONAL_TOOLS, qualified_name, type_of_item
from luthien_asgi.wire.conversion import Draft, inexpressible, refuse_unknown
from luthien_asgi.wire.responses_request import is_reasoning_reference

__all__ = ["ItemWriter"]

Part = dict[str, Any]

_QUOTED: Final = 100
"""Characters of a call's id that are said to the model."""
_ITEM: Final = frozenset({"type", "id", "status", "created_by"})
_CALL: Final = _ITEM | {"call_id", "name", "namespace", "caller"}
_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "message": _ITEM | {"role", "content", "phase"},
    "reasoning": _ITEM | {"summary", "content", "encrypted_content"},
    "function_call": _CALL | {"arguments", "parsed_arguments"},
    "custom_tool_call": _CALL | {"input"},
    "function_call_output": _CALL | {"output"},
    "custom_tool_call_output": _CALL | {"output"},
}
_PART: Final = frozenset({"type", "prompt_cache_breakpoint"})
_PART_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "input_text": _PART | {"text"},
    "output_text": _PART | {"text", "annotations", "logprobs", "parsed"},
    "refusal": _PART | {"refusal"},
    "input_image": _PART | {"image_url", "file_id", "detail"},
    "input_file": _PART | {"file_data", "file_id", "file_url", "filename", "detail"},
}
"""`parsed` and `parsed_arguments` are helpers of the SDK: the text says it already."""


@dataclass(slots=True)
class ItemWriter:
    """Writes the messages of one request."""

    draft: Draft
    custom_tools: bool = True
    keep_thinking: bool = False
    rich_results: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    """For each message the path of the content that it was made of."""
    _turn: dict[str, Any] | None = None
    """The assistant's message while it is being written: it has lists, `finish` makes of them what the format wants."""
    _attached: list[Part] = field(default_factory=list)

    def instructions(self, text: Any) -> None:  # noqa: ANN401 - JSON
        """Add the system message that comes first."""
        if text:
            self._append({"role": "system", "content": text}, "instructions")

    def add(self, item: Mapping[str, Any], at: str) -> None:
        """Add one item."""
        if is_reasoning_reference(item):
            self.draft.ignore("input[].reasoning")
            return
        kind = type_of_item(item)
        if kind == ADDITIONAL_TOOLS:
            # They are offered with the others.
            refuse_unknown(item, _ITEM | {"role", "tools"}, at)
            return
        writer = _WRITERS.get(kind)
        if writer is None:
            inexpressible(at, f"items of type {kind[:50]} are OpenAI's own")
        if (item.get("caller") or {"type": "direct"}) != {"type": "direct"}:
            inexpressible(f"{at}.caller", "other callers than the model run at OpenAI")
        if item.get("phase") is not None:
            self.draft.ignore("input[].phase")
        said = kind in {"reasoning", "function_call", "custom_tool_call"} or item.get("role") == "assistant"
        self._check(item, _FIELDS[kind], at, said=said)
        writer(self, item, at)

    def text(self, text: str) -> None:
        """Add an input that is one string."""
        self._append({"role": "user", "content": text}, "input")

    def finish(self) -> None:
        """End the last turn. Refuses a conversation that says nothing."""
        self._end_turn()
        self._hand_over([], "input")
        if not self.messages:
            inexpressible("input", "it holds nothing but reasoning")

    def _check(self, holder: Mapping[str, Any], known: frozenset[str], at: str, *, said: bool) -> None:
        if not said:
            refuse_unknown(holder, known, at)
        elif any(name not in known and value is not None for name, value in holder.items()):
            self.draft.ignore("input[].*")

    def _append(self, message: dict[str, Any], origin: str) -> None:
        self.messages.append(message)
        self.origins.append(origin)

    # --- users and tools ---------------------------------------------------------------------------------------------------

    def _message(self, item: Mapping[str, Any], at: str) -> None:
        where = f"{at}.content"
        parts = list(self._parts(item.get("content"), where))
        if item["role"] == "assistant":
            self._say(parts, where)
            return
        self._end_turn()
        if item["role"] == "user":
            self._hand_over(parts, where)
        elif parts:
            self._hand_over([], where)
            self._append({"role": "system", "content": _content_of(parts)}, where)

    def _hand_over(self, parts: list[Part], origin: str) -> None:
        """Add a user message of what was attached to the results before it, and of its own parts."""
        content, self._attached = [*self._attached, *parts], []
        if content:
            self._append({"role": "user", "content": _content_of(content)}, origin)

    def _output(self, item: Mapping[str, Any], at: str) -> None:
        self._end_turn()
        call, where = item["call_id"], f"{at}.output"
        parts = list(self._parts(item.get("output"), where))
        texts = [part for part in parts if part["type"] == "text" or self.rich_results]
        attached = [part for part in parts if part["type"] != "text" and not self.rich_results]
        if attached:
            texts = texts or [{"type": "text", "text": "(attached to the next message)"}]
            self._attached += [{"type": "text", "text": f"Attached to the result of tool call {call[:_QUOTED]}:"}, *attached]
        self._append({"role": "tool", "tool_call_id": call, "content": _content_of(texts)}, where)

    # --- the assistant -----------------------------------------------------------------------------------------------------

    def _open_turn(self, origin: str) -> dict[str, Any]:
        if self._turn is None:
            self._hand_over([], origin)
            self._turn = {"role": "assistant", "content": [], "thinking_blocks": [], "tool_calls": []}
            self._append(self._turn, origin)
        return self._turn

    def _end_turn(self) -> None:
        """Make the assistant's message what the format wants; one of reasoning alone answers nothing and is left out."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if not turn["content"] and not turn["tool_calls"]:
            self.messages.pop()
            self.origins.pop()
            self.draft.ignore("input[].reasoning")
            return
        for name in ("thinking_blocks", "tool_calls"):
            if not turn[name]:
                del turn[name]
        turn["content"] = _content_of(turn["content"]) if turn["content"] else None

    def _say(self, parts: list[Part], origin: str) -> None:
        self._split_after_text()
        self._open_turn(origin)["content"].extend(parts)

    def _split_after_text(self) -> None:
        """End a turn that said something and called nothing: what follows is said after it."""
        if self._turn is not None and self._turn["content"] and not self._turn["tool_calls"]:
            self._end_turn()

    def _reasoning(self, item: Mapping[str, Any], at: str) -> None:
        carried = decode(item.get("encrypted_content"))
        if carried is None or not self.keep_thinking:
            self.draft.ignore("input[].reasoning")
            return
        self._split_after_text()
        if carried.kind == "thinking":
            block = {"type": "thinking", "thinking": carried.text, "signature": carried.signature}
        else:
            block = {"type": "redacted_thinking", "data": carried.signature}
        self._open_turn(at)["thinking_blocks"].append(block)

    def _call(self, item: Mapping[str, Any], at: str) -> None:
        name = qualified_name(item["name"], item.get("namespace"))
        if item["type"] == "custom_tool_call" and self.custom_tools:
            called = {"type": "custom", "custom": {"name": name, "input": item["input"]}}
        else:
            arguments = (
                item["arguments"] if item["type"] == "function_call" else jsontext.dumps({"input": item["input"]}).decode()
            )
            called = {"type": "function", "function": {"name": name, "arguments": arguments}}
        self._open_turn(at)["tool_calls"].append({"id": item["call_id"], **called})

    # --- parts -------------------------------------------------------------------------------------------------------------

    def _parts(self, content: Any, at: str) -> Iterator[Part]:  # noqa: ANN401 - a string or parts
        if isinstance(content, str):
            yield {"type": "text", "text": content}
            return
        for place, part in enumerate(content or ()):
            where = f"{at}[{place}]"
            writer = _PARTS.get(part["type"])
            if writer is None:
                inexpressible(where, f"parts of type {part['type'][:50]} are not known")
            self._check(part, _PART_FIELDS[part["type"]], where, said=part["type"] in {"output_text", "refusal"})
            mark = {"prompt_cache_breakpoint": part["prompt_cache_breakpoint"]} if part.get("prompt_cache_breakpoint") else {}
            yield {**writer(self, part, where), **mark}

    def _text(self, part: Mapping[str, Any], at: str) -> Part:
        del at
        for side in ("annotations", "logprobs"):
            if part.get(side):
                self.draft.ignore(f"input[].content[].{side}")
        return {"type": "text", "text": part["text"]}

    def _refusal(self, part: Mapping[str, Any], at: str) -> Part:
        del at
        return {"type": "refusal", "refusal": part["refusal"]}

    def _image(self, part: Mapping[str, Any], at: str) -> Part:
        if not part.get("image_url"):
            inexpressible(at, "images are taken as image_url; uploaded ones are stored at OpenAI")
        image = {"url": part["image_url"]}
        if part.get("detail") in {"auto", "low", "high"}:
            image["detail"] = part["detail"]
        elif part.get("detail") is not None:
            self.draft.ignore("input[].content[].detail")
        return {"type": "image_url", "image_url": image}

    def _file(self, part: Mapping[str, Any], at: str) -> Part:
        if part.get("file_url"):
            inexpressible(f"{at}.file_url", "files are taken as file_data")
        if part.get("detail") not in (None, "auto"):
            self.draft.ignore("input[].content[].detail")
        found = {name: part[name] for name in ("file_data", "file_id", "filename") if part.get(name)}
        return {"type": "file", "file": found}


_WRITERS: Final[Mapping[str, Callable[[ItemWriter, Mapping[str, Any], str], None]]] = {
    "message": ItemWriter._message,  # noqa: SLF001 - its own methods, chosen by dict
    "reasoning": ItemWriter._reasoning,  # noqa: SLF001
    "function_call": ItemWriter._call,  # noqa: SLF001
    "custom_tool_call": ItemWriter._call,  # noqa: SLF001
    "function_call_output": ItemWriter._output,  # noqa: SLF001
    "custom_tool_call_output": ItemWriter._output,  # noqa: SLF001
}
_PARTS: Final[Mapping[str, Callable[[ItemWriter, Mapping[str, Any], str], Part]]] = {
    "input_text": ItemWriter._text,  # noqa: SLF001
    "output_text": ItemWriter._text,  # noqa: SLF001
    "refusal": ItemWriter._refusal,  # noqa: SLF001
    "input_image": ItemWriter._image,  # noqa: SLF001
    "input_file": ItemWriter._file,  # noqa: SLF001
}


def _content_of(parts: list[Part]) -> str | list[Part]:
    """Return a text alone as a string, which every server understands."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return str(parts[0]["text"])
    return parts
