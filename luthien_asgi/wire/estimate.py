"""A cheap local guess of a request's input tokens, for `message_start` and for providers that do not count.

Four characters a token is what providers give as a rule of thumb for English; an image is about what a full-size one costs at
Anthropic (width x height / 750, at most 1568 by 1568 pixels, documented), a file about two pages of text and image.
"""

from __future__ import annotations

from typing import Final

from luthien_asgi import jsontext
from luthien_asgi.request import ChatRequest, RequestBlock

__all__ = ["estimate_tokens"]

_CHARACTERS: Final = 4
_MESSAGE: Final = 4
"""Tokens around each message: its role and separators (OpenAI cookbook)."""
_ATTACHMENTS: Final = {"image": 1600, "document": 3000}


def estimate_tokens(request: ChatRequest) -> int:
    """Return an estimate of the input tokens, at least 1. Linear in the size of the request; no tokenizer is loaded."""
    blocks = request.blocks()
    text = sum(len(block.text) + len(block.name) for block in blocks)
    text += sum(len(jsontext.dumps(request.body[field])) for field in ("tools", "functions") if request.body.get(field))
    attached = sum(_attachment(block) for block in blocks)
    messages = request.body.get("input" if request.wire == "responses" else "messages")
    framing = _MESSAGE * len(messages) if isinstance(messages, list) else 0
    return max(1, text // _CHARACTERS + attached + framing)


def _attachment(block: RequestBlock) -> int:
    return 0 if block.text else _ATTACHMENTS.get(block.kind, 0)
