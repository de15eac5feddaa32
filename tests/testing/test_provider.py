"""The scripted provider over raw HTTP: both wires, every fault, and what it notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from luthien_asgi.testing import (
    Answer,
    Disconnect,
    ErrorEvent,
    Failure,
    Garbage,
    ProviderRequest,
    RawStream,
    Redacted,
    Reset,
    ScriptedProvider,
    Stall,
    Text,
    Thinking,
    ToolCall,
    Truncate,
    Usage,
    accumulate_anthropic,
    accumulate_openai,
    chunks,
    sse_events,
)

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5) as client:
        yield client


async def post(client: httpx.AsyncClient, provider: ScriptedProvider, path: str = CHAT, **changes: Any) -> httpx.Response:
    return await client.post(provider.url + path, json=BODY | changes)


async def test_a_text_has_one_event_a_fragment_on_both_wires(client: httpx.AsyncClient) -> None:
    """Fragments are boundaries: two strings are two content events, in order."""
    async with ScriptedProvider(Answer("Hel", "lo", Text("a", "b"))) as provider:
        openai = sse_events((await post(client, provider)).content)
        anthropic = sse_events((await post(client, provider, MESSAGES)).content)
    assert [name for name, _ in openai] == [""] * len(openai)
    assert sum('"content":"' in data for _, data in openai) == 5  # the role chunk has "" too
    assert [name for name, _ in anthropic].count("content_block_delta") == 4
    assert anthropic[2].event == "ping"


async def test_usage_is_sent_to_an_openai_client_only_when_it_asks(client: httpx.AsyncClient) -> None:
    """`stream_options.include_usage` gives one more chunk, with cached tokens counted in."""
    async with ScriptedProvider(Answer("x", usage=Usage(input=5, output=7, cache_read=3))) as provider:
        without = accumulate_openai((await post(client, provider)).content)
        asked = accumulate_openai((await post(client, provider, stream_options={"include_usage": True})).content)
    assert without.body["usage"] is None
    assert (asked.body["usage"]["prompt_tokens"], asked.body["usage"]["completion_tokens"]) == (8, 7)


async def test_answers_that_are_not_streamed_have_the_same_content(client: httpx.AsyncClient) -> None:
    """The whole body equals what a client accumulates from the stream, on both wires."""
    answer = Answer("Hello", ToolCall("c1", "f", {"a": 1}, cuts=(2, 4)), finish="length")
    async with ScriptedProvider(answer) as provider:
        streamed = accumulate_openai((await post(client, provider, stream_options={"include_usage": True})).content).body
        whole = (await post(client, provider, stream=False)).json()
        assert streamed["choices"][0]["message"].items() <= (whole["choices"][0]["message"] | {"refusal": None}).items()
        assert streamed | {"choices": None} == whole | {"choices": None}
        anthropic = accumulate_anthropic((await post(client, provider, MESSAGES)).content).body
        assert anthropic == (await post(client, provider, MESSAGES, stream=False)).json()
    assert anthropic["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "rate_limit_error"), (MESSAGES, "rate_limit_error")])
async def test_a_failure_has_its_status_headers_and_the_shape_of_the_wire(
    client: httpx.AsyncClient, path: str, kind: str
) -> None:
    """A 429 keeps Retry-After; the error object is where the wire has it."""
    async with ScriptedProvider(Failure(429, None, "slow down", headers={"retry-after": "7"})) as provider:
        response = await post(client, provider, path)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.json()["error"]["type"] == kind
    assert response.json()["error"]["message"] == "slow down"
    assert (response.json().get("type") == "error") == (path == MESSAGES)


async def test_stall_before_the_headers_ends_with_release(client: httpx.AsyncClient) -> None:
    """Nothing is sent until `release()`, then the whole answer is."""
    async with ScriptedProvider(Answer("x", faults=[Stall()])) as provider, asyncio.TaskGroup() as group:
        waiting = group.create_task(post(client, provider))
        request = await provider.wait_requests(1)
        assert (request.sent, waiting.done()) == (0, False)
        provider.release()
        assert accumulate_openai((await waiting).content).done
        assert not request.closed_early


async def test_stall_after_events_has_sent_exactly_them(client: httpx.AsyncClient) -> None:
    """After two events the stream is silent; the third comes with `release()`."""
    answer = Answer(Text("a", "b"), faults=[Stall(after=2)])
    async with ScriptedProvider(answer) as provider, client.stream("POST", provider.url + CHAT, json=BODY) as response:
        parts = response.aiter_raw()
        got = b""
        while got.count(b"\n\n") < 2:
            got += await anext(parts)
        assert (len(sse_events(got)), provider.requests[0].sent) == (2, 2)
        provider.release()
        rest = got + b"".join([part async for part in parts])
    assert accumulate_openai(rest).body["choices"][0]["message"]["content"] == "ab"


async def test_a_client_that_leaves_is_noticed_during_a_stall(client: httpx.AsyncClient) -> None:
    """`wait_closed` returns when the client closed the connection, though the provider writes nothing."""
    async with ScriptedProvider(Answer("x", faults=[Stall(after=1)])) as provider:
        async with client.stream("POST", provider.url + CHAT, json=BODY) as response:
            await anext(response.aiter_raw())
            assert not provider.requests[0].closed_early
        await provider.wait_closed(1)
        assert provider.requests[0].closed_at is not None
        assert not provider.requests[0].finished


async def test_a_client_that_leaves_before_the_headers_is_noticed(client: httpx.AsyncClient) -> None:
    """Cancelling the request closes its connection, and that is seen."""
    async with ScriptedProvider(Answer("x", faults=[Stall()])) as provider:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(post(client, provider))
            await provider.wait_requests(1)
            waiting.cancel()
        await provider.wait_closed(1)


async def test_a_complete_reply_is_not_closed_early() -> None:
    """Closing the connection after the reply is what clients do."""
    async with ScriptedProvider(Answer("x")) as provider:
        async with httpx.AsyncClient() as client:
            await post(client, provider)
        await provider.wait_requests(1)
        with pytest.raises(TimeoutError, match="1 early closes"):
            await provider.wait_closed(1, within=0.05)
        assert provider.requests[0].finished


@pytest.mark.parametrize("fault", [Reset(), Disconnect()], ids=["reset", "disconnect"])
async def test_a_connection_that_breaks_before_the_headers(client: httpx.AsyncClient, fault: Any) -> None:
    """The client has no response at all."""
    async with ScriptedProvider(Answer("x", faults=[fault])) as provider:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await post(client, provider)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Reset(after=2), httpx.ReadError), (Disconnect(after=2), httpx.RemoteProtocolError)],
    ids=["reset", "fin"],
)
async def test_a_connection_that_breaks_within_the_body(client: httpx.AsyncClient, fault: Any, error: type[Exception]) -> None:
    """A RST is a read error, a FIN an incomplete body; the request does not count as closed by the client."""
    async with ScriptedProvider(Answer("x", faults=[fault])) as provider:
        with pytest.raises(error):
            await post(client, provider)
        assert (provider.requests[0].sent, provider.requests[0].closed_early) == (2, False)


async def test_truncate_ends_the_response_properly_without_the_answers_end(client: httpx.AsyncClient) -> None:
    """HTTP is satisfied, the finish is missing, and the connection serves the next request."""
    async with ScriptedProvider([Answer("x", faults=[Truncate(after=2)]), Answer("y")]) as provider:
        cut = accumulate_openai((await post(client, provider)).content)
        assert (cut.done, cut.body["choices"][0]["finish_reason"]) == (False, None)
        assert accumulate_openai((await post(client, provider)).content).done


@pytest.mark.parametrize("accumulate", [accumulate_openai, accumulate_anthropic])
async def test_an_error_event_ends_the_stream_in_the_wires_shape(client: httpx.AsyncClient, accumulate: Any) -> None:
    """After the error event comes nothing more."""
    path = CHAT if accumulate is accumulate_openai else MESSAGES
    async with ScriptedProvider(Answer("x", faults=[ErrorEvent(after=2, type="api_error", message="boom")])) as provider:
        got = accumulate((await post(client, provider, path)).content)
        whole = await post(client, provider, path, stream=False)
    assert (got.error["type"], got.error["message"], got.done) == ("api_error", "boom", False)
    assert whole.status_code == 529


async def test_garbage_before_the_headers_is_no_http(client: httpx.AsyncClient) -> None:
    """The client's HTTP parser refuses it."""
    async with ScriptedProvider(Answer("x", faults=[Garbage(data=b"\x00\xff nonsense\r\n\r\n")])) as provider:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(client, provider)


