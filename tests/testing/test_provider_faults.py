"""Each fault of the scripted provider as it is on the wire, read from a plain socket and by an HTTP client."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
import zlib
from typing import Any

import httpx
import pytest

from luthien_asgi import jsontext
from luthien_asgi.testing import (
    Again,
    Answer,
    BadChunk,
    ContentType,
    Delay,
    Drip,
    Gzip,
    Half,
    HeaderBomb,
    Headers,
    Informational,
    LongLine,
    ScriptedProvider,
    Stall,
    Text,
    Trailing,
    Truncate,
    WrongLength,
    accumulate_anthropic,
    accumulate_openai,
)

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


LIMIT = 8 * 1024 * 1024


def request_bytes() -> bytes:
    content = jsontext.dumps(BODY)
    return b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(content), content)


async def fetched(*faults: Any, parts: tuple[str, ...] = ("a", "b"), path: str = CHAT) -> httpx.Response:
    async with ScriptedProvider(Answer(Text(*parts), faults=faults)) as provider, httpx.AsyncClient(timeout=10) as client:
        return await client.post(provider.url + path, json=BODY)


async def on_the_wire(*faults: Any, parts: tuple[str, ...] = ("a", "b"), closes: bool = True) -> bytes:
    """Return every byte that a connection brings until it is closed, or until HTTP's last chunk."""
    async with ScriptedProvider(Answer(Text(*parts), faults=faults)) as provider, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(provider.host, provider.port, limit=LIMIT)
        writer.write(request_bytes())
        try:
            return await (reader.read() if closes else reader.readuntil(b"\r\n0\r\n\r\n"))
        finally:
            writer.close()
            await writer.wait_closed()


async def test_a_delay_before_the_headers_is_one_and_ends_with_release() -> None:
    """Nothing comes for its time, and then the whole answer; `release()` ends it at once."""
    begun = time.monotonic()
    response = await fetched(Delay(seconds=0.1))
    assert time.monotonic() - begun >= 0.1
    assert accumulate_openai(response.content).done
    async with (
        ScriptedProvider(Answer("x", faults=[Delay(seconds=3600)])) as provider,
        httpx.AsyncClient() as client,
        asyncio.TaskGroup() as group,
    ):
        waiting = group.create_task(client.post(provider.url + CHAT, json=BODY))
        await provider.wait_requests(1)
        provider.release()
        assert (await waiting).status_code == 200


@pytest.mark.parametrize(("at", "expected"), [(3, b"dat"), ("middle", None), ("character", None)])
async def test_half_an_event_is_sent_alone_and_its_rest_follows(at: Any, expected: bytes | None) -> None:
    """The event is in two of HTTP's chunks; inside a character, the first ends where UTF-8 goes on."""
    wire = await on_the_wire(Half(after=1, at=at), parts=("aé", "b"), closes=False)
    sizes_and_data = wire.split(b"\r\n\r\n", 1)[1].split(b"\r\n")
    first, second = sizes_and_data[3], sizes_and_data[5]
    assert expected is None or first == expected
    assert (first + second).startswith(b"data: {")
    if at == "character":
        assert first.endswith(b"a\xc3")
        assert second.startswith(b"\xa9")


async def test_half_an_event_and_then_another_fault() -> None:
    """Faults at one place happen in their order: half a frame, then the end of the response."""
    response = await fetched(Half(after=2), Truncate(after=2))
    assert response.content.count(b"\n\n") == 2
    assert not response.content.endswith(b"\n")


async def test_half_an_event_and_then_silence() -> None:
    """The rest comes with `release()`."""
    answer = Answer("x", faults=[Half(after=1, at=5), Stall(after=1)])
    async with (
        ScriptedProvider(answer) as provider,
        httpx.AsyncClient() as client,
        client.stream("POST", provider.url + CHAT, json=BODY) as response,
    ):
        got, parts = b"", response.aiter_raw()
        while not got.endswith(b"\n\ndata:"):
            got += await anext(parts)
        provider.release()
        rest = got + b"".join([part async for part in parts])
    assert accumulate_openai(rest).done


async def test_a_drip_sends_single_bytes_and_then_goes_on() -> None:
    """So many bytes take at least so long; nothing is changed in the answer."""
    begun = time.monotonic()
    response = await fetched(Drip(after=1, seconds=0.01, size=20))
    assert time.monotonic() - begun >= 0.2
    assert accumulate_openai(response.content).done


async def test_a_bad_chunk_size_breaks_http() -> None:
    """The client's parser refuses it."""
    with pytest.raises(httpx.RemoteProtocolError):
        await fetched(BadChunk(after=1))


async def test_a_long_line_has_its_size_and_the_answer_goes_on() -> None:
    """One line of the body has exactly the bytes that were asked for."""
    content = (await fetched(LongLine(after=1, size=1_000_000))).content
    assert [len(line) for line in content.split(b"\n") if b"xxx" in line] == [1_000_000]
    assert content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(("after", "tail"), [(1000, True), (-1, False)])
async def test_a_second_answer_comes_after_the_end_or_before_it(after: int, tail: bool) -> None:
    """A negative place counts from the end: -1 is before `[DONE]`."""
    content = (await fetched(Again(after=after))).content
    first, second = content.find(b'scripted-1"'), content.find(b'scripted-2"')
    assert 0 <= first < second
    assert (content.find(b"[DONE]") < second) == tail
    assert content.count(b"[DONE]") == 2
    anthropic = (await fetched(Again(after=after), path=MESSAGES)).content
    assert anthropic.count(b'"type":"message_start"') == 2


