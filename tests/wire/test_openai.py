"""The OpenAI format around the stream: error bodies, headers, the list of models."""

import pytest
from openai.types import Model

from luthien_asgi.errors import ApiError, BackendError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.openai import OpenAIWire

WIRE = OpenAIWire()


def error_of(error: ApiError) -> dict[str, object]:
    found: dict[str, object] = WIRE.error_body(error, request_id="r1")["error"]
    return found


def test_an_error_of_ours_has_openais_four_fields() -> None:
    """message, type, param and code are always there."""
    error = ApiError("no", status=400, param="messages", code="bad")
    assert error_of(error) == {"message": "no", "type": "invalid_request_error", "param": "messages", "code": "bad"}


def test_the_providers_own_error_is_forwarded_on_the_same_wire() -> None:
    """Type and code are the provider's, fields that we do not know come through."""
    raw = {"message": "Rate limit reached", "type": "tokens", "param": None, "code": "rate_limit_exceeded", "extra": [1]}
    assert error_of(BackendError("hidden", status=429, raw=raw, wire="openai")) == raw


def test_an_anthropic_error_keeps_its_type_but_not_its_object() -> None:
    """529 is `overloaded_error` on either wire; the other wire's fields are not mixed in."""
    raw = {"type": "overloaded_error", "message": "Overloaded", "details": {}}
    found = error_of(BackendError("Overloaded", status=529, raw=raw, wire="anthropic"))
    assert found == {"message": "Overloaded", "type": "overloaded_error", "param": None, "code": None}


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [
        (401, "authentication_error", "invalid_api_key"),
        (403, "permission_error", None),
        (404, "invalid_request_error", None),
        (413, "invalid_request_error", None),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", None),
        (529, "overloaded_error", None),
    ],
)
def test_each_status_has_its_type(status: int, type_: str, code: str | None) -> None:
    """Clients tell errors apart by type and code."""
    found = error_of(ApiError("x", status=status))
    assert (found["type"], found["code"]) == (type_, code)


def test_headers_of_the_same_wire_pass_and_others_do_not() -> None:
    """Rate limits and the provider's request id reach the client, cookies and control characters do not."""
    headers = {
        "X-Request-Id": "req_1",
        "openai-processing-ms": "12",
        "x-ratelimit-remaining-tokens": "9",
        "retry-after": "3",
        "retry-after-ms": "3000",
        "x-should-retry": "true",
        "set-cookie": "a=b",
        "anthropic-ratelimit-requests-limit": "1",
        "request-id": "other",
        "openai-version": "a\r\nx-evil: 1",
        "openai-organization": "\u4f60",
    }
    assert WIRE.response_headers(headers, request_id="ours") == {
        "x-request-id": "req_1",
        "openai-processing-ms": "12",
        "x-ratelimit-remaining-tokens": "9",
        "retry-after": "3",
        "retry-after-ms": "3000",
        "x-should-retry": "true",
    }


def test_our_request_id_stands_where_the_provider_gave_none() -> None:
    """A client always has an id to ask about."""
    assert WIRE.response_headers({}, request_id="ours") == {"x-request-id": "ours"}
    assert WIRE.response_headers({"x-request-id": "a\nb"}, request_id="ours") == {"x-request-id": "ours"}


def test_models_are_listed_as_the_sdk_reads_them() -> None:
    """Each entry is a strictly valid `Model`."""
    body = WIRE.models_body(["fast", "anthropic/*"], created=5)
    assert body["object"] == "list"
    models = [Model.model_validate(entry, strict=True) for entry in body["data"]]
    assert [(model.id, model.created) for model in models] == [("fast", 5), ("anthropic/*", 5)]


def test_an_encoder_collects_only_for_a_client_that_does_not_stream() -> None:
    """`stream: false` gets no frames, not even pings."""
    for stream in (True, False):
        request = ChatRequest(wire="openai", body={"model": "m", "messages": [], "stream": stream})
        encoder = WIRE.encoder(request, settings=StreamSettings(), id="t1", created=1)
        assert bool(encoder.ping()) is stream
