"""Contexts: what belongs to one transaction is there once, and to no other."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from luthien_asgi.chunks import Chunk
from luthien_asgi.context import NullObservability, ObservabilityContext, PolicyContext, StreamContext, now
from luthien_asgi.request import ChatRequest


@dataclass
class Seen:
    names: list[str] = field(default_factory=list)


@dataclass
class Other:
    count: int = 0


def transaction(identity: str = "t1") -> PolicyContext:
    return PolicyContext(transaction_id=identity, request=ChatRequest(wire="openai", body={"model": "m"}), client="alice")


def streaming(ctx: PolicyContext, beats: list[str]) -> StreamContext:
    def text(words: str) -> Chunk:
        return SimpleNamespace(id=words, created=0, model="m", choices=[])

    return StreamContext.of(ctx, keepalive=lambda: beats.append("beat"), text=text)


def test_state_is_made_once_a_transaction_and_class() -> None:
    """The same object each time it is asked for; another class has its own."""
    ctx = transaction()
    ctx.state(Seen).names.append("a")
    assert ctx.state(Seen).names == ["a"]
    assert ctx.state(Other).count == 0
    assert ctx.state(Seen) is ctx.state(Seen)


def test_two_transactions_share_neither_state_nor_scratchpad() -> None:
    """One policy object serves both at once."""
    one, two = transaction("t1"), transaction("t2")
    one.state(Seen).names.append("a")
    one.scratchpad["a"] = 1
    assert two.state(Seen).names == []
    assert two.scratchpad == {}


def test_state_may_be_made_by_a_function() -> None:
    """Any callable without arguments is a key of its own."""

    def start_at_three() -> Other:
        return Other(count=3)

    ctx = transaction()
    ctx.state(start_at_three).count += 1
    assert ctx.state(start_at_three).count == 4
    assert ctx.state(Other).count == 0


def test_a_stream_context_is_a_view_and_no_copy() -> None:
    """What `on_request` left is there while the answer streams, and the other way round."""
    ctx = transaction()
    ctx.state(Seen).names.append("request")
    ctx.scratchpad["a"] = 1
    stream = streaming(ctx, [])
    stream.state(Seen).names.append("stream")
    stream.scratchpad["b"] = 2
    stream.state(Other).count = 7
    assert ctx.state(Seen).names == ["request", "stream"]
    assert ctx.scratchpad == {"a": 1, "b": 2}
    assert ctx.state(Other).count == 7
    assert (stream.transaction_id, stream.client, stream.request) == ("t1", "alice", ctx.request)


def test_a_stream_context_hands_on_keepalive_and_text() -> None:
    """They are the executor's."""
    beats: list[str] = []
    stream = streaming(transaction(), beats)
    stream.keepalive()
    assert beats == ["beat"]
    assert stream.text("words").id == "words"


def test_a_misspelt_field_is_an_error() -> None:
    """A policy that invents a field of the context is told so; the scratchpad is for that."""
    with pytest.raises(AttributeError):
        transaction().transcation_id = "x"  # type: ignore[attr-defined]


def test_null_observability_takes_everything_and_swallows_no_exception() -> None:
    """Its span lets an error pass."""
    obs: ObservabilityContext = NullObservability()
    obs.set("a", 1)
    obs.event("b", {"c": 2})
    with pytest.raises(ValueError, match="passes"), obs.span("x", {"y": 1}):
        raise ValueError("passes")
    obs.end("completed", error="api_error")


def test_now_is_in_seconds_since_1970() -> None:
    """The wall clock, for records."""
    before = time.time()
    assert before <= now() <= time.time()
