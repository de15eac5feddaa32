"""The `response` object that a Responses stream begins and ends with: what was asked, repeated, and what became of it.

What is repeated is the client's own request, never what a policy made of it: a policy's instructions are not the client's to see.
Where the request says nothing, the API's documented defaults stand.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.chunks import Chunk, usage_of
from luthien_asgi.errors import ApiError
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.error_bodies import openai_error
from luthien_asgi.wire.estimate import estimate_tokens
from luthien_asgi.wire.usage import openai_usage

__all__ = ["INCOMPLETE_REASONS", "ResponseObject", "asked_for", "error_of", "usage_object"]

INCOMPLETE_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {"length": "max_output_tokens", "content_filter": "content_filter"}
)
"""The finish reasons that make an answer incomplete, in the words of `incomplete_details.reason`; any other is a good end."""

_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "background": False,
        "frequency_penalty": 0.0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "safety_identifier": None,
        "service_tier": "auto",
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
        "metadata": {},
    }
)
_TOOL_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {"function": {"description": None, "parameters": None, "strict": None}}
)
"""Fields that the API always shows of a tool."""
_PREFIX: Final = re.compile(r"(chatcmpl|msg|resp|gen|cmpl)[-_]")
_STEM: Final = re.compile(r"[A-Za-z0-9_-]{1,48}")
"""What an id may be made of. Ids of items are at most 64 characters when they come back."""


_CHARACTERS_PER_TOKEN: Final = 4
_TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast")
"""What a client may know as a service tier; other providers have words of their own."""


class ResponseObject:
    """The response of one answer. `id` and `created` (seconds since 1970) are used when the backend gives none."""

    def __init__(self, request: ChatRequest, *, id: str, created: int) -> None:  # noqa: A002 - the field's name
        self._request = request
        self._asked = asked_for(request.body)
        self._model = request.model
        self._created = created
        self.stem = _stem_of(id) or "answer"
        """The answer's id without its format's prefix: what all ids are made of."""
        self._usage: dict[str, Any] = {}
        self.characters = 0
        """How much was written, for an estimate when the backend does not tell."""

    def begin(self, chunk: Chunk | None) -> None:
        """Take the identity of the answer from its first chunk; it does not change any more."""
        if chunk is None:
            return
        stem = _stem_of(chunk.id or "")
        if stem:
            self.stem, self._created = stem, chunk.created or self._created
        self._model = chunk.model or self._model

    def see(self, chunk: Chunk) -> None:
        """Take what a chunk without content says of the whole answer."""
        self._usage |= usage_of(chunk) or {}
        tier = (getattr(chunk, "__pydantic_extra__", None) or {}).get("service_tier")
        if tier in _TIERS:
            self._asked["service_tier"] = tier

    def begun(self) -> dict[str, Any]:
        """Return the response as it is before its first item."""
        return self._written("in_progress", [])

    def ended(self, output: list[dict[str, Any]], reason: str) -> dict[str, Any]:
        """Return the response after its last item."""
        usage = usage_object(self._usage or self._estimate())
        if reason in INCOMPLETE_REASONS:
            return self._written("incomplete", output, usage=usage, incomplete_details={"reason": INCOMPLETE_REASONS[reason]})
        return self._written("completed", output, usage=usage, completed_at=int(time.time()))

    def failed(self, output: list[dict[str, Any]], error: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response as it is when its answer broke off."""
        return self._written("failed", output, error=error)

    def _written(self, status: str, output: list[dict[str, Any]], **said: object) -> dict[str, Any]:
        head = {"id": f"resp_{self.stem}", "object": "response", "created_at": self._created, "status": status}
        state = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None, **said}
        return {**head, "model": self._model, "output": output, **self._asked, **state}

    def _estimate(self) -> dict[str, Any]:
        # Clients read the usage of a completed response: an estimate where the backend was not heard to the end.
        written = max(1, self.characters // _CHARACTERS_PER_TOKEN)
        return {"prompt_tokens": estimate_tokens(self._request), "completion_tokens": written}


def _stem_of(said: str) -> str:
    """Return an answer's id without its format's prefix, or nothing where it cannot be part of an id of this format."""
    stem = _PREFIX.sub("", said, count=1) if _PREFIX.match(said) else said
    return stem if _STEM.fullmatch(stem) else ""


def asked_for(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a response that repeat the request."""
    said = {name: default if body.get(name) is None else body[name] for name, default in _DEFAULTS.items()}
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    return {
        **said,
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "text": {**text, "format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tools": [{**_TOOL_DEFAULTS.get(tool.get("type"), {}), **tool} for tool in body.get("tools") or ()],
    }


def usage_object(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage with this format's names; what is not known of the details is 0, as the API has it."""
    known = openai_usage(usage)
    prompt, completion = known.get("prompt_tokens_details", {}), known.get("completion_tokens_details", {})
    written = usage.get("cache_creation_input_tokens") or prompt.get("cache_write_tokens")
    return {
        "input_tokens": _count(known["prompt_tokens"]),
        "input_tokens_details": {"cached_tokens": _count(prompt.get("cached_tokens")), "cache_write_tokens": _count(written)},
        "output_tokens": _count(known["completion_tokens"]),
        "output_tokens_details": {"reasoning_tokens": _count(completion.get("reasoning_tokens"))},
        "total_tokens": _count(known["total_tokens"]),
    }


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0


def error_of(error: ApiError) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the object under `error` of the error event, and that of the failed response.

    A code is always there: Codex decides by it whether to ask again. What the client did wrong is `invalid_prompt`, which it does
    not repeat.
    """
    said = openai_error(error)
    code = said.get("code")
    if not isinstance(code, str) or not code:
        wrong = error.status in _CLIENTS_FAULT
        code = "invalid_prompt" if wrong else "server_error"
    message = str(said.get("message") or error.message)
    event = {"type": str(said.get("type") or "server_error"), "code": code, "message": message, "param": said.get("param")}
    return event, {"code": code, "message": message}


_CLIENTS_FAULT: Final[Sequence[int]] = (400, 403, 404, 413, 422)