async def test_truncate_before_the_end_leaves_out_the_last_events() -> None:
    """`Truncate(after=-1)` is a stream whose `[DONE]` or `message_stop` is missing."""
    openai, anthropic = [(await fetched(Truncate(after=-1), path=path)).content for path in (CHAT, MESSAGES)]
    assert b"[DONE]" not in openai
    assert b'"finish_reason":"stop"' in openai
    assert b"message_stop" not in anthropic
    assert not accumulate_anthropic(anthropic).done


@pytest.mark.parametrize("value", [None, "text/html"])
async def test_the_content_type_may_be_another_or_none(value: str | None) -> None:
    """The body is that of the answer all the same."""
    response = await fetched(ContentType(value))
    assert response.headers.get("content-type") == value
    assert accumulate_openai(response.content).done


async def test_gzip_is_what_it_says_or_not() -> None:
    """An honest one is decoded by a client, event by event; of the other the decoder complains."""
    response = await fetched(Gzip(), Half(after=1))
    assert response.headers["content-encoding"] == "gzip"
    assert accumulate_openai(response.content).done
    with pytest.raises(httpx.DecodingError):
        await fetched(Gzip(honest=False))


async def test_gzip_and_a_long_line_are_a_bomb() -> None:
    """A thousandth of the line's size is on the wire, and it is whole."""
    wire = await on_the_wire(Gzip(), LongLine(after=1, size=10_000_000), closes=False)
    assert len(wire) < 100_000
    body = b"".join(piece for piece in _chunks(wire.split(b"\r\n\r\n", 1)[1]))
    assert len(gzip.decompress(body)) > 10_000_000


def _chunks(body: bytes) -> list[bytes]:
    pieces = []
    while size := int(body[: body.index(b"\r\n")], 16):
        start = body.index(b"\r\n") + 2
        pieces.append(body[start : start + size])
        body = body[start + size + 2 :]
    return pieces


async def test_gzip_ends_in_a_whole_container() -> None:
    """The decoder has seen the end of the stream, so nothing of it is missing."""
    body = b"".join(_chunks((await on_the_wire(Gzip(), closes=False)).split(b"\r\n\r\n", 1)[1]))
    decoder = zlib.decompressobj(wbits=31)
    decoder.decompress(body)
    assert decoder.eof


async def test_headers_may_come_twice() -> None:
    """Both are there, in their order."""
    response = await fetched(Headers(("content-type", "text/html"), ("x-a", "1"), ("x-a", "2")))
    assert response.headers.get_list("content-type") == ["text/event-stream", "text/html"]
    assert response.headers.get_list("x-a") == ["1", "2"]


async def test_a_header_bomb_has_its_size() -> None:
    """So many bytes of headers go out to whoever takes them."""
    head = (await on_the_wire(HeaderBomb(size=1_000_000, line=100), closes=False)).split(b"\r\n\r\n", 1)[0]
    assert 1_000_000 <= len(head) < 1_010_000


async def test_informational_responses_come_before_the_one_that_counts() -> None:
    """A client of HTTP/1.1 passes over them."""
    wire = await on_the_wire(Informational(status=103, count=2), closes=False)
    assert wire.startswith(b"HTTP/1.1 103 ")
    assert wire.count(b"HTTP/1.1 103 ") == 2
    assert accumulate_openai((await fetched(Informational(status=103, count=2))).content).done


async def test_a_content_length_that_is_too_long_breaks_off() -> None:
    """The connection is closed where the body ends, which is less than was promised."""
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        await fetched(WrongLength(by=10))
    wire = await on_the_wire(WrongLength(by=10))
    head, _, body = wire.partition(b"\r\n\r\n")
    assert int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) == len(body) + 10


async def test_a_content_length_that_is_too_short_leaves_bytes_over() -> None:
    """The client has less than was sent, and the connection stays open."""
    whole = (await fetched()).content
    async with ScriptedProvider(Answer(Text("a", "b"), faults=[WrongLength(by=-10)])) as provider, httpx.AsyncClient() as client:
        assert (await client.post(provider.url + CHAT, json=BODY)).content == whole[:-10]
        assert provider.requests[0].finished


async def test_trailing_bytes_follow_the_end_of_the_response() -> None:
    """They are on the connection behind HTTP's last chunk, which stays open."""
    async with ScriptedProvider(Answer("x", faults=[Trailing(data=b"HTTP/1.1 200 ")])) as provider, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(request_bytes())
        wire = await reader.readuntil(b"\r\n0\r\n\r\nHTTP/1.1 200 ")
        assert wire.endswith(b"HTTP/1.1 200 ")
        assert not reader.at_eof()
        assert provider.connections == 1
        writer.close()
        await writer.wait_closed()


async def test_tls_without_a_certificate_refuses_everybody() -> None:
    """A server's side of TLS that has nothing to show fails the handshake, and no request comes in."""
    async with ScriptedProvider(Answer("x"), tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as provider:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.post(provider.url + CHAT, json=BODY)
        assert provider.url.startswith("https://")
        assert provider.requests == []


@pytest.mark.parametrize("fault", [LongLine(after=0, size=1 << 40), HeaderBomb(size=1 << 40), Drip(seconds=60, size=1 << 40)])
async def test_a_fault_without_end_ends_when_the_client_leaves(fault: Any) -> None:
    """Nothing is sent to nobody."""
    async with ScriptedProvider(Answer("x", faults=[fault])) as provider:
        _, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 7\r\n\r\n" + b'{"a":1}')
        await provider.wait_requests(1)
        writer.transport.abort()
        await provider.wait_closed(1)
