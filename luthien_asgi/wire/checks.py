"""What the request parsers check alike. Every complaint is a `RequestError` whose `param` is the path of the field."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from luthien_asgi import jsontext
from luthien_asgi.errors import RequestError
from luthien_asgi.request import WireName
from luthien_asgi.settings import Limits
from luthien_asgi.wire.parameters import PARAMETERS, Shape, has_shape, shape_words, why_unknown

__all__ = [
    "LONGEST_MODEL",
    "check_messages",
    "check_model",
    "check_parameters",
    "check_parts",
    "check_tools",
    "expect",
    "optional",
    "read_object",
    "refuse",
    "required",
]

_KIND_WORDS: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


LONGEST_MODEL: Final = 500
"""Characters of a model's name, which is looked for in patterns."""


def refuse(param: str, problem: str) -> NoReturn:
    """Raise the 400 that says what is wrong with one field."""
    raise RequestError(f"{param} {problem}.", param=param)


def expect(value: Any, shape: Shape, param: str) -> None:  # noqa: ANN401 - any JSON value
    """Refuse a value that does not have a shape."""
    if not has_shape(value, shape):
        refuse(param, f"must be {shape_words(shape)}, not {_KIND_WORDS[type(value)]}")


def optional(holder: Mapping[str, Any], field: str, shape: Shape, at: str) -> None:
    """Refuse a field that is there, is not null and does not have a shape."""
    if holder.get(field) is not None:
        expect(holder[field], shape, f"{at}.{field}")


def required(holder: Mapping[str, Any], field: str, shape: Shape, at: str = "") -> None:
    """Refuse a field that is missing or does not have a shape."""
    param = f"{at}.{field}" if at else field
    if field not in holder:
        refuse(param, "is required")
    expect(holder[field], shape, param)


def read_object(body: bytes, *, limits: Limits) -> dict[str, Any]:
    """Parse a request body and return the JSON object that it is. Raises `RequestError` (413 for size, else 400)."""
    if len(body) > limits.body_bytes:
        raise RequestError(f"The request body is longer than {limits.body_bytes} bytes (body_bytes).", status=413)
    if jsontext.has_more_items(body, limits.json_items):
        raise RequestError(f"The request body has more than {limits.json_items} commas and brackets (json_items).")
    with _without_collection():
        try:
            value = jsontext.loads(body)
        except jsontext.NestingError:
            raise _too_deep(limits) from None
        except ValueError as error:
            raise RequestError(f"The request body is not JSON: {error}.") from None
        if jsontext.depth_of(value, limits.json_depth) > limits.json_depth:
            raise _too_deep(limits)
    if not isinstance(value, dict):
        raise RequestError(f"The request body must be a JSON object, not {_KIND_WORDS[type(value)]}.")
    return value


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep the garbage collector from looking for garbage among new values, where there is none.

    A hundred thousand of them would have it go through the whole heap several times: with LiteLLM's, seconds. Nothing is awaited.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _too_deep(limits: Limits) -> RequestError:
    return RequestError(f"The JSON of the request body is nested more than {limits.json_depth} levels deep (json_depth).")


def check_parameters(body: Mapping[str, Any], wire: WireName) -> None:
    """Refuse a top-level field that is not a known parameter, or not of its type; null is as good as absent."""
    for name, value in body.items():
        problem = why_unknown(name, wire)
        if problem is not None:
            raise RequestError(f"{problem}.", param=name[:100], code="unknown_parameter")
        if value is not None:
            expect(value, PARAMETERS[wire][name].shape, name)


def check_model(body: Mapping[str, Any]) -> None:
    """Refuse a request that names no model."""
    required(body, "model", "text")
    if not body["model"].strip():
        refuse("model", "must name a model")
    if len(body["model"]) > LONGEST_MODEL:
        refuse("model", f"is longer than {LONGEST_MODEL} characters")


def check_messages(body: Mapping[str, Any], roles: Sequence[str], *, limits: Limits) -> list[tuple[str, Mapping[str, Any]]]:
    """Check model, messages and the number of tools; return the messages with their paths."""
    check_model(body)
    required(body, "messages", "list")
    messages = body["messages"]
    if not messages:
        refuse("messages", "must hold at least one message")
    if len(messages) > limits.messages:
        refuse("messages", f"holds {len(messages)} messages, more than {limits.messages} (messages)")
    check_tools(body, limits=limits)
    found = [(f"messages[{place}]", message) for place, message in enumerate(messages)]
    for at, message in found:
        expect(message, "object", at)
        required(message, "role", "text", at)
        if message["role"] not in roles:
            refuse(f"{at}.role", f"must be one of {', '.join(roles)}, not {message['role'][:50]!r}")
    check_size(found, limits=limits)
    return found


def check_size(messages: Sequence[tuple[str, Any]], *, limits: Limits) -> None:
    """Refuse messages with too many content parts in all."""
    contents = [message.get("content") for _, message in messages]
    parts = sum(len(content) for content in contents if isinstance(content, list))
    if parts > limits.parts:
        refuse("messages", f"hold {parts} content parts, more than {limits.parts} (parts)")


def check_tools(body: Mapping[str, Any], *, limits: Limits) -> None:
    """Refuse too many tools, those in a namespace counted one by one, and tools that are no objects."""
    for field in ("tools", "functions"):
        tools = body.get(field) or []
        number = sum(len(_inner_tools(tool)) or 1 for tool in tools)
        if number > limits.tools:
            refuse(field, f"holds {number} tools, more than {limits.tools} (tools)")
        for place, tool in enumerate(tools):
            expect(tool, "object", f"{field}[{place}]")
            optional(tool, "type", "text", f"{field}[{place}]")
            optional(tool, "name", "text", f"{field}[{place}]")


def _inner_tools(tool: Any) -> Sequence[Any]:  # noqa: ANN401 - JSON
    inner = tool.get("tools") if isinstance(tool, dict) else None
    return inner if isinstance(inner, list) else ()


def check_parts(content: Any, at: str, fields: Mapping[str, Sequence[tuple[str, Shape]]]) -> None:  # noqa: ANN401
    """Check a content: a string, or a list of objects with a type, whose fields have the shapes given for their type."""
    expect(content, "text or list", at)
    for place, part in enumerate(content if isinstance(content, list) else ()):
        where = f"{at}[{place}]"
        expect(part, "object", where)
        required(part, "type", "text", where)
        for field, shape in fields.get(part["type"], ()):
            required(part, field, shape, where)
