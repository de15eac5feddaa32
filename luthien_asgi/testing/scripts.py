"""Scripts: what the scripted provider answers to which request, and two that ship."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from luthien_asgi.request import WireName
from luthien_asgi.testing.exchange import ProviderRequest, Reply
from luthien_asgi.testing.faults import Failure, RawStream
from luthien_asgi.testing.parts import Answer, Text, Thinking, ToolCall
from luthien_asgi.testing.strict import check_history

__all__ = ["Script", "choose", "demo_script", "models_of", "tool_loop_script", "tool_results"]

Script = Reply | Sequence[Reply] | Mapping[str, Reply] | Callable[[ProviderRequest], Reply]
"""One reply for every request, a list answered in order, replies by model name, or a function of the request."""

_REPLIES: Final = (Answer, RawStream, Failure)


def choose(script: Script, request: ProviderRequest, turn: int) -> Reply:
    """Return the reply to request number `turn`, counted from 0. A script without one gives a failure that says so.

    Raises `TypeError` for what is no reply.
    """
    reply = _choose(script, request, turn)
    if not isinstance(reply, _REPLIES):
        kind = type(reply).__name__
        msg = f"a reply is Answer(...), RawStream(...) or Failure(...), not {kind}; chunks(...) are for run_policy"
        raise TypeError(msg)
    return reply


def _choose(script: Script, request: ProviderRequest, turn: int) -> Reply:
    if isinstance(script, _REPLIES):
        return script
    if isinstance(script, Mapping):
        name = str(request.body.get("model"))
        return script.get(name, Failure(404, "not_found_error", f"model: {name}"))
    if isinstance(script, Sequence):
        return (
            script[turn]
            if turn < len(script)
            else Failure(500, None, f"the script has {len(script)} replies, this is request {turn + 1}")
        )
    return script(request)


def models_of(script: Script) -> list[str]:
    """Return the model names that a script knows; `scripted` where it takes any."""
    return [*script] if isinstance(script, Mapping) and script else ["scripted"]


def tool_results(wire: WireName, body: Mapping[str, Any]) -> list[str]:
    """Return the text of the tool results that the client sent since the last answer, in order."""
    messages = body.get("messages") or []
    last = max((place for place, message in enumerate(messages) if message.get("role") == "assistant"), default=-1)
    new = messages[last + 1 :]
    if wire == "openai":
        return [_text_of(message.get("content")) for message in new if message.get("role") == "tool"]
    contents = [message["content"] for message in new if isinstance(message.get("content"), list)]
    return [_text_of(block.get("content")) for content in contents for block in content if block.get("type") == "tool_result"]


def _text_of(content: Any) -> str:  # noqa: ANN401 - a string, parts or nothing
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def tool_loop_script() -> Callable[[ProviderRequest], Reply]:
    """Return a script for an agent's loop: a tool call first, then a text that quotes the tool's result.

    Every request's history is held to what the real API accepts; a 400 says what is wrong with it.
    """
    return _tool_loop


def _tool_loop(request: ProviderRequest) -> Reply:
    if complaint := check_history(request.wire, request.body):
        return Failure(400, None, complaint)
    if results := tool_results(request.wire, request.body):
        return Answer(Text("The tool said: ", ", ".join(results)))
    call = ToolCall(_call_id(request, 1), "get_weather", {"city": "Paris"}, cuts=(3, 9))
    return Answer(Text("Let me ", "look."), call)


def demo_script(*, pace: float = 0.03) -> Callable[[ProviderRequest], Reply]:
    """Return the demonstration's script: thoughts, text and two tool calls, one of them dangerous; then an answer to the results.

    `pace` is the time in seconds between two events.
    """

    def reply(request: ProviderRequest) -> Reply:
        results = tool_results(request.wire, request.body)
        return _demo_answer(results, pace) if results else _demo_calls(request, pace)

    return reply


def _demo_calls(request: ProviderRequest, pace: float) -> Answer:
    return Answer(
        Thinking(*_words("The user wants me to tidy up. I will look first, then delete."), signature="c2NyaXB0ZWQ="),
        Text(*_words("I will look at the files and then free some space on the disk.")),
        ToolCall(_call_id(request, 1), "list_files", {"path": "/home/user"}, cuts=(6, 12)),
        ToolCall(_call_id(request, 2), "bash", {"command": "rm -rf /"}, cuts=(5, 14)),
        pace=pace,
    )


def _demo_answer(results: Sequence[str], pace: float) -> Answer:
    return Answer(Text(*_words(f"Thank you. The tool said: {' / '.join(results)}")), pace=pace)


def _words(text: str) -> list[str]:
    """Cut a text into pieces of about a token, blanks in front."""
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def _call_id(request: ProviderRequest, number: int) -> str:
    """Return an id that is new in its conversation: the APIs want them unique."""
    return f"call_{len(request.body.get('messages') or [])}_{number}"
