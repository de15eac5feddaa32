"""`UpperCase`: every chunk changed, nothing kept back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import read_part
from luthien_asgi.context import StreamContext
from luthien_asgi.policies import UpperCase
from luthien_asgi.request import WireName
from luthien_asgi.testing import Thinking, ToolCall, chunks, run_policy, text_chunk


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [True, False])
async def test_text_is_in_capitals_and_nothing_else_is_changed(client: WireName, stream: bool) -> None:
    """Thinking and tool calls are left alone, in both formats, streaming or not."""
    script = chunks(Thinking("hm", signature="c2ln"), "straße ", "🙂", ToolCall("c1", "look", '{"a": "b"}'))
    run = await run_policy(UpperCase(), script, client=client, stream=stream)
    assert run.text == "STRASSE 🙂"
    assert run.thinking == "hm"
    assert [(call.name, call.arguments) for call in run.tool_calls] == [("look", {"a": "b"})]


async def test_boundaries_of_chunks_stay() -> None:
    """As many chunks leave as came."""
    run = await run_policy(UpperCase(), chunks("a", "b", "c"), client="anthropic")
    assert sum(b"text_delta" in frame for frame in run.frames) == 3


@given(pieces=st.lists(st.text(max_size=5), max_size=5))
@settings(deadline=None)
def test_any_cut_gives_the_same_text(pieces: list[str]) -> None:
    """Fragment invariance, with `str.upper` of the whole as the oracle; a chunk without lower case passes as it is."""
    nobody: Any = None
    ctx = StreamContext(transaction_id="t", request=nobody, keepalive=lambda: None, text=text_chunk)
    left = ""
    for piece in pieces:
        result = UpperCase().on_chunk_added(text_chunk(piece), ctx)
        left += piece if result is None else "".join(read_part(chunk).text for chunk in result)
        assert (result is None) == (piece == piece.upper())
    assert left == "".join(pieces).upper()


def test_it_handles_text_alone() -> None:
    """Kinds that are not named cost nothing."""
    assert set(UpperCase.handles) == {BlockKind.TEXT}
