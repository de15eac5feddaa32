"""An `ApiError` as the error object of each format.

Strategy: the provider's own object goes on as it is to a client of the same wire; otherwise the error's type, in Anthropic's
words, is put into the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.errors import TYPE_OF_STATUS, ApiError, type_of_status
from luthien_asgi.wire.answers_anthropic import ANTHROPIC_ERRORS

__all__ = ["anthropic_error", "openai_error"]

_OPENAI_TYPES: Final = ANTHROPIC_ERRORS.values_of("error.type")
_OPENAI_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "authentication_error": "invalid_api_key",
        "rate_limit_error": "rate_limit_exceeded",
        "billing_error": "insufficient_quota",
    }
)
_ANTHROPIC_TYPES: Final = frozenset(TYPE_OF_STATUS.values())
_ALWAYS_SAID: Final = frozenset({"message", "type"})


def openai_error(error: ApiError) -> dict[str, Any]:
    """Return the object under `error`: message, type, param and code, and what else the provider said on this wire."""
    found: dict[str, Any] = {
        "message": error.message,
        "type": _OPENAI_TYPES.get(error.type, error.type),
        "param": error.param,
        "code": error.code,
    }
    if error.wire == "openai" and error.raw is not None:
        return _with_raw(found, error.raw)
    return {**found, "code": error.code or _OPENAI_CODES.get(error.type)}


def anthropic_error(error: ApiError) -> dict[str, Any]:
    """Return the object under `error`: type and message, and what else the provider said on this wire."""
    own = error.type if error.type in _ANTHROPIC_TYPES else type_of_status(error.status)
    found = {"type": own, "message": error.message}
    return _with_raw(found, error.raw) if error.wire == "anthropic" and error.raw is not None else found


def _with_raw(found: dict[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Put the provider's own fields over ours; one that leaves message or type out has not said that there is none."""
    return {**found, **{key: value for key, value in raw.items() if value is not None or key not in _ALWAYS_SAID}}
