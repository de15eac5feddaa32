"""Responses requests as chat completions: the parameters. The table in `wire.parameters` says what becomes of each.

No provider is called in the Responses format, so every one of these requests goes this way; for a provider that speaks
Anthropic's format, `wire.to_anthropic` goes on from here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.conversion import Converted, Draft, Handler, inexpressible, refuse_unknown, walk
from luthien_asgi.wire.from_responses_items import ItemWriter
from luthien_asgi.wire.from_responses_tools import write_tools

__all__ = ["HANDLERS", "Translated", "from_responses"]

_INCLUDABLE: Final = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
_LOGPROBS: Final = "message.output_text.logprobs"
_SERVED: Final = frozenset({_LOGPROBS, "reasoning.encrypted_content"})
_MESSAGE: Final = re.compile(r"messages\[(\d+)\](?:\.content(\[\d+\]))?.*")
_NAMES: Final[Mapping[str, str]] = {
    "logprobs": "include",
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}
"""What the client calls a parameter of chat completions that the next conversion complains of."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A Responses request as one of chat completions."""

    converted: Converted
    origins: Sequence[str]
    """For each message the path of what it was made of."""

    @property
    def request(self) -> ChatRequest:
        """The request, for the next conversion."""
        return ChatRequest(wire="openai", body=self.converted.params)

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Let a `RequestError` of the next conversion name the client's own field."""
        try:
            yield
        except RequestError as error:
            if error.param is None:
                raise
            named = self._name(error.param)
            message = error.message.replace(error.param, named, 1)
            raise RequestError(message, param=named, code=error.code, status=error.status) from None

    def merged(self, further: Converted) -> Converted:
        """Return what the next conversion made of it, with the notices of both in the client's words."""
        ignored = dict.fromkeys((*self.converted.ignored, *map(self._name, further.ignored)))
        return replace(further, ignored=tuple(ignored))

    def _name(self, name: str) -> str:
        if found := _MESSAGE.fullmatch(name):
            origin = self.origins[int(found[1])] if int(found[1]) < len(self.origins) else "input"
            return origin + (found[2] or "")
        first, _, rest = (
            name.replace("messages[]", "input[]").replace("response_format.json_schema", "response_format").partition(".")
        )
        return _NAMES.get(first, first) + (f".{rest}" if rest else "")


def from_responses(
    request: ChatRequest, *, custom_tools: bool = True, keep_thinking: bool = False, rich_results: bool = False
) -> Translated:
    """Return a Responses request as chat completions.

    `custom_tools`: the model takes tools with free text input. `keep_thinking`: it is a Claude, which takes signed thinking of
    earlier turns as `thinking_blocks`. `rich_results`: the result of a tool may hold images and files. Raises `RequestError` that
    names what chat completions have no words for.
    """
    draft = Draft(request)
    writer = ItemWriter(draft, custom_tools=custom_tools, keep_thinking=keep_thinking, rich_results=rich_results)
    walk(draft, HANDLERS)
    _write_messages(draft, writer)
    write_tools(draft, custom_tools=custom_tools)
    return Translated(draft.done(), tuple(writer.origins))


def _write_messages(draft: Draft, writer: ItemWriter) -> None:
    body = draft.request.body
    writer.instructions(body.get("instructions"))
    items = body.get("input")
    if isinstance(items, str):
        writer.text(items)
    for place, item in enumerate(items if isinstance(items, list) else ()):
        writer.add(item, f"input[{place}]")
    writer.finish()
    draft.params["messages"] = writer.messages


# --- parameters ------------------------------------------------------------------------------------------------------------


def _written_later(draft: Draft, value: Any) -> None:  # noqa: ANN401
    """Messages and tools depend on more than one parameter: they are written after the walk."""
    del draft, value


def _include(draft: Draft, value: Sequence[str]) -> None:
    for place, name in enumerate(value):
        if name not in _INCLUDABLE:
            inexpressible(f"include[{place}]", f"{name[:50]} is not known")
        if name not in _SERVED:
            draft.ignore("include")
    if _LOGPROBS in value:
        draft.params["logprobs"] = True


def _max_output_tokens(draft: Draft, value: int) -> None:
    draft.params["max_completion_tokens"] = value


def _top_logprobs(draft: Draft, value: int) -> None:
    draft.params.update(logprobs=True, top_logprobs=value)


def _reasoning(draft: Draft, value: Mapping[str, Any]) -> None:
    for name, inner in value.items():
        if inner is None:
            continue
        match name:
            case "effort":
                draft.params["reasoning_effort"] = inner
                draft.droppable["reasoning_effort"] = "reasoning.effort"
            case "summary" | "generate_summary" | "context":
                if inner != "auto":
                    draft.ignore(f"reasoning.{name}")
            case "mode" if inner == "standard":
                pass
            case _:
                inexpressible(f"reasoning.{name[:50]}", "chat completions have no such setting")


def _text(draft: Draft, value: Mapping[str, Any]) -> None:
    for name, inner in value.items():
        if inner is None:
            continue
        match name:
            case "verbosity":
                draft.params["verbosity"] = inner
            case "format":
                _format(draft, inner)
            case _:
                inexpressible(f"text.{name[:50]}", "chat completions have no such setting")


def _format(draft: Draft, value: Mapping[str, Any]) -> None:
    match value.get("type"):
        case "text":
            pass
        case "json_object":
            draft.params["response_format"] = {"type": "json_object"}
        case "json_schema":
            fields = ("name", "description", "schema", "strict")
            refuse_unknown(value, frozenset({"type", *fields}), "text.format")
            inner = {name: value[name] for name in fields if value.get(name) is not None}
            draft.params["response_format"] = {"type": "json_schema", "json_schema": inner}
        case other:
            inexpressible("text.format.type", f"{str(other)[:50]} is not known")


HANDLERS: Final[Mapping[str, Handler]] = {
    "include": _include,
    "input": _written_later,
    "instructions": _written_later,
    "max_output_tokens": _max_output_tokens,
    "parallel_tool_calls": _written_later,
    "reasoning": _reasoning,
    "text": _text,
    "tool_choice": _written_later,
    "tools": _written_later,
    "top_logprobs": _top_logprobs,
}
