"""The provider's own error out of what LiteLLM raises.

Strategy: the class and status that LiteLLM reports are not always the provider's (Anthropic's 529 becomes a 500, OpenAI's 413 an
`APIError`), but the chain of causes ends at the provider's HTTP response. So the chain is walked from its far end: the first real
response with an error status wins; then a timeout or a broken connection; then whatever status an exception claims.

Deliberate differences from LiteLLM:

1. Its exception text is never passed on: it holds URLs, host names and hints for its own users. The provider's JSON message is,
   scrubbed of credentials; without one the message says the status and nothing else.
2. A connection that could not be made is a 502 and a provider's silence a 504, not a 500.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.backend.scrub import scrub_text, scrub_value
from luthien_asgi.errors import ApiError, BackendError, BackendTimeout, RequestError, type_of_status
from luthien_asgi.request import WireName
from luthien_asgi.wire.faults import is_sound, telling_type

__all__ = ["error_from_body", "kept_headers", "network_error", "recover"]

_CHAIN: Final = 20
_HALF_A_PAIR: Final = re.compile("[\ud800-\udfff]")
_HEADERS: Final = frozenset(
    {"apim-request-id", "request-id", "retry-after", "retry-after-ms", "x-ms-region", "x-request-id", "x-should-retry"}
)
_HEADER_STARTS: Final = ("anthropic-", "openai-", "x-ratelimit-")
_LONGEST_DETAIL: Final = 500
"""Characters of what a connection failed with, for the log."""
_TIMEOUTS: Final = ("Timeout",)
_UNREACHABLE: Final = ("could not reach the provider", "the connection to the provider broke off")
_CONNECT_NAMES: Final = ("Connect", "gaierror", "SSL", "Certificate", "Proxy", "InvalidURL", "UnsupportedProtocol")
_NETWORK_MODULES: Final = ("httpx", "httpcore", "aiohttp", "ssl", "socket", "h11")


def recover(error: BaseException, *, secrets: Sequence[str] = (), wire: WireName = "openai") -> ApiError:
    """Return the error to raise for one of LiteLLM's: a `BackendError`, or a `RequestError` for a refused parameter.

    `secrets` are the credentials in use, `wire` is the wire of the provider.
    """
    if isinstance(error, ApiError):
        return error
    chain = list(_chain(error))
    if refused := _refused_parameter(chain) or _never_sent(chain):
        return refused
    headers = _headers_of(chain)
    for cause in reversed(chain):
        if (response := _response_of(cause)) is not None:
            return error_from_body(*response, headers=headers, secrets=secrets, wire=wire)
    if any(300 <= (getattr(getattr(cause, "response", None), "status_code", None) or 0) < 400 for cause in chain):
        return BackendError("the provider's address redirects elsewhere, which is not followed: correct api_base")
    return network_error(error) or _claimed(chain, headers, secrets, wire)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _CHAIN:
        seen.add(id(current))
        yield current
        original = getattr(current, "original_exception", None)
        inner = current.__cause__ or current.__context__
        current = original if isinstance(original, BaseException) else inner


def _response_of(cause: BaseException) -> tuple[int, bytes] | None:
    response = getattr(cause, "response", None)
    status = getattr(response, "status_code", None)
    if type(cause).__module__.startswith("litellm.exceptions") or not isinstance(status, int) or status < 400:
        return None
    body = _body_of(response)
    return (status, body) if body or _is_http_error(cause) else None


def _is_http_error(cause: BaseException) -> bool:
    return type(cause).__name__ in {"HTTPStatusError", "MaskedHTTPStatusError"}


def _body_of(response: Any) -> bytes:  # noqa: ANN401 - httpx, which is LiteLLM's to import
    try:
        content = response.content
    except Exception:
        return b""
    return content if isinstance(content, bytes) else b""


def error_from_body(
    status: int, body: bytes, *, headers: Mapping[str, str], secrets: Sequence[str] = (), wire: WireName = "openai"
) -> BackendError:
    """Return the error that a provider's error response says; `body` need not be JSON."""
    document = _json_of(body)
    found = _error_object(document)
    raw = scrub_value(found, secrets) if found and is_sound(found) else None
    status = status if 400 <= status < 600 else 502
    return BackendError(
        _message(document, found, status, secrets),
        status=status,
        type=telling_type(found.get("type"), wire) or type_of_status(status),
        code=_text(found.get("code"), secrets),
        param=_text(found.get("param"), secrets),
        headers=kept_headers(headers, secrets),
        raw=raw,
        wire=_wire(document, wire) if raw else None,
    )


def _json_of(body: bytes | str) -> Any:  # noqa: ANN401
    try:
        return jsontext.loads(body)
    except ValueError:
        return None


def _error_object(document: Any) -> Mapping[str, Any]:  # noqa: ANN401
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, Mapping):
        return {}
    found = document.get("error")
    if isinstance(found, Mapping):
        return found
    return document if isinstance(document.get("message"), str) else {}


