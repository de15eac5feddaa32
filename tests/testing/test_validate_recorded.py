"""What the validators find in providers' own streams: a list, with the reason of each entry, that a change has to face."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi.testing import StreamValidator
from luthien_asgi.testing.inspecting import inspect

CUT = "the recording lacks its last line feed"
OLD = "recorded with usage, by a version of the API that did not announce it with `usage: null`"
FOUND: dict[str, tuple[str, dict[str, int]]] = {
    "alibaba/vercel-tool-call.jsonl": (
        "id and type come with every fragment of a call; the usage chunk's choice has no finish_reason",
        {"tool-continued": 3, "finish-null": 1},
    ),
    "anthropic/sdk-basic.sse": (CUT, {"unfinished-event": 1}),
    "anthropic/sdk-compaction.sse": (CUT, {"unfinished-event": 1}),
    "anthropic/sdk-fallback.sse": (CUT, {"unfinished-event": 1}),
    "anthropic/sdk-refusal.sse": (f"a refusal has a text block without text; {CUT}", {"empty-text": 1, "unfinished-event": 1}),
    "anthropic/sdk-tool-use.sse": (CUT, {"unfinished-event": 1}),
    "anthropic/vercel-BAD-duplicate-message-start.jsonl": (
        "two message_start: that is why it was recorded",
        {"message-twice": 1},
    ),
    "anthropic/vercel-programmatic-tools-turn1.jsonl": (
        "a call that code at the provider made starts with its whole input",
        {"block-fresh": 1},
    ),
    "azure/vercel-model-router.jsonl": (
        "a first chunk with the prompt's filter results has no choice, id, model, object or time; results beside later choices",
        {"unknown-field": 7, "object": 1, "no-choice": 1, "identity": 3},
    ),
    "deepseek/pai-reasoning-content.sse": (
        "the usage is in the chunk of the finish reason, with figures of its own",
        {"unknown-field": 1, "usage-choices": 1},
    ),
    "groq/vercel-tool-call.jsonl": (
        "x_groq; usage in the last choice's chunk, unannounced",
        {"unknown-field": 3, "usage-choices": 1, "usage-null": 1},
    ),
    "mistral/vercel-incremental-tool.jsonl": (
        "no role; an empty name in the later fragments; usage in the last choice's chunk, unannounced",
        {"unknown-field": 3, "role-missing": 1, "tool-continued": 1, "usage-choices": 1, "usage-null": 1},
    ),
    **dict.fromkeys(
        (
            "openai/sdk-content-logprobs.sse",
            "openai/sdk-length.sse",
            "openai/sdk-n3-json.sse",
            "openai/sdk-refusal.sse",
            "openai/sdk-text.sse",
            "openai/sdk-tool-nonstrict.sse",
            "openai/sdk-tool.sse",
        ),
        (OLD, {"usage-null": 1}),
    ),
    "openai-compat/vercel-tool-index-from-1.sse": (
        f"calls are numbered from 1: that is why it was recorded; {CUT}",
        {"tool-index": 1, "unfinished-event": 1},
    ),
    "openai-responses/pai-text.sse": ("from before there were sequence numbers", {"sequence": 15}),
    "openai-responses/vercel-phase.jsonl": (
        "an excerpt: whoever recorded it left deltas and an item out",
        {"sequence": 3, "text-done": 1, "part-done": 1, "item-done": 1, "item-index": 1, "item-not-open": 6, "output": 1},
    ),
    "openai-responses/vercel-reasoning-encrypted.jsonl": (
        "two answers in one file; reasoning is encrypted anew for the last event",
        {"output": 1, "after-end": 54},
    ),
    "openrouter/pai-reasoning-details.sse": (
        "the role in every chunk, usage beside a choice that had its finish",
        {"unknown-field": 44, "role-repeated": 13, "usage-choices": 1, "usage-null": 1, "after-finish": 1},
    ),
    "openrouter/pai-stream-error.sse": (
        "the role in every chunk, the finish twice, then an error without a type, then [DONE]",
        {
            "unknown-field": 9,
            "role-repeated": 2,
            "finish-repeated": 1,
            "field": 1,
            "error-after-finish": 1,
            "after-end": 1,
        },
    ),
    "perplexity/vercel-citations.jsonl": (
        "role, usage and citations in every chunk, no finish_reason until the last, whose object and time are others",
        {
            "finish-null": 7,
            "unknown-field": 8,
            "usage-choices": 8,
            "usage-repeated": 7,
            "role-repeated": 7,
            "identity": 1,
            "object": 1,
        },
    ),
    "zai/pai-thinking.sse": (
        "the role in every chunk, no finish_reason until the last, usage in the last choice's chunk, unannounced",
        {"finish-null": 92, "role-repeated": 92, "usage-choices": 1, "usage-null": 1},
    ),
}
ILLEGAL = {
    "openai-compat/vercel-tool-index-from-1.sse",
    "openai-responses/vercel-phase.jsonl",
    "openai-responses/vercel-reasoning-encrypted.jsonl",
    "openrouter/pai-stream-error.sse",
}
"""What is an error also in a provider's stream. In all others, what is found is known of providers, and a warning."""


def of_folder(name: str) -> Any:
    folder = name.partition("/")[0]
    return {"anthropic": "anthropic", "openai-responses": "responses"}.get(folder, "openai")


def recordings(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*") if path.suffix in {".sse", ".jsonl"})


def test_what_is_found_in_each_recording_is_listed(recorded: Path) -> None:
    """By rule and how often; the wire is told from the data. A recording that is not listed has nothing wrong."""
    for name in recordings(recorded):
        with (recorded / name).open("rb") as file:
            found = inspect(file, strict=False)
        assert found.wire == of_folder(name)
        assert dict(Counter(violation.rule for violation in found.violations)) == FOUND.get(name, ("", {}))[1], name
        assert any(violation.severity == "error" for violation in found.violations) == (name in ILLEGAL), name


def test_the_list_has_no_recording_that_is_gone(recorded: Path) -> None:
    """Each entry is of a file that is there."""
    assert set(FOUND) <= set(recordings(recorded))


@pytest.mark.parametrize("size", [1, 7])
def test_the_cuts_of_a_stream_do_not_matter(size: int, recorded: Path) -> None:
    """Byte by byte or at once: the same violations at the same places, and the same summary."""
    for name in recordings(recorded):
        if not name.endswith(".sse"):
            continue
        data = (recorded / name).read_bytes()
        whole, cut = StreamValidator(of_folder(name)), StreamValidator(of_folder(name))
        whole.feed(data)
        for place in range(0, len(data), size):
            cut.feed(data[place : place + size])
        assert [*whole.end(), *whole.violations] == [*cut.end(), *cut.violations]
        assert whole.summary() == cut.summary()
