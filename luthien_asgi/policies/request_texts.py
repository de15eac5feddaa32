"""Changing the texts of a request, JSON included: a text as it is; the arguments of a tool call, and whatever else is JSON,
string by string (`json_strings`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from luthien_asgi.json_strings import Change, changed_json
from luthien_asgi.request import ChatRequest

__all__ = ["with_changed_texts"]

_JSON_KINDS: Final = frozenset({"tool_call", "other"})


def with_changed_texts(request: ChatRequest, change: Change, *, kinds: Collection[str], keys: bool = False) -> ChatRequest:
    """Return a request whose blocks of some kinds have their texts changed; the same request where nothing is.

    In JSON the strings are changed; with `keys` also the names of fields, and numbers that `change` changes become strings.
    """
    edits = []
    for block in request.blocks():
        if block.kind not in kinds or not block.text:
            continue
        text = changed_json(block.text, change, keys=keys) if block.kind in _JSON_KINDS else change(block.text)
        if text != block.text:
            edits.append((block, text))
    return request.with_texts(edits) if edits else request
