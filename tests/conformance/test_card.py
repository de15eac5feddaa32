"""The score card itself: what it lets pass and what it does not. `tox -e conformance` makes all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import conf_card
import pytest
from conf_card import Card, columns, fill
from conf_exceptions import EXCEPTIONS, Exempt
from conf_readers import PythonReader
from conf_stage import Recording, Stage, recordings, stage

pytestmark = [
    pytest.mark.litellm,
    pytest.mark.skipif(not recordings(), reason="no recorded streams: set LUTHIEN_RECORDED to their folder"),
]


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as made:
        yield made


def named(name: str) -> Recording:
    return next(one for one in recordings() if one.name == name)


def card_of(on: Stage, reader: Any, name: str) -> Card:
    card = Card(columns(("legal", "python")))
    fill(card, on, {"python": reader}, named(name))
    return card


@pytest.mark.parametrize("name", ["anthropic/pai-mcp.sse", "openai/sdk-n3-json.sse", "openrouter/pai-stream-error.sse"])
def test_a_row_is_equal_in_every_column(name: str, on: Stage) -> None:
    """Thinking, tools that ran at the provider, three choices, an error at the end: in both formats, streamed and not."""
    card = card_of(on, PythonReader(), name)
    assert {cell.mark for cell in card.cells[name].values()} == {"."}, card.cells


class Forgetful(PythonReader):
    """Loses the last choice's finish reason."""

    def read(self, client: str, url: str, request: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        found = super().read(client, url, request, stream=stream)
        if "choices" in found and url != self.provider:
            found["choices"][-1]["finish_reason"] = "length"
        return found

    def __init__(self, provider: str) -> None:
        self.provider = provider


def test_a_difference_is_red(on: Stage) -> None:
    """A field that came out differently, and has no exception."""
    name = "openai/sdk-text.sse"
    card = card_of(on, Forgetful(on.provider_url), name)
    red = {column.title: cell.red for column, cell in card.cells[name].items() if cell.red}
    assert set(red) == {"openai python stream", "openai python body"}
    assert red["openai python body"] == [
        'choices[0].finish_reason: "stop" became "length"',
        'content.choices[0].finish: "stop" became "length"',
    ]


def test_an_exception_that_nothing_needs_is_told(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of exceptions cannot grow stale."""
    idle = Exempt("openai/sdk-text.sse", "openai", "usage", "it was once so")
    monkeypatch.setattr(conf_card, "EXCEPTIONS", (idle,))
    card = card_of(on, PythonReader(), "openai/sdk-text.sse")
    assert card.idle == [idle]


def test_every_exception_is_of_a_recording_and_has_a_reason() -> None:
    """An exception names what it is about."""
    names = {one.name for one in recordings()}
    assert all(one.recording in names and one.reason for one in EXCEPTIONS)
