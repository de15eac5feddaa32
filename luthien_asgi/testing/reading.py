"""The blocks of a whole answer in either wire's shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block, BlockKind

__all__ = ["READERS", "read_anthropic", "read_openai", "read_responses"]

_FIELDS: Final = {"reasoning_content": BlockKind.THINKING, "content": BlockKind.TEXT, "refusal": BlockKind.REFUSAL}


def read_openai(body: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the blocks of a `chat.completion`, choice by choice."""
    return tuple(_numbered(block for choice in body["choices"] for block in _choice_blocks(choice)))


def read_anthropic(body: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the blocks of a `message`."""
    return tuple(_numbered(map(_content_block, body["content"])))


def read_responses(body: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the blocks of a `response`, item by item."""
    return tuple(_numbered(block for item in body["output"] for block in _item_blocks(item)))


READERS: Final = {"openai": read_openai, "anthropic": read_anthropic, "responses": read_responses}


def _numbered(blocks: Iterator[Block]) -> Iterator[Block]:
    places: dict[int, int] = {}
    for block in blocks:
        place = places[block.choice] = places.get(block.choice, -1) + 1
        yield replace(block, index=place)


def _choice_blocks(choice: Mapping[str, Any]) -> Iterator[Block]:
    message, number = choice["message"], choice["index"]
    for name, kind in _FIELDS.items():
        if text := message.get(name):
            yield Block(kind=kind, text=text, choice=number)
    for call in message.get("tool_calls") or ():
        custom = call["type"] == "custom"
        inner = call["custom" if custom else "function"]
        text = inner["input" if custom else "arguments"]
        yield Block(kind=BlockKind.TOOL_CALL, text=text, id=call["id"], name=inner["name"], choice=number, custom=custom)


def _item_blocks(item: Mapping[str, Any]) -> Iterator[Block]:
    match item["type"]:
        case "message":
            for part in item["content"]:
                is_text = part["type"] == "output_text"
                text = part["text" if is_text else "refusal"]
                yield Block(kind=BlockKind.TEXT if is_text else BlockKind.REFUSAL, text=text)
        case "reasoning":
            text = "".join(part["text"] for part in (*item["summary"], *(item.get("content") or ())))
            kind = BlockKind.THINKING if text else BlockKind.REDACTED_THINKING
            yield Block(kind=kind, text=text, signature=item.get("encrypted_content") or "")
        case "function_call":
            yield Block(kind=BlockKind.TOOL_CALL, text=item["arguments"], id=item["call_id"], name=item["name"])
        case "custom_tool_call":
            yield Block(kind=BlockKind.TOOL_CALL, text=item["input"], id=item["call_id"], name=item["name"], custom=True)
        case _:
            yield Block(kind=BlockKind.OTHER, raw=item)


def _content_block(block: Mapping[str, Any]) -> Block:
    match block["type"]:
        case "text":
            return Block(kind=BlockKind.TEXT, text=block["text"])
        case "thinking":
            return Block(kind=BlockKind.THINKING, text=block["thinking"], signature=block["signature"])
        case "redacted_thinking":
            return Block(kind=BlockKind.REDACTED_THINKING, signature=block["data"])
        case "tool_use":
            text = jsontext.dumps(block["input"]).decode()
            return Block(kind=BlockKind.TOOL_CALL, text=text, id=block["id"], name=block["name"])
        case _:
            return Block(kind=BlockKind.OTHER, raw=block)
