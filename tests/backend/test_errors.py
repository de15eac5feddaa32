"""What the client is told when a provider refuses, breaks off or is not there."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from luthien_asgi.backend.recover import recover
from luthien_asgi.chunks import read_part
from luthien_asgi.errors import BackendError, BackendTimeout, RequestError

pytestmark = pytest.mark.litellm

STATUSES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
SHAPES = {
    "openai/gpt-4o": {"error": {"message": "it said no", "type": "its_type", "code": "its_code", "param": "its_param"}},
    "azure/gpt-4o": {"error": {"message": "it said no", "type": "its_type", "code": "its_code", "param": "its_param"}},
    "hosted_vllm/x": {"error": {"message": "it said no", "type": "its_type", "code": "its_code", "param": "its_param"}},
    "anthropic/claude-x": {"type": "error", "error": {"type": "its_type", "message": "it said no"}, "request_id": "r"},
}


async def refused(lab: Any, kit: Any, model: Any, reply: Any, **params: Any) -> Any:
    provider = await lab.provider(lambda _: reply)
    with pytest.raises(BackendError) as caught:
        await lab.calling(model, provider.url, **params).open(kit.ask("anthropic" if "claude" in model else "openai"))
    return caught.value


@pytest.mark.parametrize("model", SHAPES)
@pytest.mark.parametrize("status", STATUSES)
async def test_a_refusal_keeps_the_providers_words(lab: Any, kit: Any, model: Any, status: Any) -> None:
    """Status, message, code, param and Retry-After are the provider's, the raw object travels with its wire."""
    shape = SHAPES[model]
    headers = {"retry-after": "7", "request-id": "r1", "x-should-retry": "false", "set-cookie": "no=1"}
    reply = kit.reply(json.dumps(shape).encode(), status=status, content_type="application/json", headers=headers)
    error = await refused(lab, kit, model, reply)
    assert (error.status, error.message, error.type) == (status, "it said no", STATUSES[status])
    assert (error.code, error.param) == (shape["error"].get("code"), shape["error"].get("param"))
    assert (error.raw, error.wire) == (shape["error"], "anthropic" if "claude" in model else "openai")
    assert error.headers == {"retry-after": "7", "request-id": "r1", "x-should-retry": "false"}


async def test_anthropic_types_are_kept(lab: Any, kit: Any) -> None:
    """A type of the Anthropic API is passed on even when the status would say another."""
    body = {"type": "error", "error": {"type": "billing_error", "message": "pay"}}
    error = await refused(lab, kit, "anthropic/claude-x", kit.reply(json.dumps(body).encode(), status=400))
    assert (error.status, error.type) == (400, "billing_error")


@pytest.mark.parametrize("model", SHAPES)
@pytest.mark.parametrize("body", [b"<html>proxy-host-7.internal is down</html>", b"", b"\xff\xfe", b"[1]", b'{"a": {"b": 1}}'])
async def test_a_body_that_is_no_error_object_is_not_shown(lab: Any, kit: Any, model: Any, body: Any) -> None:
    """HTML, nothing, garbage: the status is kept and the message is ours."""
    error = await refused(lab, kit, model, kit.reply(body, status=503, content_type="text/html"))
    assert (error.status, error.message, error.raw) == (503, "the provider answered with status 503", None)


@pytest.mark.parametrize("model", SHAPES)
async def test_credentials_are_taken_out_of_what_the_provider_says(lab: Any, kit: Any, model: Any) -> None:
    """The key in use, other keys, bearer tokens and URLs with a password do not come through, raw or not."""
    text = f"key {kit.key} or sk-proj-abc***xyz1 or Bearer abcdefghijkl at https://user:hunter22@host/x"
    body = {**SHAPES[model], "error": {**SHAPES[model]["error"], "message": text, "more": [{"deep": text}]}}
    error = await refused(lab, kit, model, kit.reply(json.dumps(body).encode(), status=401))
    shown = error.message + json.dumps(error.raw)
    for secret in (kit.key, "sk-proj", "abcdefghijkl", "hunter22"):
        assert secret not in shown
    assert error.message.startswith("key ")


@pytest.mark.parametrize("model", SHAPES)
async def test_a_provider_that_is_not_there_is_a_502(lab: Any, kit: Any, model: Any) -> None:
    """A refused connection has a status of its own and names no host."""
    provider = await lab.provider(lambda _: kit.reply())
    port = "1"
    with pytest.raises(BackendError) as caught:
        await lab.calling(model, provider.url.rsplit(":", 1)[0] + ":" + port).open(
            kit.ask("anthropic" if "claude" in model else "openai")
        )
    assert (caught.value.status, caught.value.type) == (502, "api_error")
    assert caught.value.message == "could not reach the provider"


@pytest.mark.parametrize("model", SHAPES)
async def test_a_hang_up_before_the_answer_is_a_502(lab: Any, kit: Any, model: Any) -> None:
    """A connection that breaks off without a response names no host either."""
    error = await refused(lab, kit, model, kit.reply(begin=False, abort=True))
    assert error.status == 502
    assert "127.0.0.1" not in error.message


@pytest.mark.parametrize("model", SHAPES)
async def test_a_silent_provider_is_a_504(lab: Any, kit: Any, model: Any) -> None:
    """The operator's `timeout` ends a wait for headers as a timeout, not as a 500."""
    error = await refused(lab, kit, model, kit.reply(begin=False, hang=True), timeout=0.2)
    assert isinstance(error, BackendTimeout)
    assert error.status == 504


