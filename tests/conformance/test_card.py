"""The score card itself: what it lets pass and what it does not. `tox -e conformance` makes all of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import conf_card
import pytest
from conf_card import Card, columns, fill
from conf_content import content_of_answer
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
    """Thinking, tools that ran at the provider, three choices, an error at the end: in each format, streamed and not."""
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


class Mistaken(PythonReader):
    """Changes what a client of the Responses API reads."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def read(self, client: str, url: str, request: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        found = super().read(client, url, request, stream=stream)
        return {**found, **self.changes} if client == "responses" else found


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"output": []}, r"content\.choices\[0\]\.thinking: .* became \"\""),
        ({"output": [{"type": "web_search_call"}]}, r'content\.choices\[0\]\.order: .* became \["web_search_call"\]'),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, r'.*finish: "completed" became "max_output_tokens"'),
        ({"error": {"code": "server_error"}}, r"error: .*server_error"),
        ({"usage": None}, "content: not readable, TypeError"),
    ],
)
def test_what_a_responses_client_misses_is_red(changes: dict[str, Any], complaint: str, on: Stage) -> None:
    """No recording is of its wire: it is held against the content, and what cannot be read is a difference like another."""
    name = "anthropic/pai-thinking.sse"
    card = card_of(on, Mistaken(**changes), name)
    red = {column.title: cell.red for column, cell in card.cells[name].items() if cell.red}
    assert set(red) == {"responses python stream", "responses python body"}
    assert all(any(re.match(complaint, one) for one in cell) for cell in red.values()), red


def test_what_a_response_says() -> None:
    """Each kind of item, with what it carries for the provider."""
    sealed = base64.urlsafe_b64encode(b'{"kind": "thinking", "text": "hm", "signature": "c2ln"}').decode()
    link = {"type": "url_citation", "url": "https://e.org", "title": "t", "start_index": 3, "end_index": 5}
    text = {"type": "output_text", "text": "As it is.", "annotations": [link], "logprobs": [{"token": "As", "logprob": -0.5}]}
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": f"luthien.v1.{sealed}"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]},
        {"type": "message", "content": [text, {"type": "refusal", "refusal": "No."}]},
        {"type": "function_call", "call_id": "c1", "name": "get", "arguments": '{"x": 1}'},
    ]
    details = {
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    usage = {"input_tokens": 9, "output_tokens": 7, **details}
    assert content_of_answer("responses", {"error": None, "status": "completed", "output": output, "usage": usage}) == {
        "choices": [
            {
                "text": "As it is.",
                "thinking": "hmso",
                "refusal": "No.",
                "finish": "completed",
                "calls": [["c1", "get", {"x": 1}]],
                "signed": [["hm", "c2ln"], ["so", ""]],
                "cited": [["https://e.org", "it"]],
                "logprobs": [["As", -0.5]],
                "order": ["thinking", "text", "refusal", "call"],
            }
        ],
        "usage": {"input": 9, "output": 7, "cached": 2, "written": 3, "thought": 4},
    }


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
