"""What goes wrong inside a provider's stream, as `BackendError`.

Strategy: a provider's error object says what it is by its type, its code, or not at all; the status follows from the first of
them that is understood, and is 502 otherwise. A stream's own status was 200 and says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.errors import BackendError
from luthien_asgi.request import WireName

__all__ = ["MALFORMED", "error_fields", "is_sound", "malformed", "provider_error", "telling_type"]

MALFORMED: Final = "the provider sent a malformed event"
_MESSAGE_SIZE: Final = 2000

_ANTHROPIC_STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "conflict_error": 409,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)
"""Status by type, as the Anthropic API documents them."""

_OPENAI_STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "context_length_exceeded": 400,
        "content_filter": 400,
        "invalid_api_key": 401,
        "model_not_found": 404,
        "insufficient_quota": 429,
        "rate_limit_exceeded": 429,
        "rate_limit_reached": 429,
        "requests": 429,
        "tokens": 429,
        "server_error": 500,
        "internal_server_error": 500,
        "service_unavailable": 503,
        "timeout": 504,
        "overloaded": 529,
    }
)
"""Status by type or code of OpenAI and of the providers that speak its format."""


def malformed() -> BackendError:
    """Return the error for bytes that cannot be understood."""
    return BackendError(MALFORMED)


def error_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error object that an event named `error` is itself; nothing else of it, which could be an answer's content."""
    return {name: data[name] for name in ("message", "type", "code", "param", "status") if name in data}


def provider_error(error: object, *, wire: WireName) -> BackendError:
    """Return the error for a provider's error object (or plain string), with its own words, status and type."""
    raw = error if isinstance(error, dict) else {"message": error}
    status = _status(raw)
    return BackendError(
        _message(raw),
        status=status,
        type=telling_type(raw.get("type"), wire),
        code=_word(raw.get("code")),
        param=_word(raw.get("param")),
        raw=raw if raw is error and is_sound(raw) else None,
        wire=wire,
    )


def telling_type(said: object, wire: WireName) -> str | None:
    """Return a provider's error type where it is one of ours and says more than the status.

    On OpenAI's wire `invalid_request_error` says nothing: it is also that of a wrong key (401), of a model that is not there
    (404) and of a body that is too large (413).
    """
    if not isinstance(said, str) or said not in _ANTHROPIC_STATUS or (wire == "openai" and said == "invalid_request_error"):
        return None
    return said


def is_sound(raw: Mapping[str, Any]) -> bool:
    """Tell whether clients that read the fields of an error object find what they expect there."""
    texts = all(isinstance(raw.get(name), str | None) for name in ("message", "type", "param"))
    code = raw.get("code")
    return texts and (isinstance(code, str | None) or (type(code) is int and code >= 0))


def _status(raw: Mapping[str, Any]) -> int:
    for value in (raw.get("code"), raw.get("status"), raw.get("status_code")):
        status = _http_status(value)
        if status:
            return status
    for value in (raw.get("code"), raw.get("type")):  # OpenAI's codes say more than its types
        if isinstance(value, str):
            status = _ANTHROPIC_STATUS.get(value) or _OPENAI_STATUS.get(value, 0)
            if status:
                return status
    return 502


def _http_status(value: object) -> int:
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else 0


def _message(raw: Mapping[str, Any]) -> str:
    message = raw.get("message")
    if not isinstance(message, str) or not message.strip():
        return "the provider reported an error"
    return message[:_MESSAGE_SIZE]


def _word(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None
