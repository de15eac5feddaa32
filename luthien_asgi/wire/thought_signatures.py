"""Gemini's thought signatures on their way to a client and back.

Gemini signs the thinking that led to a tool call, and its newer models refuse a history whose calls come back without.
LiteLLM puts the signature behind the call's id, `call_1__thought__<base64>`, because every client gives ids back, and takes it
from there.

Strategy: an id stays as LiteLLM made it for an OpenAI client; for an Anthropic client, whose ids know letters, digits, `_` and
`-` alone, the signature is written in base64url. What comes back is the client's word: a signature that is none, or too long, is
taken off. For a provider that is not Gemini all of them are, since others bound the length of an id. A signature where Google's
own OpenAI endpoint has it (`extra_content`) is understood, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["MOST_CHARACTERS", "SEPARATOR", "for_anthropic_client", "for_backend", "without_signature"]

SEPARATOR: Final = "__thought__"
MOST_CHARACTERS: Final = 65_536
"""Of a signature, which grows with the thinking that it signs: some kilobytes are usual."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_TO_URL: Final = str.maketrans("+/", "-_", "=")
_FROM_URL: Final = str.maketrans("-_", "+/", "=")

Message = dict[str, Any]


def without_signature(name: str) -> str:
    """Return the id of a call without a signature."""
    return name.partition(SEPARATOR)[0]


def for_anthropic_client(name: str) -> str:
    """Return the id of a call in the alphabet of Anthropic's ids; one without a signature as it is."""
    plain, mark, signature = name.partition(SEPARATOR)
    if not mark:
        return name
    return f"{plain}{mark}{signature.translate(_TO_URL)}" if _is_signature(signature) else plain


def for_backend(messages: Sequence[Any], *, signed: bool) -> list[Any]:
    """Return OpenAI-style messages with the signatures where LiteLLM looks for them; without `signed` with none."""
    return [_message(message, signed=signed) if isinstance(message, dict) else message for message in messages]


def _message(message: Message, *, signed: bool) -> Message:
    changed: Message = {}
    name = message.get("tool_call_id")
    if isinstance(name, str) and SEPARATOR in name:
        changed["tool_call_id"] = _id(name, signed=signed)
    calls = message.get("tool_calls")
    if isinstance(calls, list) and any(_is_marked(call) for call in calls):
        changed["tool_calls"] = [_call(call, signed=signed) if _is_marked(call) else call for call in calls]
    return {**message, **changed} if changed else message


def _is_marked(call: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(call, dict) and (SEPARATOR in str(call.get("id")) or _googles(call) is not None)


def _call(call: Message, *, signed: bool) -> Message:
    said = _googles(call)
    changed = {**call, "id": _id(str(call.get("id") or ""), signed=signed)}
    if signed and said is not None and _is_signature(said):
        del changed["extra_content"]
        changed["provider_specific_fields"] = {"thought_signature": _as_base64(said)}
    return changed


def _googles(call: Mapping[str, Any]) -> str | None:
    """Return the signature that stands where Google's OpenAI endpoint has it."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def _id(name: str, *, signed: bool) -> str:
    plain, mark, signature = name.partition(SEPARATOR)
    return f"{plain}{mark}{_as_base64(signature)}" if signed and mark and _is_signature(signature) else plain


def _is_signature(text: str) -> bool:
    return len(text) <= MOST_CHARACTERS and _BASE64.fullmatch(text) is not None


def _as_base64(signature: str) -> str:
    bare = signature.translate(_FROM_URL)
    return bare + "=" * (-len(bare) % 4)