async def test_garbage_within_the_body_arrives_between_the_events(client: httpx.AsyncClient) -> None:
    """The bytes are in the body as given, and the answer goes on."""
    async with ScriptedProvider(Answer("x", faults=[Garbage(after=1)])) as provider:
        content = (await post(client, provider)).content
    assert b"\n\ndata: {]\n\ndata: " in content
    assert content.endswith(b"data: [DONE]\n\n")


async def test_a_raw_stream_arrives_byte_for_byte(client: httpx.AsyncClient) -> None:
    """Pieces are sent as they are, with their content type and status."""
    async with ScriptedProvider(RawStream([b"a\r\n", b"\xff"], content_type="text/x", status=202)) as provider:
        response = await post(client, provider)
    assert (response.content, response.headers["content-type"], response.status_code) == (b"a\r\n\xff", "text/x", 202)


async def test_scripts_by_list_model_and_function(client: httpx.AsyncClient) -> None:
    """A list is answered in order and then fails; a mapping goes by model; a function sees the request."""

    def echo(request: ProviderRequest) -> Answer:
        return Answer(request.body["messages"][0]["content"])

    async with ScriptedProvider([Answer("1")]) as provider:
        assert [(await post(client, provider)).status_code for _ in range(2)] == [200, 500]
    async with ScriptedProvider({"m": Answer("1")}) as provider:
        assert [(await post(client, provider, model=name)).status_code for name in ("m", "n")] == [200, 404]
    async with ScriptedProvider(echo) as provider:
        assert "Hi" in (await post(client, provider)).text


