"""What goes wrong with a call that is sent without LiteLLM is the error that LiteLLM makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.backend import known
from luthien_asgi.errors import ApiError
from luthien_asgi.settings import StreamSettings

pytestmark = pytest.mark.litellm

MODELS = [f"{provider}/{'claude-x' if provider == 'anthropic' else 'gpt-4o'}" for provider in known.REMEMBERED]


def described(error: BaseException) -> dict[str, Any]:
    assert isinstance(error, ApiError)
    return {"class": type(error), "said": str(error), **{name: getattr(error, name) for name in vars(error)}}


async def raised(backend: Any, call: Any) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        await backend.open(call)
    return described(caught.value)


STATUSES = (300, 302, 304, 400, 401, 403, 404, 408, 409, 413, 422, 429, 498, 500, 502, 503, 504, 529)
REFUSALS: dict[str, tuple[bytes, str]] = {
    "an object": (b'{"error":{"message":"it said no","type":"its_type","code":"its_code","param":"p"}}', "application/json"),
    "anthropic": (b'{"type":"error","error":{"type":"overloaded_error","message":"too much"}}', "application/json"),
    "a context": (
        b'{"error":{"message":"This model\'s maximum context length is 5 tokens.","code":"context_length_exceeded"}}',
        "application/json",
    ),
    "a small limit": (
        b'{"error":{"message":"max_tokens or model output limit was reached","type":"invalid_request_error"}}',
        "application/json",
    ),
    "a filter": (
        b'{"error":{"message":"The response was filtered","code":"content_filter","innererror":{"a":1}}}',
        "application/json",
    ),
    "unsupported": (
        b'{"error":{"message":"Unsupported parameter: \'temperature\' is not supported","code":"unsupported_parameter"}}',
        "application/json",
    ),
    "a text": (b"<html>sk-abcdefghijklmnop1234 no</html>", "text/html"),
    "nothing": (b"", "text/plain"),
    "a list": (b'[{"error":{"message":"in a list"}}]', "application/json"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("model", MODELS)
async def test_a_refusal_is_the_one_that_litellm_makes(
    lab: Any, kit: Any, asked_litellm: list[str], model: str, refusal: str
) -> None:
    """Status, type, code, message, headers and the provider's object, for each status; asked once, and forgotten then."""
    body, kind = REFUSALS[refusal]
    now: dict[str, Any] = {}
    headers = {"retry-after": "7", "request-id": "r1", "x-ratelimit-limit-requests": "3", "location": "/elsewhere"}

    def script(_: Any) -> Any:
        status = now.get("status")
        return kit.answer(model) if status is None else kit.reply(body, status=status, content_type=kind, headers=headers)

    provider = await lab.provider(script)
    backend = lab.calling(model, provider.url)
    for status in STATUSES:
        now["status"] = None
        for _ in range(2):
            await kit.collect(await backend.open(kit.ask(kit.own_wire(model))))
        now["status"] = status
        asked_litellm.clear()
        provider.asked.clear()
        remembered = await raised(backend, kit.ask(kit.own_wire(model)))
        assert (len(provider.asked), len(asked_litellm)) == (1, 1)
        plain = await raised(lab.calling(model, provider.url), kit.ask(kit.own_wire(model)))
        assert remembered == plain
        assert remembered == await raised(backend, kit.ask(kit.own_wire(model)))
        assert len(asked_litellm) == 3


@pytest.mark.parametrize("fault", ["hangs up", "falls silent", "is not there"])
@pytest.mark.parametrize("model", MODELS)
async def test_a_broken_connection_is_the_error_that_litellm_makes(
    lab: Any, kit: Any, asked_litellm: list[str], model: str, fault: str
) -> None:
    """Also where nothing came: the call is not made twice."""
    faulty = False

    def script(_: Any) -> Any:
        if not faulty:
            return kit.answer(model)
        return kit.reply(begin=False, hang=fault == "falls silent", abort=fault == "hangs up")

    provider = await lab.provider(script)
    options = {"timeout": 0.3} if fault == "falls silent" else {}
    backend = lab.calling(model, provider.url, **options)
    for _ in range(2):
        await kit.collect(await backend.open(kit.ask(kit.own_wire(model))))
    asked_litellm.clear()
    faulty = True
    if fault == "is not there":
        provider.stop()
        await kit.soon(provider.hung_up.wait())
    remembered = await raised(backend, kit.ask(kit.own_wire(model)))
    assert len(asked_litellm) == 1
    plain = await raised(lab.calling(model, provider.url, **options), kit.ask(kit.own_wire(model)))
    assert remembered == plain
    assert remembered["status"] == (504 if fault == "falls silent" else 502)


@pytest.mark.parametrize("model", MODELS)
async def test_what_came_before_a_break_is_delivered_first(lab: Any, kit: Any, asked_litellm: list[str], model: str) -> None:
    """The bytes of a remembered call are read as those of a plain one."""
    events = kit.anthropic_events("a")[:3] if kit.own_wire(model) == "anthropic" else kit.openai_events("a")[:2]
    broken = kit.reply(kit.sse(*events), abort=True)
    provider = await lab.provider(lambda _: broken)
    backend = lab.calling(model, provider.url, timeout=StreamSettings().stall_timeout)
    results = []
    for _ in range(2):
        chunks, error = await kit.until_error(await backend.open(kit.ask(kit.own_wire(model))))
        assert error is not None
        results.append(([chunk.model_dump(exclude={"created"}) for chunk in chunks], described(error)))
    assert results[0] == results[1]
    assert len(asked_litellm) == 1