def _message(document: Any, found: Mapping[str, Any], status: int, secrets: Sequence[str]) -> str:  # noqa: ANN401
    candidates = [found.get("message")]
    if isinstance(document, Mapping):
        candidates += [document.get("error"), document.get("detail"), document.get("message")]
    for text in candidates:
        if isinstance(text, str) and text.strip():
            return scrub_text(text, secrets)
    return f"the provider answered with status {status}"


def _text(value: Any, secrets: Sequence[str]) -> str | None:  # noqa: ANN401
    if value is None or isinstance(value, dict | list):
        return None
    return scrub_text(str(value), secrets)


def _wire(document: Any, wire: WireName) -> WireName:  # noqa: ANN401
    is_anthropic = isinstance(document, Mapping) and document.get("type") == "error"
    return "anthropic" if is_anthropic and wire == "anthropic" else "openai"


def kept_headers(headers: Mapping[str, str], secrets: Sequence[str] = ()) -> dict[str, str]:
    """Return the response headers that are worth passing on, in lower case, without the credentials in use."""
    lower = {str(name).lower(): str(value) for name, value in headers.items()}
    kept = {name: value for name, value in lower.items() if name in _HEADERS or name.startswith(_HEADER_STARTS)}
    return {name: scrub_text(value, secrets) for name, value in kept.items()} if secrets else kept


def _headers_of(chain: Sequence[BaseException]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for cause in chain:
        response = getattr(cause, "response", None)
        for source in (getattr(cause, "litellm_response_headers", None), getattr(cause, "headers", None)):
            merged.update(source or {})
        merged.update(getattr(response, "headers", None) or {})
    return merged


def network_error(error: BaseException) -> BackendError | None:
    """Return the error for a connection that failed or fell silent, or None when `error` is about something else."""
    for cause in reversed(list(_chain(error))):
        name, module = type(cause).__name__, type(cause).__module__.partition(".")[0]
        if isinstance(cause, TimeoutError) or "Timeout" in name:
            return BackendTimeout("the provider did not answer in time")
        if isinstance(cause, OSError) or module in _NETWORK_MODULES:
            unreachable = isinstance(cause, ConnectionRefusedError) or any(part in name for part in _CONNECT_NAMES)
            failed = BackendError(_UNREACHABLE[0 if unreachable else 1])
            failed.detail = f"{name}: {cause}"[:_LONGEST_DETAIL]
            return failed
    return None


def _never_sent(chain: Sequence[BaseException]) -> ApiError | None:
    """Return the error for what LiteLLM's client could not write, or could not read of the answer's head."""
    for cause in chain:
        if isinstance(cause, UnicodeEncodeError) and cause.encoding == "ascii":
            # httpx writes headers in ASCII, bodies in UTF-8; ours are ASCII, so it was handed the provider's.
            return BackendError("the provider answered with a header that is not ASCII")
        if isinstance(cause, UnicodeEncodeError) and _HALF_A_PAIR.search(str(cause.object)):
            msg = "The request holds half of a surrogate pair (an emoji cut in two), which this model's client cannot send."
            return RequestError(msg)
        if isinstance(cause, ImportError):
            msg = f"the call needs a Python package that is not installed here: {cause.name or 'unknown'}"
            return BackendError(msg, status=501)
    return None


def _refused_parameter(chain: Sequence[BaseException]) -> RequestError | None:
    for cause in chain:
        if type(cause).__name__ == "UnsupportedParamsError":
            param = _parameter_named(str(cause))
            named = f"the parameter {param!r}" if param else "a parameter of the request"
            return RequestError(f"{named} is not supported by this model", code="unsupported_parameter", param=param)
    return None


def _parameter_named(text: str) -> str | None:
    _, _, rest = text.partition("parameters: ")
    listed, _, _ = rest.partition("]")
    try:
        names = ast.literal_eval(listed + "]")
    except (ValueError, SyntaxError):
        return None
    return ", ".join(str(name) for name in names) or None


def _claimed(chain: Sequence[BaseException], headers: Mapping[str, str], secrets: Sequence[str], wire: WireName) -> BackendError:
    for cause in reversed(chain):
        status = getattr(cause, "status_code", None)
        if isinstance(status, int) and 400 <= status < 600:
            body = _body_in_text(getattr(cause, "message", None) or str(cause))
            status = status if body or status != 500 else 502
            return error_from_body(status, body, headers=headers, secrets=secrets, wire=wire)
    return BackendError("the call of the provider failed", headers=kept_headers(headers, secrets))


def _body_in_text(text: Any) -> bytes:  # noqa: ANN401 - LiteLLM puts bytes, text and `b'…'` there
    if isinstance(text, bytes):
        return text
    text = str(text)
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1].encode() if 0 <= start < end else b""