async def test_what_a_script_raises_is_kept_and_answered_with_500(client: httpx.AsyncClient) -> None:
    """A failing assertion in a script does not get lost."""

    def failing(request: ProviderRequest) -> Answer:
        raise AssertionError(request.path)

    async with ScriptedProvider(failing) as provider:
        assert (await post(client, provider)).status_code == 500
        assert [str(error) for error in provider.script_errors] == [CHAT]


async def test_what_is_no_reply_is_answered_with_a_500_that_says_what_one_is(client: httpx.AsyncClient) -> None:
    """Chunks are for `run_policy`: a list of them is no answer here."""
    async with ScriptedProvider(lambda _: cast("Any", chunks("Hi"))) as provider:
        answer = await post(client, provider)
    assert answer.status_code == 500
    assert "a reply is Answer(...), RawStream(...) or Failure(...), not list; chunks(...) are for run_policy" in answer.text


async def test_a_request_is_noted_as_it_came(client: httpx.AsyncClient) -> None:
    """Path, query, lower-case headers, body and wire are there for the test to look at."""
    async with ScriptedProvider(Answer("x")) as provider:
        await client.post(provider.url + MESSAGES + "?beta=true", json=BODY, headers={"X-Api-Key": "k"})
        request = provider.requests[0]
    assert (request.method, request.path, request.query, request.wire) == ("POST", MESSAGES, "beta=true", "anthropic")
    assert (request.headers["x-api-key"], request.body, request.streams) == ("k", BODY, True)


async def test_chunked_request_bodies_are_read(client: httpx.AsyncClient) -> None:
    """A body without a length arrives whole."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"model":"m",'
        yield b'"messages":[]}'

    async with ScriptedProvider(Answer("x")) as provider:
        await client.post(provider.url + CHAT, content=pieces())
        assert provider.requests[0].body == {"model": "m", "messages": []}


async def test_other_routes(client: httpx.AsyncClient) -> None:
    """Models in the shape of the asker's wire, a token count, and 404 for the rest; none of them uses up the script."""
    async with ScriptedProvider({"m": Answer("x")}) as provider:
        assert (await client.get(provider.url + "/v1/models")).json()["data"][0]["object"] == "model"
        anthropic = await client.get(provider.url + "/v1/models", headers={"anthropic-version": "2023-06-01"})
        assert anthropic.json()["data"][0]["type"] == "model"
        assert (await client.post(provider.url + "/v1/messages/count_tokens", json=BODY)).json()["input_tokens"] > 0
        assert (await client.get(provider.url + "/nothing")).status_code == 404
        assert (await client.head(provider.url + "/")).status_code == 404
        assert (len(provider.requests), len(provider.other_requests)) == (0, 5)


async def test_a_strict_provider_refuses_an_impossible_history(client: httpx.AsyncClient) -> None:
    """A 400 in the wire's shape says what the API would say."""
    async with ScriptedProvider(Answer("x"), strict=True) as provider:
        response = await post(client, provider, MESSAGES, api_base="http://elsewhere")
    assert (response.status_code, response.json()["error"]["message"]) == (400, "api_base: Extra inputs are not permitted")


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "cmVk"}


