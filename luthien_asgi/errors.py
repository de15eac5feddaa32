"""The errors of the package, as values that every layer can carry to the client.

Strategy: an error is raised once, as a subclass of `ApiError`, where it is understood; from there it travels as data (a queue's
`Failed` item, an argument) until a wire format turns it into a body or an event. `ApiError.type` uses the names of the Anthropic
API; each wire maps them to its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = [
    "ApiError",
    "BackendError",
    "BackendTimeout",
    "ConfigError",
    "PolicyError",
    "PolicyTimeout",
    "QueueFullError",
    "RequestDenied",
    "RequestError",
    "StreamStateError",
    "busy",
]

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

TYPE_OF_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        408: "timeout_error",
        409: "conflict_error",
        413: "request_too_large",
        422: "invalid_request_error",
        429: "rate_limit_error",
        500: "api_error",
        502: "api_error",
        503: "overloaded_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
)
"""Error type by HTTP status, as the Anthropic API names them (docs: API errors)."""


def type_of_status(status: int) -> str:
    """Return the error type that goes with an HTTP status; unknown 4xx and 5xx get the nearest general one."""
    return TYPE_OF_STATUS.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")


class ApiError(Exception):
    """An error that the client is told about.

    `status` is the HTTP status while nothing was sent yet; afterwards only `type`, `code`, `param` and the message are used.
    `message` is shown to the client as it is: it never holds credentials or raw exception text.
    `headers` are response headers that go with a status (`retry-after` and its like).
    """

    status: int = 500
    is_logged: bool = False
    """What made it is in the log already."""
    detail: str = ""
    """What the log says beside the message, and nobody else is told."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002 - the field's name in both wire formats
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        raw: Mapping[str, Any] | None = None,
        wire: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.status if status is None else status
        self.type = type or type_of_status(self.status)
        self.code = code
        self.param = param
        self.headers = dict(headers)
        self.raw = raw
        """The provider's own error object, when it sent one that is safe to forward on the same wire."""
        self.wire = wire
        """The wire format (`openai` or `anthropic`) that `raw` is written in."""


class RequestError(ApiError):
    """The client's request cannot be served as it is; `param` names the field."""

    status = 400


def busy(message: str) -> ApiError:
    """Return the error for a request that there is no room for now: a 429 that says when to try again."""
    return ApiError(message, status=429, headers={"retry-after": "1"})


class RequestDenied(ApiError):
    """A policy refused the request; the backend was not called."""

    status = 403


class BackendError(ApiError):
    """The provider answered with an error, broke off, or could not be reached."""

    status = 502


class BackendTimeout(BackendError):
    """The provider was silent for longer than `first_chunk_timeout`, `stall_timeout` or `total_timeout`."""

    status = 504


class PolicyError(ApiError):
    """A policy hook raised, or returned what its declaration does not allow. The answer is not let through."""

    status = 500


class PolicyTimeout(PolicyError):
    """A policy hook was busy for longer than `policy_timeout` without `ctx.keepalive()`."""

    status = 504


class QueueFullError(ApiError):
    """A queue had no room for `queue_timeout` seconds: the circuit breaker opened and the backend was cancelled."""

    status = 503


class StreamStateError(RuntimeError):
    """A stream encoder was asked for an event that its state does not allow: a defect of this package or of a policy."""


class ConfigError(ValueError):
    """The configuration is wrong. The message names the file, the line and the key where they are known."""
