"""What the Anthropic messages API refuses in a request.

Strategy: each function checks one rule and raises `HistoryError` in the API's own words. Messages of one role in a row count as
one, as the API combines them; `system` messages inside the conversation are not part of the turns.

One rule is the experience of gateways and not the API's documented word: after a `tool_use` block an assistant message may hold
nothing but more of them (and blocks of tools that ran at the provider).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from luthien_asgi.testing.history import known_fields, require, unique

__all__ = ["check"]

_FIELDS: Final = frozenset(
    {
        "billing_policy",
        "cache_control",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "max_tokens",
        "mcp_servers",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "thread",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user_profile_id",
        "workspace_id",
    }
)
"""The documented request fields, beta ones included (anthropic-python 2.11, `MessageCreateParams`)."""
_BLOCK_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller", "toolset_name"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control", "toolset_name"}),
}
_AFTER_TOOL_USE: Final = frozenset({"text", "thinking", "redacted_thinking", "image", "document"})
_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,200}")

Block = Mapping[str, Any]


class _Turn(NamedTuple):
    """Messages of one role in a row, as one."""

    role: str
    at: str
    blocks: list[Block]

    def of_type(self, kind: str) -> list[Block]:
        return [block for block in self.blocks if block["type"] == kind]


def check(body: Mapping[str, Any]) -> None:
    """Raise `HistoryError` with the first complaint about a request body."""
    known_fields(body, _FIELDS, "{}: Extra inputs are not permitted")
    for name in ("model", "max_tokens", "messages"):
        require(body.get(name) is not None, f"{name}: Field required")
    require(type(body["max_tokens"]) is int and body["max_tokens"] > 0, "max_tokens: Input should be greater than or equal to 1")
    if isinstance(body.get("system"), list):
        _check_texts(body["system"], "system")
    turns = list(_turns(body["messages"]))
    require(turns, "messages: at least one message is required")
    require(turns[0].role == "user", 'messages: first message must use the "user" role')
    for turn in turns:
        _check_turn(turn)
    _check_tool_turns(turns)
    _check_thinking(turns, (body.get("thinking") or {}).get("type") == "enabled")


def _turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[_Turn]:
    current: _Turn | None = None
    for place, message in enumerate(messages):
        at = f"messages.{place}"
        known_fields(message, {"role", "content"}, at + ".{}: Extra inputs are not permitted")
        role = message["role"]
        require(role in {"user", "assistant", "system"}, f'{at}.role: Unexpected role "{role}"')
        blocks = _blocks(message.get("content"), at, last=place == len(messages) - 1 and role == "assistant")
        if role == "system":
            continue
        if current is not None and current.role == role:
            current.blocks.extend(blocks)
            continue
        if current is not None:
            yield current
        current = _Turn(role, at, blocks)
    if current is not None:
        yield current


def _blocks(content: Any, at: str, *, last: bool) -> list[Block]:  # noqa: ANN401 - a string or blocks
    """Return a message's content as blocks. Only a last assistant message, a prefill, may be empty."""
    require(isinstance(content, str | list), f"{at}.content: Field required")
    require(content or last, f"{at}: all messages must have non-empty content except for the optional final assistant message")
    if not isinstance(content, str):
        return list(content)
    require(content.strip() or last, "messages: text content blocks must contain non-whitespace text")
    return [{"type": "text", "text": content}] if content else []


def _check_turn(turn: _Turn) -> None:
    for block in turn.blocks:
        _check_block(block, turn)
    _check_texts(turn.blocks, turn.at)
    if turn.role == "assistant":
        _check_after_tool_use(turn)


def _check_block(block: Block, turn: _Turn) -> None:
    kind, at = block["type"], f"{turn.at}.content"
    if kind in _BLOCK_FIELDS:
        known_fields(block, _BLOCK_FIELDS[kind], at + "." + kind + ".{}: Extra inputs are not permitted")
    side = {"tool_use": "assistant", "tool_result": "user", "thinking": "assistant", "redacted_thinking": "assistant"}
    require(side.get(kind, turn.role) == turn.role, f"{at}: `{kind}` blocks can only be in `{side.get(kind)}` messages")
    if kind == "tool_use":
        _check_tool_use(block, at)
    elif kind == "tool_result" and isinstance(block.get("content"), list):
        _check_texts(block["content"], f"{at}.tool_result.content")
    elif kind == "thinking":
        require(isinstance(block.get("thinking"), str), f"{at}.thinking.thinking: Field required")
        require("signature" in block, f"{at}.thinking.signature: Field required")
        require(block["signature"], f"{at}: Invalid `signature` in `thinking` block")
    elif kind == "redacted_thinking":
        require(block.get("data"), f"{at}.redacted_thinking.data: Field required")


def _check_tool_use(block: Block, at: str) -> None:
    require(_ID.fullmatch(block.get("id") or ""), f"{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    require(
        _NAME.fullmatch(block.get("name") or ""), f"{at}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,200}}$'"
    )
    require(isinstance(block.get("input"), dict), f"{at}.tool_use.input: Input should be a valid dictionary")


def _check_texts(blocks: Sequence[Block], at: str) -> None:
    for block in blocks:
        if block.get("type") == "text":
            require(block.get("text") != "", f"{at}: text content blocks must be non-empty")
            require(block["text"].strip(), f"{at}: text content blocks must contain non-whitespace text")


def _check_after_tool_use(turn: _Turn) -> None:
    kinds = [block["type"] for block in turn.blocks]
    if "tool_use" in kinds:
        for kind in kinds[kinds.index("tool_use") :]:
            require(kind not in _AFTER_TOOL_USE, f"{turn.at}.content: `{kind}` is not allowed after a `tool_use` block")


def _check_tool_turns(turns: Sequence[_Turn]) -> None:
    """Check that results answer the calls right before them, each call once and before any other content."""
    unique((block["id"] for turn in turns for block in turn.of_type("tool_use")), "messages: `tool_use` ids must be unique: {}")
    nobody = _Turn("", "", [])
    for turn, after in zip([nobody, *turns], [*turns, nobody], strict=True):
        calls = [block["id"] for block in turn.of_type("tool_use")]
        results = [block.get("tool_use_id") for block in after.of_type("tool_result")]
        for result in results:
            require(
                result in calls,
                f"{after.at}: unexpected `tool_use_id` found in `tool_result` blocks: {result}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
            )
        unique(
            map(str, results),
            after.at + ": each tool_use must have a single result. Found multiple `tool_result` blocks with id: {}",
        )
        missing = ", ".join(call for call in calls if call not in results)
        require(not missing, f"{turn.at}: `tool_use` ids were found without `tool_result` blocks immediately after: {missing}.")
        first = [block["type"] for block in after.blocks[: len(results)]]
        require(first == ["tool_result"] * len(results), f"{after.at}: `tool_result` blocks must come first in the content")


def _check_thinking(turns: Sequence[_Turn], enabled: bool) -> None:
    """Check that with thinking enabled the tool turn that is being answered begins with its thinking."""
    answered = [turn for turn in turns if turn.role == "assistant"][-1:]
    for turn in answered if enabled else []:
        if turn.of_type("tool_use"):
            kind = turn.blocks[0]["type"]
            require(
                kind in _THINKING,
                f"{turn.at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. "
                "When `thinking` is enabled, a final `assistant` message must start with a thinking block.",
            )