@pytest.mark.parametrize("model", ["openai/gpt-4o", "hosted_vllm/x", "anthropic/claude-x"])
@pytest.mark.parametrize("how", ["abort", "end"])
async def test_what_came_before_a_break_is_delivered_first(lab: Any, kit: Any, model: Any, how: Any) -> None:
    """A reset and a clean end without a finish are errors, after the text that had come."""
    wire = "anthropic" if "claude" in model else "openai"
    events = (kit.anthropic_events("a", "b") if wire == "anthropic" else kit.openai_events("a", "b"))[:3]
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*events), abort=how == "abort"))
    stream = await lab.calling(model, provider.url).open(kit.ask(wire))
    chunks, error = await kit.until_error(stream)
    assert "".join(read_part(chunk).text for chunk in chunks)[:1] == "a"
    assert isinstance(error, BackendError)
    assert error.status == 502
    assert "127.0.0.1" not in error.message
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()


async def test_an_error_in_the_stream_is_scrubbed(lab: Any, kit: Any) -> None:
    """An error event of the provider goes through the same scrubbing as an error response."""
    event = {"error": {"message": f"bad key {kit.key}", "type": "server_error", "code": None}}
    provider = await lab.provider(lambda _: kit.reply(kit.sse(event)))
    stream = await lab.calling("openai/gpt-4o", provider.url).open(kit.ask())
    with pytest.raises(BackendError) as caught:
        await kit.collect(stream)
    assert kit.key not in caught.value.message + json.dumps(caught.value.raw)


async def test_a_provider_that_litellm_does_not_know_is_named(lab: Any, kit: Any) -> None:
    """A typing error in the configuration is the operator's: neither the client nor a provider is to blame."""
    provider = await lab.provider(lambda _: kit.reply())
    with pytest.raises(BackendError, match="does not know: 'opena'") as caught:
        await lab.calling("opena/gpt-4o", provider.url).open(kit.ask())
    assert caught.value.status == 500
    assert provider.asked == []


async def test_a_parameter_that_litellm_cannot_map_is_named(lab: Any, kit: Any) -> None:
    """A provider of another wire without such a parameter: 400 that names it, and no call."""
    provider = await lab.provider(lambda _: kit.reply())
    with pytest.raises(RequestError) as caught:
        await lab.calling("ollama_chat/x", provider.url).open(kit.ask(verbosity="low"))
    assert (caught.value.status, caught.value.param) == (400, "verbosity")
    assert provider.asked == []


async def test_nothing_is_known_of_an_exception(kit: Any) -> None:
    """A bare exception (Groq's `ValueError`) is a 502 whose text is not shown."""
    error = recover(ValueError(f"invalid literal {kit.key}"))
    assert (error.status, error.type) == (502, "api_error")
    assert kit.key not in error.message


def test_an_error_of_ours_is_kept() -> None:
    """What is understood already is not understood again."""
    error = BackendError("x", status=418)
    assert recover(error) is error


async def test_an_endless_error_body_is_cut(lab: Any, kit: Any) -> None:
    """Of an error response 16 KiB are kept, and no more is read than that takes."""
    provider = await lab.provider(lambda _: kit.reply(b"x" * 3_000_000, status=500, hang=True))
    with pytest.raises(BackendError) as caught:
        await kit.soon(lab.calling("anthropic/claude-x", provider.url).open(kit.ask("anthropic")))
    assert caught.value.status == 500
    await kit.soon(provider.hung_up.wait())


@pytest.mark.parametrize("model", ["anthropic/claude-x", "openai/gpt-4o", "azure/gpt-4o", "hosted_vllm/x"])
async def test_an_error_body_that_inflates_is_cut(lab: Any, kit: Any, model: str) -> None:
    """Ten kilobytes that are ten megabytes: LiteLLM would search them all for a message, and the event loop would wait."""
    body = gzip.compress(json.dumps({"error": {"message": "x" * 10_000_000}}).encode())
    reply = kit.reply(body, status=400, content_type="application/json", headers={"content-encoding": "gzip"})
    error = await kit.soon(refused(lab, kit, model, reply))
    assert (error.status, len(error.message) < 1000) == (400, True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["anthropic/claude-x", "openai/gpt-4o", "azure/gpt-4o", "hosted_vllm/x"])
async def test_a_redirect_is_not_followed(lab: Any, kit: Any, model: str, stream: Any) -> None:
    """The next address would get the credential in a header that only its provider's clients know for one."""
    other = await lab.provider(lambda _: kit.reply())
    reply = kit.reply(status=307, headers={"location": f"{other.url}/v1/messages"})
    error = await refused(lab, kit, model, reply, stream=stream)
    assert (error.status, "redirects" in error.message) == (502, True)
    assert other.asked == []


@pytest.mark.parametrize("model", ["anthropic/claude-x", "openai/gpt-4o"])
async def test_a_header_in_another_alphabet_is_no_fault_of_the_request(lab: Any, kit: Any, model: str) -> None:
    """Whatever becomes of it, the client is not told that its request was wrong."""
    reply = kit.reply(status=429, headers={"x-request-id": "r\u00e9"}, content_type="application/json")
    assert (await refused(lab, kit, model, reply)).status in {429, 502}


@pytest.mark.parametrize("model", ["anthropic/claude-x", "openai/gpt-4o"])
async def test_a_credential_in_a_header_is_masked(lab: Any, kit: Any, model: str) -> None:
    """A provider that repeats the key in a header does not give it to the client."""
    reply = kit.reply(status=429, headers={"x-request-id": f"for {kit.key}", "request-id": f"for {kit.key}"})
    error = await refused(lab, kit, model, reply)
    assert error.headers
    assert kit.key not in repr(error.headers)
