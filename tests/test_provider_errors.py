"""A provider's refusal as the client gets it: the provider's own on its wire, the nearest words on the other.

Every status and error type of both APIs, from providers that LiteLLM calls in five different ways, before the first byte and as
the first event of a 200, to clients that stream and that do not.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from luthien_asgi import LiteLLMBackend, LuthienMiddleware
from luthien_asgi.testing import ASGIDriver, Fetched, RawStream, ScriptedProvider

pytestmark = pytest.mark.litellm

KEY = "sk-server-0123456789"
OPENAI = ["openai/gpt-4o", "azure/gpt-4o", "hosted_vllm/any", "groq/some-model"]
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
HEADERS = {
    "openai": {
        "x-request-id": "req_p",
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "openai-organization": "org",
        "openai-project": "proj",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    },
    "anthropic": {
        "request-id": "req_p",
        "anthropic-organization-id": "org",
        "anthropic-workspace-id": "wrk",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-21T00:00:00Z",
        "anthropic-priority-output-tokens-limit": "7",
    },
}
ANYWHERE = {"retry-after": "7", "retry-after-ms": "7000", "x-should-retry": "false"}
"""What tells a client of either format when to come again."""


def said(kind: str, message: str, code: str | None = None, param: str | None = None, **more: Any) -> dict[str, Any]:
    return {"message": message, "type": kind, "param": param, "code": code, **more}


FILTER = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True, "severity": "high"}}}
OPENAI_ERRORS: list[tuple[int, dict[str, Any], str]] = [
    (400, said("invalid_request_error", "Too long.", "context_length_exceeded", "messages"), "invalid_request_error"),
    (400, said("invalid_request_error", "Unknown parameter.", "unknown_parameter", "foo"), "invalid_request_error"),
    (400, said("content_filter", "Filtered.", "content_filter", "prompt", innererror=FILTER), "invalid_request_error"),
    (401, said("invalid_request_error", "Incorrect API key provided.", "invalid_api_key"), "authentication_error"),
    (402, said("insufficient_quota", "Pay.", "billing_not_active"), "billing_error"),
    (403, said("request_forbidden", "Not in your country.", "unsupported_country_region_territory"), "permission_error"),
    (404, said("invalid_request_error", "No such model.", "model_not_found", "model"), "not_found_error"),
    (408, said("timeout", "Too slow."), "timeout_error"),
    (409, said("conflict", "Again."), "conflict_error"),
    (413, said("invalid_request_error", "Too large.", "payload_too_large"), "request_too_large"),
    (422, said("invalid_request_error", "Not so.", None, "temperature"), "invalid_request_error"),
    (429, said("tokens", "Rate limit reached.", "rate_limit_exceeded"), "rate_limit_error"),
    (429, said("insufficient_quota", "No money left.", "insufficient_quota"), "rate_limit_error"),
    (500, said("server_error", "Our fault."), "api_error"),
    (502, said("server_error", "Bad gateway."), "api_error"),
    (503, said("server_error", "Overloaded, slow down.", "slow_down"), "overloaded_error"),
    (504, said("timeout", "Gateway timeout."), "timeout_error"),
    (529, said("overloaded", "Overloaded."), "overloaded_error"),
]
"""Status, error object, and its type for an Anthropic client."""
DETAILS = {"error_code": "tool_name_conflict", "error_visibility": "user_facing"}
ANTHROPIC_ERRORS: list[tuple[int, dict[str, Any], tuple[str, str | None]]] = [
    (400, {"type": "invalid_request_error", "message": "messages: no.", "details": DETAILS}, ("invalid_request_error", None)),
    (401, {"type": "authentication_error", "message": "invalid x-api-key"}, ("authentication_error", "invalid_api_key")),
    (402, {"type": "billing_error", "message": "Pay."}, ("insufficient_quota", "insufficient_quota")),
    (403, {"type": "permission_error", "message": "Not yours."}, ("permission_error", None)),
    (404, {"type": "not_found_error", "message": "model: claude-x"}, ("invalid_request_error", None)),
    (408, {"type": "timeout_error", "message": "Too slow."}, ("timeout_error", None)),
    (409, {"type": "conflict_error", "message": "Again."}, ("invalid_request_error", None)),
    (413, {"type": "request_too_large", "message": "Too large."}, ("invalid_request_error", None)),
    (422, {"type": "invalid_request_error", "message": "Not so."}, ("invalid_request_error", None)),
    (429, {"type": "rate_limit_error", "message": "Slow down.", "details": None}, ("rate_limit_error", "rate_limit_exceeded")),
    (500, {"type": "api_error", "message": "Our fault."}, ("server_error", None)),
    (502, {"type": "api_error", "message": "Bad gateway."}, ("server_error", None)),
    (503, {"type": "api_error", "message": "Not now."}, ("server_error", None)),
    (504, {"type": "timeout_error", "message": "Too slow."}, ("timeout_error", None)),
    (529, {"type": "overloaded_error", "message": "Overloaded"}, ("overloaded_error", None)),
]
"""Status, error object, and its type and code for an OpenAI client."""


class Stage:
    """A provider that always says the same, behind the middleware."""

    def __init__(self, model: str, provider: ScriptedProvider) -> None:
        base = provider.url if model.startswith(("anthropic", "azure")) else f"{provider.url}/v1"
        azure = {"api_version": "2024-10-21"} if model.startswith("azure") else {}
        params = {"model": model, "api_base": base, "api_key": KEY, **azure}
        self.provider = provider
        self.app = LuthienMiddleware(
            nothing, backend=LiteLLMBackend(model_list=[{"model_name": "m", "litellm_params": params}]), auth=None
        )

    async def says(
        self, status: int, body: bytes, content_type: str, headers: Mapping[str, str], *, to: str, stream: bool
    ) -> Fetched:
        self.provider.script = RawStream(body, content_type=content_type, status=status, headers=headers)
        ask = {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
        return await ASGIDriver(self.app, within=60).fetch("POST", PATHS[to], json=ask)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Nobody asks the app behind."""
    raise AssertionError(scope["path"])


