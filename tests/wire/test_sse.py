"""Server-sent events: lines, cuts, sizes, frames."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.errors import BackendError
from luthien_asgi.wire.sse import COMMENT, SSEDecoder, SSEEvent, frame

LIFE = SSEEvent("", None)
HARD = (
    b"\xef\xbb\xbf: one\n\ndata: a\n\nevent: x\ndata: b\r\n\r\ndata:c\r\rdata\ndata\n\n\n\n\n"
    b": two\n: three\ndata:  two spaces\nid: 7\nretry: 9\nevent:y\n"
    b"data:\xf0\x9f\xa6\x8a\xe2\x80\xa8\x0b\x0c\xc2\x85z\n\nevent: ping\n\n"
    b": end\n\n\r\ndata: [DONE]\n\n"
)
HARD_EVENTS = [
    LIFE,
    SSEEvent("", b"a"),
    SSEEvent("x", b"b"),
    SSEEvent("", b"c"),
    SSEEvent("", b"\n"),
    LIFE,
    LIFE,
    SSEEvent("y", b" two spaces\n\xf0\x9f\xa6\x8a\xe2\x80\xa8\x0b\x0c\xc2\x85z"),
    LIFE,
    LIFE,
    SSEEvent("", b"[DONE]"),
]


def decode(*packets: bytes, limit: int = 1 << 20) -> list[SSEEvent]:
    decoder = SSEDecoder(limit)
    events = [event for packet in packets for event in decoder.feed(packet)]
    return [*events, *decoder.close()]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_whatwg_line_rules_hold_for_a_stream_with_everything() -> None:
    """LF, CR, CRLF, a byte order mark, comments, several data lines and one optional space; U+2028 and its like split nothing."""
    assert decode(HARD) == HARD_EVENTS


def test_a_stream_byte_by_byte_gives_the_same_events() -> None:
    """Cuts inside CRLF, the byte order mark, a character or a blank line change nothing."""
    assert decode(*(HARD[i : i + 1] for i in range(len(HARD)))) == HARD_EVENTS


@settings(deadline=None)
@given(st.lists(st.integers(0, 10_000), max_size=8))
def test_any_cut_gives_the_same_events(places: list[int]) -> None:
    """The packets' borders, empty packets included, do not show."""
    assert decode(*cut(HARD, places)) == HARD_EVENTS


@settings(deadline=None)
@given(st.text("ad:\n\r e", max_size=60).map(str.encode), st.lists(st.integers(0, 100), max_size=5))
def test_any_text_gives_the_same_events_for_any_cut(data: bytes, places: list[int]) -> None:
    """Also what is no valid stream is read the same in every cut."""
    assert decode(*cut(data, places)) == decode(data)


def test_an_event_leaves_with_the_packet_that_completes_it() -> None:
    """Nothing waits for the next packet: not an event after its blank line, not a comment after its line's end."""
    decoder = SSEDecoder(100)
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\n\r") == [SSEEvent("", b"a")]
    assert decoder.feed(b"\n: still here\n") == [LIFE]
    assert decoder.feed(b"data: b\n\ndata") == [SSEEvent("", b"b")]


def test_an_event_without_its_blank_line_is_delivered_at_the_end() -> None:
    """Providers leave the last blank line out; what has no data is not made an event."""
    assert decode(b"event: x\ndata: a") == [SSEEvent("x", b"a")]
    assert decode(b"event: x\n") == []


def test_an_event_that_is_too_large_is_an_error_after_what_came_before_it() -> None:
    """The events before it are returned; the error waits in `error` and is raised by the next call."""
    decoder = SSEDecoder(20)
    assert decoder.feed(b"data: a\n\ndata: " + b"x" * 30 + b"\n\n") == [SSEEvent("", b"a")]
    assert decoder.error is not None
    assert decoder.error.message == "the provider sent an event of more than 20 bytes (frame_bytes)"
    with pytest.raises(BackendError):
        decoder.feed(b"data: b\n\n")
    with pytest.raises(BackendError):
        decoder.close()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_size_limit_does_not_depend_on_the_packets(size: int) -> None:
    """An event of exactly the limit passes in every cut, one byte more in none; memory stays bounded while it arrives."""
    for extra, passes in ((0, True), (1, False)):
        data = b"data: " + b"x" * (94 + extra) + b"\n\n"
        decoder = SSEDecoder(100)
        for start in range(0, len(data), size):
            if decoder.error is None:
                decoder.feed(data[start : start + size])
        assert (decoder.error is None) is passes


def test_one_event_in_many_packets_is_joined_once() -> None:
    """A large event in tens of thousands of packets arrives whole; quadratic work would run into the test's time limit."""
    body = b"x" * 4_000_000
    data = b"data: " + body + b"\n\n"
    assert decode(*(data[i : i + 50] for i in range(0, len(data), 50)), limit=1 << 23) == [SSEEvent("", body)]


def test_a_frame_is_read_back_as_the_event_that_it_was_made_from() -> None:
    """`frame` writes what the decoder reads, with and without a name; the keepalive is a comment."""
    data = '{"a":"\u2028 ü"}'.encode()
    assert frame(data) == b"data: " + data + b"\n\n"
    assert decode(frame(data, "x"), COMMENT, frame(data)) == [SSEEvent("x", data), LIFE, SSEEvent("", data)]


@pytest.mark.parametrize("data", [b"a\nb", b"a\r", b"\n"])
def test_a_frame_never_holds_a_line_break(data: bytes) -> None:
    """A line break in the data would let it forge another event."""
    with pytest.raises(ValueError, match="one line"):
        frame(data)
