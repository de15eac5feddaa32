"""What is asked of a person, and what was decided: values, with bounds on everything that a model or a client wrote.

An id is `<worker>-<token>`: 64 bits that name the desk it was made at, so that any worker can pass an answer on, and 128 bits
that nobody guesses. Both are lower-case hex and nothing else (`worker_of`): a worker's name becomes a file's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block

__all__ = ["Approval", "Decision", "Default", "new_id", "new_worker", "shown", "worker_of"]

Default = Literal["allow", "deny"]

CONTENT_SHOWN: Final = 8_000
"""Characters of a block that a person is shown: more is not read, and a hundred that wait are still a small body."""
QUESTION_SHOWN: Final = 2_000
NAME_SHOWN: Final = 200
"""Characters of a tool's or a model's name; real ones have at most 128."""
REASON_KEPT: Final = 2_000
_TAIL: Final = 4
"""One of so many parts of what is shown is the end: what is harmful may be put where a cut would hide it."""
_ID: Final = re.compile(r"([0-9a-f]{16})-[0-9a-f]{32}")
_WORKER: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One block that waits for a person. Texts are cut for display, in their middle, with a mark."""

    id: str
    transaction_id: str
    """The id that `x-luthien-transaction` and the record have."""
    policy: str
    question: str
    """What the policy asks."""
    kind: str
    """The block's kind, as in `BlockKind`."""
    tool: str
    """The name of the tool that is called; empty for other kinds."""
    content: str
    """The block's text, or a call's arguments as the model wrote them."""
    omitted: int = 0
    """Characters of the content that are not shown; the mark in `content` could have been written by a model, this is not."""
    client: str = ""
    model: str = ""
    asked_at: float
    """Seconds since 1970."""
    expires_at: float
    """When the default decides; seconds since 1970."""
    default: Default = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided about a block, and by whom."""

    allowed: bool
    by: str
    """`operator:<name of the key>`, `callback`, `timeout`, `shutdown`, or `limit` (too many waited already)."""
    reason: str = ""
    """What the operator wrote, at most 2000 characters; from elsewhere a sentence."""


def new_worker() -> str:
    """Return a name for a desk."""
    return secrets.token_hex(8)


def new_id(worker: str) -> str:
    """Return an id for an approval of a desk's."""
    return f"{worker}-{secrets.token_hex(16)}"


def worker_of(approval_id: str) -> str | None:
    """Return the name of the desk an id was made at; None for what is no id."""
    match = _ID.fullmatch(approval_id)
    return match[1] if match else None


def is_worker(name: str) -> bool:
    """Tell whether this is a desk's name."""
    return _WORKER.fullmatch(name) is not None


def shown(text: str, limit: int) -> tuple[str, int]:
    """Return a text as it is shown, and how many of its characters are not: where it is too long, its middle is left out.

    Lone surrogates, which no UTF-8 can carry, become U+FFFD; the two halves of a pair become the character.
    """
    omitted = max(0, len(text) - limit)
    if omitted:
        tail = limit // _TAIL
        text = f"{text[: limit - tail]} […{omitted} characters are not shown…] {text[-tail:]}"
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), omitted


def content_of(block: Block) -> str:
    """Return what a block says: its text, or where the common format has none, the provider's own form as JSON."""
    raw: Mapping[str, Any] | None = block.raw
    if block.text or raw is None:
        return block.text
    return jsontext.dumps(raw).decode()
