"""The Anthropic format around the stream: error bodies, headers, the list of models."""

import pytest
from anthropic.types import ModelInfo

from luthien_asgi.errors import ApiError, BackendError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.anthropic import AnthropicWire

WIRE = AnthropicWire()


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_each_status_has_its_type(status: int, type_: str) -> None:
    """The envelope is Anthropic's and carries the request id."""
    body = WIRE.error_body(ApiError("x", status=status), request_id="r1")
    assert body == {"type": "error", "error": {"type": type_, "message": "x"}, "request_id": "r1"}


def test_the_providers_own_error_is_forwarded_on_the_same_wire() -> None:
    """Details that a client may look for come through."""
    raw = {"type": "invalid_request_error", "message": "bad", "details": {"error_code": "tool_name_conflict"}}
    assert WIRE.error_body(BackendError("x", status=400, raw=raw, wire="anthropic"), request_id="r")["error"] == raw


def test_openais_error_types_do_not_reach_an_anthropic_client() -> None:
    """The type is Anthropic's, by the status, and the other wire's object is not mixed in."""
    raw = {"type": "tokens", "message": "slow", "code": "rate_limit_exceeded", "param": None}
    error = BackendError("slow", status=429, type="tokens", raw=raw, wire="openai")
    assert WIRE.error_body(error, request_id="r")["error"] == {"type": "rate_limit_error", "message": "slow"}


def test_headers_of_the_same_wire_pass_and_others_do_not() -> None:
    """Rate limits and the request id reach the client, OpenAI's names and control characters do not."""
    headers = {
        "request-id": "req_1",
        "anthropic-ratelimit-tokens-remaining": "9",
        "anthropic-organization-id": "org",
        "retry-after": "3",
        "x-should-retry": "false",
        "x-request-id": "other",
        "retry-after-ms": "5",
        "anthropic-priority-input-tokens-limit": "8",
        "x-ratelimit-limit-requests": "1",
        "anthropic-ratelimit-bad": "a\x00b",
    }
    assert WIRE.response_headers(headers, request_id="ours") == {
        "request-id": "req_1",
        "anthropic-ratelimit-tokens-remaining": "9",
        "anthropic-organization-id": "org",
        "retry-after": "3",
        "retry-after-ms": "5",
        "anthropic-priority-input-tokens-limit": "8",
        "x-should-retry": "false",
    }


def test_our_request_id_stands_where_the_provider_gave_none() -> None:
    """A client always has an id to ask about."""
    assert WIRE.response_headers({"retry-after": "1"}, request_id="ours") == {"request-id": "ours", "retry-after": "1"}


def test_models_are_listed_as_the_sdk_reads_them() -> None:
    """Each entry is a valid `ModelInfo` and the page says that it is the only one."""
    body = WIRE.models_body(["fast", "slow"], created=0)
    models = [ModelInfo.model_validate(entry) for entry in body["data"]]
    assert [(model.id, model.created_at.year, model.lifecycle) for model in models] == [
        ("fast", 1970, "active"),
        ("slow", 1970, "active"),
    ]
    assert (body["first_id"], body["last_id"], body["has_more"]) == ("fast", "slow", False)
    assert WIRE.models_body([], created=0) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_an_encoder_collects_only_for_a_client_that_does_not_stream() -> None:
    """`stream: false` gets no frames, not even pings."""
    for stream in (True, False):
        request = ChatRequest(wire="anthropic", body={"model": "m", "max_tokens": 1, "messages": [], "stream": stream})
        encoder = WIRE.encoder(request, settings=StreamSettings(), id="t1", created=1)
        assert bool(encoder.ping()) is stream