@pytest.fixture
async def stage(request: Any) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(ScriptedProvider([]))
        stage = Stage(request.param, provider)
        stack.push_async_callback(stage.app.aclose)
        yield stage


def refusal(wire: str, error: Mapping[str, Any]) -> bytes:
    outer = {"type": "error", "error": error, "request_id": "req_p"} if wire == "anthropic" else {"error": error}
    return json.dumps(outer).encode()


def event(wire: str, error: Mapping[str, Any]) -> bytes:
    data = refusal(wire, error)
    return b"event: error\ndata: " + data + b"\n\n" if wire == "anthropic" else b"data: " + data + b"\n\n"


def passed(answer: Fetched, names: Mapping[str, str]) -> dict[str, str | None]:
    return {name: answer.headers.get(name) for name in names}


def numbered(rows: Any) -> Any:
    return [pytest.param(*row, id=f"{place}-{row[0]}") for place, row in enumerate(rows)]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("status", "error", "kind"), numbered(OPENAI_ERRORS))
@pytest.mark.parametrize("stage", OPENAI, indirect=True)
async def test_an_openai_style_refusal(stage: Stage, status: int, error: dict[str, Any], kind: str, stream: bool) -> None:
    """OpenAI's clients get the provider's status, object and headers; Anthropic's the status, the words and when to return."""
    headers = {**HEADERS["openai"], **ANYWHERE, "set-cookie": "no=1"}
    body = refusal("openai", error)
    same = await stage.says(status, body, "application/json", headers, to="openai", stream=stream)
    assert (same.status, same.json()) == (status, {"error": error})
    assert passed(same, headers) == {**headers, "set-cookie": None}
    other = await stage.says(status, body, "application/json", headers, to="anthropic", stream=stream)
    found = other.json()
    assert (other.status, found["type"], found["error"]) == (status, "error", {"type": kind, "message": error["message"]})
    assert passed(other, headers) == {**dict.fromkeys(headers), **ANYWHERE}
    assert found["request_id"] == other.headers["request-id"] != "req_p"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("status", "error", "other_words"), numbered(ANTHROPIC_ERRORS))
@pytest.mark.parametrize("stage", ["anthropic/claude-x"], indirect=True)
async def test_an_anthropic_refusal(stage: Stage, status: int, error: dict[str, Any], other_words: Any, stream: bool) -> None:
    """Anthropic's clients get the provider's status, object, request id and headers; OpenAI's their own words for it."""
    headers = {**HEADERS["anthropic"], **ANYWHERE, "set-cookie": "no=1"}
    body = refusal("anthropic", error)
    same = await stage.says(status, body, "application/json", headers, to="anthropic", stream=stream)
    assert (same.status, same.json()) == (status, {"type": "error", "error": error, "request_id": "req_p"})
    assert passed(same, headers) == {**headers, "set-cookie": None}
    other = await stage.says(status, body, "application/json", headers, to="openai", stream=stream)
    kind, code = other_words
    assert other.status == status
    assert other.json() == {"error": {"message": error["message"], "type": kind, "param": None, "code": code}}
    assert passed(other, headers) == {**dict.fromkeys(headers), **ANYWHERE}


