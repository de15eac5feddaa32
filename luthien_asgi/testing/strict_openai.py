"""What the OpenAI chat-completions API refuses in a request.

Strategy: each function checks one rule for one message and raises `HistoryError` in the API's own words.

One rule is that of strict servers of this wire (vLLM among them) and not OpenAI's own: the arguments of a call in the history
are a JSON object, or empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.testing.history import known_fields, require, unique
from luthien_asgi.wire.parameters import OPENAI_OWN

__all__ = ["check"]

_ROLES: Final = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")

Message = Mapping[str, Any]


def check(body: Mapping[str, Any]) -> None:
    """Raise `HistoryError` with the first complaint about a request body."""
    known_fields(body, OPENAI_OWN, "Unknown parameter: '{}'.")
    require(body.get("model"), "you must provide a model parameter")
    messages = body.get("messages")
    require(isinstance(messages, list) and messages, "Invalid 'messages': empty array. Expected an array with minimum length 1.")
    assert isinstance(messages, list)  # noqa: S101 - for the type checker
    for place, message in enumerate(messages):
        _check_message(message, f"messages[{place}]")
    _check_tool_turns(messages)


def _check_message(message: Message, at: str) -> None:
    role = message.get("role")
    require(role in _ROLES, f"Invalid value: '{role}' for '{at}.role'.")
    content = message.get("content")
    require(content != [], f"Invalid '{at}.content': empty array. Expected an array with minimum length 1.")
    if role == "assistant":
        _check_assistant(message, at)
    else:
        require(content is not None, f"Invalid value for 'content' in {at}: expected a string, got null.")


def _check_assistant(message: Message, at: str) -> None:
    calls = message.get("tool_calls")
    require(calls != [], f"Invalid '{at}.tool_calls': empty array. Expected an array with minimum length 1.")
    instead = calls or message.get("function_call") or message.get("refusal") or message.get("audio")
    require(message.get("content") is not None or instead, f"Invalid value for 'content' in {at}: expected a string, got null.")
    for place, call in enumerate(calls or []):
        _check_call(call, f"{at}.tool_calls[{place}]")
    unique((call["id"] for call in calls or []), "Duplicate value for 'tool_call_id' of '{}' in " + at)


def _check_call(call: Mapping[str, Any], at: str) -> None:
    require(isinstance(call.get("id"), str) and call["id"], f"Missing required parameter: '{at}.id'.")
    kind = str(call.get("type"))
    require(kind in {"function", "custom"}, f"Invalid value: '{kind}' for '{at}.type'.")
    inner = call[kind]
    require(_NAME.fullmatch(inner.get("name") or ""), f"Invalid '{at}.{kind}.name': string does not match pattern.")
    text = inner.get("arguments" if kind == "function" else "input")
    require(isinstance(text, str), f"Missing required parameter: '{at}.{kind}.{'arguments' if kind == 'function' else 'input'}'.")
    require(kind == "custom" or _is_object(text), f"Invalid '{at}.function.arguments': it must be a JSON object.")


def _is_object(arguments: str) -> bool:
    try:
        return not arguments.strip() or isinstance(jsontext.loads(arguments), dict)
    except ValueError:
        return False


def _check_tool_turns(messages: Sequence[Message]) -> None:
    """Check that tool messages answer the calls right before them, each call once."""
    for message, results in _turns(messages):
        calls = [call["id"] for call in message.get("tool_calls") or []]
        require(
            calls or not results,
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
        )
        for result in results:
            require(
                result in calls, f"Invalid parameter: 'tool_call_id' of '{result}' not found in 'tool_calls' of previous message."
            )
        missing = ", ".join(call for call in calls if call not in results)
        require(
            not missing,
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
            f"The following tool_call_ids did not have response messages: {missing}",
        )


def _turns(messages: Sequence[Message]) -> Iterator[tuple[Message, list[str]]]:
    """Yield each message that is no tool message, with the ids of the tool messages right after it."""
    current: tuple[Message, list[str]] = ({}, [])
    for message in messages:
        if message.get("role") == "tool":
            current[1].append(str(message.get("tool_call_id")))
            continue
        yield current
        current = (message, [])
    yield current