@pytest.mark.parametrize(
    ("block", "accepted"),
    [
        (THOUGHT, True),
        (HIDDEN, True),
        (THOUGHT | {"thinking": "Hm!"}, False),
        (THOUGHT | {"signature": "b3RoZXI="}, False),
        (HIDDEN | {"data": "b3RoZXI="}, False),
    ],
)
async def test_a_strict_provider_knows_what_it_signed(client: httpx.AsyncClient, block: dict[str, Any], accepted: bool) -> None:
    """Thinking that was edited is refused in the next turn, its signature too; before anything was signed nothing is."""
    history = [BODY["messages"][0], {"role": "assistant", "content": [block, {"type": "text", "text": "x"}]}, BODY["messages"][0]]
    async with ScriptedProvider(Answer(Thinking("H", "m.", signature="c2ln"), Redacted("cmVk"), "x"), strict=True) as provider:
        assert (await post(client, provider, MESSAGES, messages=history)).status_code == 200
        response = await post(client, provider, MESSAGES, messages=history)
    assert response.status_code == (200 if accepted else 400)
    assert accepted or "Invalid `" in response.json()["error"]["message"]


async def test_a_strict_provider_does_not_know_what_raw_events_signed(client: httpx.AsyncClient) -> None:
    """A recording may hold thinking that nobody read: only what is known to be edited is refused."""
    history = [BODY["messages"][0], {"role": "assistant", "content": [THOUGHT]}, BODY["messages"][0]]
    signed = Answer(Thinking("No.", signature="b3RoZXI="))
    async with ScriptedProvider([RawStream([b": nothing\n\n"]), signed, signed], strict=True) as provider:
        codes = [(await post(client, provider, MESSAGES, messages=history)).status_code for _ in range(3)]
    assert codes == [200, 200, 200]


async def test_bad_requests_leave_the_provider_alive(client: httpx.AsyncClient) -> None:
    """What is no HTTP or no JSON gets a 400."""
    async with ScriptedProvider(Answer("x")) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(b"nonsense\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()
        assert (await client.post(provider.url + CHAT, content=b"{")).status_code == 400
        assert (await post(client, provider)).status_code == 200


async def test_events_of_a_slow_reader_wait() -> None:
    """A client that does not read makes the provider wait: what it has sent stays bounded."""
    events = [b"data: " + b"x" * 65_536 + b"\n\n"] * 2_000
    async with ScriptedProvider(RawStream(events)) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port, limit=1024)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 7\r\n\r\n" + b'{"a":1}')
        await provider.wait_sent(1)
        assert not provider.requests[0].finished
        assert provider.requests[0].sent < 2_000
        writer.transport.abort()
        await provider.wait_closed(1)
        del reader


def test_the_provider_runs_in_a_thread_for_tests_that_are_not_async() -> None:
    """`with` gives a provider that answers blocking clients, and stops with the block."""
    with ScriptedProvider(Answer("x")) as provider:
        assert httpx.post(provider.url + CHAT, json=BODY).status_code == 200
        assert [request.body for request in provider.requests] == [BODY]
    with pytest.raises(httpx.ConnectError):
        httpx.post(provider.url + CHAT, json=BODY)


async def test_a_provider_in_a_thread_can_be_waited_for_from_another_loop(client: httpx.AsyncClient) -> None:
    """The waits and `release` work across threads."""
    with ScriptedProvider(Answer("x", faults=[Stall()])) as provider:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(post(client, provider))
            await provider.wait_requests(1)
            provider.release()
            assert (await waiting).status_code == 200


def test_a_port_that_is_taken_is_an_error_in_the_callers_thread() -> None:
    """Starting twice on one port raises instead of hanging."""
    with ScriptedProvider(Answer("x")) as first:
        second = ScriptedProvider(Answer("x"), port=first.port)
        with pytest.raises(OSError, match="address already in use"):
            second.start_in_thread()
        second.stop()


async def test_paced_answers_do_not_wait_for_a_client_that_left(client: httpx.AsyncClient) -> None:
    """An hour's pace ends when the client leaves."""
    async with ScriptedProvider(Answer(Text("a", "b"), pace=3600)) as provider:
        async with client.stream("POST", provider.url + CHAT, json=BODY) as response:
            await anext(response.aiter_raw())
        await provider.wait_closed(1)
