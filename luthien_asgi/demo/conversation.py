"""The demonstration's clients: plain HTTP, one in each format, each with a tool that it really runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx

from luthien_asgi import jsontext
from luthien_asgi.demo.screen import Board, Scene
from luthien_asgi.serving import ServeError
from luthien_asgi.testing.accumulate import Accumulated, accumulate_anthropic, accumulate_openai
from luthien_asgi.testing.events import sse_events

__all__ = ["CLIENTS", "FILES", "Client", "Refused", "about", "ask", "talk"]

QUESTION: Final = "My disk is full. Please tidy up."
FILES: Final = "notes.txt, photos/, report.pdf"
"""What the client's tool answers: it is the tool that makes this up, and not a disk."""
_PARAMETERS: Final = {"type": "object", "properties": {"path": {"type": "string"}, "command": {"type": "string"}}}
_TOOLS: Final = ("list_files", "bash")
_TIMEOUT: Final = 30.0

Delta = tuple[str, str]
"""A piece of an answer: its kind and its text; an empty text begins a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client format: where it asks, for what, and how it reads and keeps the answer."""

    title: str
    path: str
    body: dict[str, Any]
    deltas: Callable[[dict[str, Any]], Iterator[Delta]]
    accumulate: Callable[[bytes], Accumulated]
    answered: Callable[[dict[str, Any]], list[dict[str, Any]]]
    """The messages that the answer adds to the history: itself, and the results of its tools."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was not answered with 200."""

    status: int
    body: str


def talk(client: Client, *, url: str, board: Board, stage: Callable[[Scene], AbstractContextManager[object]]) -> None:
    """Have a conversation of two turns: the question, then the results of the tools that were called.

    Each turn happens within `stage(scene)`. Raises `ServeError` when a turn fails.
    """
    history: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    first = board.open(f"{client.title}, turn 1", QUESTION)
    with stage(first):
        answer = _answered(ask(client, url, history, first))
    second = board.open(f"{client.title}, turn 2: the history is accepted", f"list_files: {FILES}")
    with stage(second):
        _answered(ask(client, url, [*history, *client.answered(answer)], second))


def _answered(answer: dict[str, Any] | Refused) -> dict[str, Any]:
    if isinstance(answer, Refused):
        raise ServeError(f"the gateway answered {answer.status}: {answer.body}")
    return answer


def about(client: Client, tools: Sequence[str]) -> Client:
    """Return the client for another conversation: with these tools, and a model that does not think."""
    named = [_renamed(client.body["tools"][0], name) for name in tools]
    kept = {name: value for name, value in client.body.items() if name not in {"tools", "thinking"}}
    return replace(client, body={**kept, "tools": named} if named else kept)


def _renamed(tool: dict[str, Any], name: str) -> dict[str, Any]:
    return {**tool, "function": {**tool["function"], "name": name}} if "function" in tool else {**tool, "name": name}


def ask(client: Client, url: str, history: Sequence[dict[str, Any]], scene: Scene) -> dict[str, Any] | Refused:
    """Ask, show what comes, and return the whole answer. Raises `ServeError` for one that breaks off."""
    body = {**client.body, "messages": history, "stream": True}
    with httpx.stream(
        "POST", f"{url}{client.path}", json=body, headers=client.headers, timeout=_TIMEOUT, trust_env=False
    ) as response:
        if response.status_code != httpx.codes.OK:
            scene.received = response.read()
            return Refused(response.status_code, scene.received.decode(errors="replace"))
        for part in response.iter_bytes():
            before = scene.received.rfind(b"\n\n") + 2 if b"\n\n" in scene.received else 0
            scene.received += part
            _show(client, scene.received[before : scene.received.rfind(b"\n\n") + 2], scene)
    whole = client.accumulate(scene.received)
    if whole.error is not None or not whole.done:
        raise ServeError(f"the answer broke off: {whole.error}")
    return whole.body


def _show(client: Client, frames: bytes, scene: Scene) -> None:
    for event in sse_events(frames):
        if event.data != "[DONE]":
            for kind, text in client.deltas(jsontext.loads(event.data)):
                _write(scene, kind, text)


def _write(scene: Scene, kind: str, text: str) -> None:
    if kind == "tool_call" and text.endswith(" "):
        scene.begin("client", kind)
    scene.add("client", kind, text)


def _openai_deltas(chunk: dict[str, Any]) -> Iterator[Delta]:
    for choice in chunk.get("choices", ()):
        delta = choice["delta"]
        if thinking := delta.get("reasoning_content"):
            yield "thinking", thinking
        if text := delta.get("content"):
            yield "text", text
        for call in delta.get("tool_calls") or ():
            name = call["function"].get("name")
            yield "tool_call", f"{name} " if name else call["function"].get("arguments", "")
            if name and call["function"].get("arguments"):
                yield "tool_call", call["function"]["arguments"]


def _anthropic_deltas(event: dict[str, Any]) -> Iterator[Delta]:
    if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
        yield "tool_call", f"{event['content_block']['name']} "
    if event["type"] == "content_block_delta":
        delta = event["delta"]
        kinds = {"text": "text", "thinking": "thinking", "partial_json": "tool_call"}
        for name, kind in kinds.items():
            if text := delta.get(name):
                yield kind, text


def _openai_answered(body: dict[str, Any]) -> list[dict[str, Any]]:
    message = body["choices"][0]["message"]
    kept = {name: message[name] for name in ("role", "content", "tool_calls") if name in message}
    results = [{"role": "tool", "tool_call_id": call["id"], "content": FILES} for call in message.get("tool_calls", ())]
    return [kept, *results]


def _anthropic_answered(body: dict[str, Any]) -> list[dict[str, Any]]:
    calls = [block for block in body["content"] if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": FILES} for call in calls]
    return [{"role": "assistant", "content": body["content"]}, {"role": "user", "content": results}]


CLIENTS: Final = (
    Client(
        title="An OpenAI client",
        path="/v1/chat/completions",
        body={
            "model": "gpt-demo",
            "tools": [{"type": "function", "function": {"name": name, "parameters": _PARAMETERS}} for name in _TOOLS],
        },
        deltas=_openai_deltas,
        accumulate=accumulate_openai,
        answered=_openai_answered,
    ),
    Client(
        title="An Anthropic client",
        path="/v1/messages",
        body={
            "model": "claude-demo",
            "max_tokens": 2048,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "tools": [{"name": name, "input_schema": _PARAMETERS} for name in _TOOLS],
        },
        deltas=_anthropic_deltas,
        accumulate=accumulate_anthropic,
        answered=_anthropic_answered,
        headers={"anthropic-version": "2023-06-01"},
    ),
)
