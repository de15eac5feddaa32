"""The neutral form of an answer, which every reader of `conf_content` and `conf_responses` fills."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Content", "add", "add_logprobs", "arguments", "new_choice", "place"]

Content = dict[str, Any]
"""`choices`, and `usage`: {input, output, cached, written, thought} in tokens; or `error`.

A choice is {text, thinking, refusal, calls: [[id, name, arguments]], finish, signed: [[thinking, signature]], cited: [[URL, text
that cites it]], logprobs: [[token, logprob]], order}. `order` is what came after what; the same kind twice in a row is one, save
that each call is one.
"""


def new_choice() -> dict[str, Any]:
    """Return a choice that says nothing yet."""
    texts: dict[str, Any] = {"text": "", "thinking": "", "refusal": "", "finish": ""}
    return {**texts, "calls": [], "signed": [], "cited": [], "logprobs": [], "order": []}


def add(choice: dict[str, Any], kind: str, text: str) -> None:
    """Add text of a kind."""
    if text:
        choice[kind] += text
        place(choice, kind)


def add_logprobs(choice: dict[str, Any], tokens: Sequence[Mapping[str, Any]] | None) -> None:
    """Add the log probabilities of a text."""
    choice["logprobs"] += [[token["token"], token["logprob"]] for token in tokens or ()]


def place(choice: dict[str, Any], kind: str) -> None:
    """Note that something of a kind comes now."""
    if kind == "call" or choice["order"][-1:] != [kind]:
        choice["order"].append(kind)


def arguments(text: str) -> Any:
    """Return the arguments of a call."""
    return json.loads(text) if text.strip() else {}
