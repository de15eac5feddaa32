"""The iterator over an answer's chunks: what a packet of the provider's gives."""

from __future__ import annotations

from collections.abc import Sequence

from luthien_asgi.backend.stream import Batch, ChunkStream, StreamInfo
from luthien_asgi.chunks import read_part
from luthien_asgi.wire.openai_decoder import OpenAIDecoder


class Packets:
    """A source of packets: each is decoded and read as a whole."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self.packets = list(packets)
        self.decoder = OpenAIDecoder(1 << 20, 1)

    async def read(self) -> Batch:
        if not self.packets:
            return Batch(self.decoder.finish(), ended=True)
        return Batch(self.decoder.feed(self.packets.pop(0)))

    async def close(self) -> None:
        """Hold nothing."""


def stream_of(*packets: bytes) -> ChunkStream:
    info = StreamInfo(wire="openai", decoder="openai", headers={}, sent={}, ignored=(), notes=(), close_timeout=1)
    return ChunkStream(Packets(packets), info)


def event(choice: str) -> bytes:
    return b'data: {"id":"c","created":1,"model":"m","choices":[{"index":0,%s}]}\n\n' % choice.encode()


FINISH = event('"delta":{},"finish_reason":"stop"') + b"data: [DONE]\n\n"


async def test_a_packet_full_of_comments_is_one_sign_of_life() -> None:
    """A provider that floods us with pings costs a packet, not thousands of turns through the pipeline."""
    flood = b": ping\n\n" * 10_000
    chunks = [chunk async for chunk in stream_of(flood, flood + event('"delta":{"content":"a"}') + flood, FINISH)]
    idle = [chunk for chunk in chunks if not chunk.choices]
    assert len(idle) == 1
    assert [read_part(chunk).text for chunk in chunks if read_part(chunk).text] == ["a"]


async def test_each_packet_without_a_word_is_a_sign_of_life() -> None:
    """Two pings that come apart keep the provider from being taken for silent twice."""
    chunks = [chunk async for chunk in stream_of(b": ping\n\n", b": ping\n\n", event('"delta":{"content":"a"}'), FINISH)]
    assert [bool(chunk.choices) for chunk in chunks[:3]] == [False, False, True]
