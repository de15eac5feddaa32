"""The validators of `luthien_asgi.testing`, and which of their rules a provider may break without a fault of ours.

Strategy: what is about the order of events, their shape and their end holds for every stream. What is about the words of a model
or of its provider, which go on as they are, is let pass here by its rule's name, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from luthien_asgi.testing import Violation, validate_body, validate_stream

__all__ = ["LET_PASS", "illegal_body", "illegal_stream"]

LET_PASS: Final[Mapping[str, str]] = {
    "tool-json": "a model may write arguments that are no JSON, and be cut off in them",
    "empty-text": "an empty block of the provider's own goes on: the policy saw it",
    "block-fresh": "the SDKs begin with what a provider's start says",
    "stop-sequence": "a provider's own words about why it stopped",
    "tool-open": "a call that its provider never named; nothing of what it said is lost",
    "tool-id": "ids are the provider's; one that it gives to two calls stays with both",
}
_SAME_WIRE: Final[Mapping[str, str]] = {
    "after-tool": "on the same wire the provider's own order stands",
    "tool-stop": "on the same wire the provider's own stop reason stands while a call survives",
}
_SIDE_DATA: Final = re.compile(r"\.(logprobs|audio)\b")
"""What is inside a provider's own log probabilities and audio; `fuzz_check` looks at what the SDKs read of them."""
_PROVIDERS: Final = re.compile(r" is missing$|(content_block|content\[\d+\])\.(content|is_error|caller)\b")
"""What a provider left out of an object of its own, and what a tool gave back that ran there: no SDK reads it in a stream."""
_NULLS: Final = re.compile(r"(usage\.\w+\.\w+|(content_block|content\[\d+\])\.input) must be .*, not null$")
"""A null for a detailed count, or for the input of a tool that ran at the provider: it is missing, said in another way."""


def illegal_stream(client: Any, data: bytes, *, backend: str) -> str:
    """Return what is illegal about a stream, or nothing."""
    return _first(validate_stream(client, data, include_usage=True if client == "openai" else None), same=client == backend)


def illegal_body(client: Any, body: Mapping[str, Any], *, backend: str) -> str:
    """Return what is illegal about a body, or nothing."""
    return _first(validate_body(client, body), same=client == backend)


def _first(violations: Iterable[Violation], *, same: bool) -> str:
    passing = {*LET_PASS, *_SAME_WIRE} if same else {*LET_PASS}
    for one in violations:
        let_pass = one.rule in passing or _SIDE_DATA.search(one.message) or (same and _left_out(one.message))
        if one.severity == "error" and not let_pass:
            return f"{one.rule}: {one.message}"
    return ""


def _left_out(message: str) -> bool:
    return bool(_PROVIDERS.search(message) or _NULLS.search(message))