FIRST_EVENTS: list[tuple[str, dict[str, Any], int]] = [
    *[("openai", said(kind, "It said no.", code), status) for kind, code, status in [
        ("invalid_request_error", "context_length_exceeded", 400),
        ("authentication_error", None, 401),
        ("tokens", "rate_limit_exceeded", 429),
        ("insufficient_quota", "insufficient_quota", 429),
        ("server_error", None, 500),
        ("overloaded", None, 529),
        ("of_the_future", None, 502),
    ]],
    *[("anthropic", {"type": kind, "message": "It said no."}, status) for kind, status in [
        ("invalid_request_error", 400),
        ("authentication_error", 401),
        ("billing_error", 402),
        ("permission_error", 403),
        ("not_found_error", 404),
        ("conflict_error", 409),
        ("request_too_large", 413),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("timeout_error", 504),
        ("overloaded_error", 529),
        ("of_the_future", 502),
    ]],
]  # fmt: skip


def first_events() -> Any:
    for wire, error, status in FIRST_EVENTS:
        for model in OPENAI if wire == "openai" else ["anthropic/claude-x"]:
            yield pytest.param(model, wire, error, status, id=f"{model.partition('/')[0]}-{error['type']}-{error.get('code')}")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("stage", "wire", "error", "status"), [*first_events()], indirect=["stage"])
async def test_an_error_that_is_the_first_event(
    stage: Stage, wire: str, error: dict[str, Any], status: int, stream: bool
) -> None:
    """Nothing was sent yet, so it is a status, with the headers of the 200 that it came in and the provider's own object."""
    headers = {**HEADERS[wire], "retry-after": "7"}
    same = await stage.says(200, event(wire, error), "text/event-stream", headers, to=wire, stream=stream)
    assert (same.status, same.json()["error"]) == (status, error)
    assert passed(same, headers) == headers


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize(
    ("stage", "own"), [*((model, "openai") for model in OPENAI), ("anthropic/claude-x", "anthropic")], indirect=["stage"]
)
async def test_a_key_in_a_refusal_is_not_shown(stage: Stage, own: str, wire: str) -> None:
    """The message is the provider's but for the credential in it, in either format."""
    error = said("invalid_request_error", f"Incorrect API key provided: {KEY}. Find yours elsewhere.", "invalid_api_key")
    answer = await stage.says(401, refusal(own, error), "application/json", {}, to=wire, stream=True)
    assert answer.status == 401
    assert KEY.encode() not in answer.body
    message = answer.json()["error"]["message"]
    assert (message.startswith("Incorrect API key provided: "), message.endswith(" Find yours elsewhere.")) == (True, True)


CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
MESSAGE = {"id": "msg", "type": "message", "role": "assistant", "model": "x", "content": [], "stop_reason": None}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]
SUCCESS = {
    "openai": b"data: " + json.dumps(CHUNK).encode() + b"\n\ndata: [DONE]\n\n",
    "anthropic": "".join(f"event: {data['type']}\ndata: {json.dumps(data)}\n\n" for data in EVENTS).encode(),
}


@pytest.mark.lets_pass("block-fresh")
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("stage", "wire"),
    [*((model, "openai") for model in OPENAI), ("anthropic/claude-x", "anthropic")],
    indirect=["stage"],
    ids=[*OPENAI, "anthropic"],
)
async def test_headers_of_an_answer(stage: Stage, wire: str, stream: bool) -> None:
    """On the same wire the provider's request id, limits and times are the client's; on the other it gets an id of ours."""
    headers = {**HEADERS[wire], "set-cookie": "no=1", "x-internal": "no"}
    same = await stage.says(200, SUCCESS[wire], "text/event-stream", headers, to=wire, stream=stream)
    assert same.status == 200
    assert passed(same, headers) == {**headers, "set-cookie": None, "x-internal": None}
    other_wire = "openai" if wire == "anthropic" else "anthropic"
    other = await stage.says(200, SUCCESS[wire], "text/event-stream", headers, to=other_wire, stream=stream)
    assert other.status == 200
    assert passed(other, headers) == dict.fromkeys(headers)
    assert other.headers["x-request-id" if other_wire == "openai" else "request-id"]
