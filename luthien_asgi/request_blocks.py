"""The blocks of a request's messages, read from the client's own body in either format of messages.

Strategy: one reader a part type, chosen by dict; each gets a part, its path in the body and what is known about its
surroundings, and yields blocks. Part types do not clash between the formats, so there is one table. A type that is not in it, a
message field that is not known, is yielded whole as JSON of kind `other`: text that a policy could not see would pass it. What
is malformed is not skipped either, it is `other` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from luthien_asgi import jsontext

__all__ = [
    "Part",
    "Path",
    "RequestBlock",
    "RequestBlockKind",
    "RequestTool",
    "Role",
    "Scope",
    "read_any",
    "read_blocks",
    "read_content",
    "read_definition",
    "read_tools",
    "role_of",
]

Role = Literal["system", "user", "assistant", "tool"]
RequestBlockKind = Literal[
    "text", "thinking", "redacted_thinking", "tool_call", "tool_result", "image", "document", "refusal", "other"
]
Path = tuple[str | int, ...]
Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBlock:
    """One block of a request: a text, a tool call, the result of one, an image …"""

    role: Role
    """Whose it is; `developer` is `system`, the result of a tool is `tool` in either format."""
    kind: RequestBlockKind
    text: str = ""
    """The text; a tool call's arguments as JSON; for kind `other` what the format has, as JSON unless it is a plain string."""
    id: str = ""
    """The id of a tool call, also on its result."""
    name: str = ""
    """The name of the tool, also on its result where the call is in the same request."""
    is_error: bool = False
    """The result is an error message (Anthropic)."""
    path: Path
    """Where the text is in the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTool:
    """One tool that the request offers to the model."""

    name: str
    description: str = ""
    type: str = "function"
    """`function`, `custom` (OpenAI, free text input), or the provider's own name of a tool that it runs or defines itself."""
    parameters: Mapping[str, Any]
    """JSON schema of the arguments; empty where the tool has none of its own."""
    path: Path
    """Where the definition is in the body."""


class Scope(NamedTuple):
    """What a part's surroundings say about it."""

    role: Role
    names: dict[str, str]
    """Names of the tools by the id of the call, as far as the walk has come."""
    kind: RequestBlockKind = "text"
    id: str = ""
    name: str = ""
    is_error: bool = False

    def block(self, text: str, path: Path, kind: RequestBlockKind | None = None) -> RequestBlock:
        """Return a block of these surroundings."""
        return RequestBlock(
            role=self.role, kind=kind or self.kind, text=text, id=self.id, name=self.name, is_error=self.is_error, path=path
        )


_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_blocks(body: Mapping[str, Any]) -> Iterator[RequestBlock]:
    """Yield every block of a request body, in the order of the conversation; never raises on malformed parts."""
    names: dict[str, str] = {}
    yield from read_content(body.get("system"), ("system",), Scope("system", names))
    for place, message in _objects(body.get("messages")):
        yield from _message(message, ("messages", place), names)
    prediction = body.get("prediction")
    if isinstance(prediction, dict):
        yield from read_content(prediction.get("content"), ("prediction", "content"), Scope("user", names, "other"))


def _objects(value: Any) -> Iterator[tuple[int, Part]]:  # noqa: ANN401 - JSON
    return ((place, item) for place, item in enumerate(value if isinstance(value, list) else ()) if isinstance(item, dict))


def _message(message: Part, path: Path, names: dict[str, str]) -> Iterator[RequestBlock]:
    role = role_of(message)
    scope = Scope(role, names)
    if role == "tool":
        call = _string(message, "tool_call_id")
        name = names.get(call) or _string(message, "name")
        scope = scope._replace(kind="tool_result", id=call, name=name)
    for field in sorted(message, key=lambda name: name in _AFTER_CONTENT):
        if field not in _SILENT and not (field == "name" and role == "tool"):
            yield from _FIELDS.get(field, read_any)(message[field], (*path, field), scope)


def role_of(message: Part) -> Role:
    """Return whose a message is; an unknown role is the user's."""
    return _ROLES.get(str(message.get("role")), "user")


def _string(part: Part, field: str) -> str:
    value = part.get(field)
    return value if isinstance(value, str) else ""


# --- a message's fields ----------------------------------------------------------------------------------------------------


def read_content(value: Any, path: Path, scope: Scope) -> Iterator[RequestBlock]:  # noqa: ANN401 - JSON
    """Yield the blocks of a content: a string, or a list of parts."""
    if isinstance(value, str):
        yield scope.block(value, path)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _part(item, (*path, place), scope)
    else:
        yield from read_any(value, path, scope)


def _part(part: Any, path: Path, scope: Scope) -> Iterator[RequestBlock]:  # noqa: ANN401 - JSON
    reader = _PARTS.get(str(part.get("type"))) if isinstance(part, dict) else None
    yield from reader(part, path, scope) if reader else read_any(part, path, scope)


def read_any(value: Any, path: Path, scope: Scope) -> Iterator[RequestBlock]:  # noqa: ANN401 - JSON
    """Yield a value that no reader knows; numbers, flags and nothing at all hold no text."""
    if isinstance(value, str) and value:
        yield scope.block(value, path, "other")
    elif isinstance(value, dict | list) and value:
        yield scope.block(_json(value), path, "other")


def _json(value: Any) -> str:  # noqa: ANN401 - JSON
    return jsontext.dumps(value).decode()


def _of_kind(kind: RequestBlockKind) -> Callable[[Any, Path, Scope], Iterator[RequestBlock]]:
    def read(value: Any, path: Path, scope: Scope) -> Iterator[RequestBlock]:  # noqa: ANN401 - JSON
        if isinstance(value, str):
            if value:
                yield scope.block(value, path, kind)
        elif value:
            yield scope.block(_json(value), path, kind)

    return read


def _calls(value: Any, path: Path, scope: Scope) -> Iterator[RequestBlock]:  # noqa: ANN401 - JSON
    if value is not None and not isinstance(value, list):
        yield from read_any(value, path, scope)
    for place, call in _objects(value):
        yield from _call(call, (*path, place), scope)


def _call(call: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    kind, field = ("custom", "input") if isinstance(call.get("custom"), dict) else ("function", "arguments")
    if not isinstance(call.get(kind), dict):
        yield from read_any(call, path, scope)
        return
    yield from _function_call(call[kind], (*path, kind), scope._replace(id=_string(call, "id")), field)


def _function_call(call: Any, path: Path, scope: Scope, field: str = "arguments") -> Iterator[RequestBlock]:  # noqa: ANN401
    if not isinstance(call, dict):
        yield from read_any(call, path, scope)
        return
    named = scope._replace(name=_string(call, "name"), kind="tool_call")
    named.names[named.id] = named.name
    text = call.get(field)
    yield named.block(text if isinstance(text, str) else _json(text), (*path, field))


# --- the parts of a content ------------------------------------------------------------------------------------------------


def _text_of(field: str, kind: RequestBlockKind | None = None) -> Callable[[Part, Path, Scope], Iterator[RequestBlock]]:
    def read(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
        text = part.get(field)
        if not isinstance(text, str):
            yield from read_any(part, path, scope)
            return
        yield scope.block(text, (*path, field), kind)
        for side in ("citations", "annotations"):
            yield from read_any(part.get(side), (*path, side), scope)

    return read


def _tool_use(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    named = scope._replace(id=_string(part, "id"), name=_string(part, "name"))
    named.names[named.id] = named.name
    yield named.block(_json(part.get("input")), (*path, "input"), "tool_call")


def _tool_result(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    call = _string(part, "tool_use_id")
    name = scope.names.get(call, "")
    inner = scope._replace(role="tool", kind="tool_result", id=call, name=name, is_error=part.get("is_error") is True)
    if part.get("content") is None:
        yield inner.block("", (*path, "content"))
    else:
        yield from read_content(part["content"], (*path, "content"), inner)


def _image(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    del part
    yield scope.block("", path, "image")


def _file(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    del part
    yield scope.block("", path, "document")


def _audio(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    del part
    yield scope.block("", path, "other")


def _document(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    inner = scope._replace(kind="document")
    for field in ("title", "context"):
        if _string(part, field):
            yield inner.block(part[field], (*path, field))
    source = part.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if isinstance(source, dict) and kind == "text" and isinstance(source.get("data"), str):
        yield inner.block(source["data"], (*path, "source", "data"))
    elif isinstance(source, dict) and kind == "content":
        yield from read_content(source.get("content"), (*path, "source", "content"), inner)
    else:
        yield inner.block("", path)


def _search_result(part: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    inner = scope._replace(kind="document")
    for field in ("title", "source"):
        if _string(part, field):
            yield inner.block(part[field], (*path, field))
    yield from read_content(part.get("content"), (*path, "content"), inner)


_PARTS: Final[Mapping[str, Callable[[Part, Path, Scope], Iterator[RequestBlock]]]] = {
    "text": _text_of("text"),
    "input_text": _text_of("text"),
    "output_text": _text_of("text"),
    "summary_text": _text_of("text", "thinking"),
    "reasoning_text": _text_of("text", "thinking"),
    "refusal": _text_of("refusal", "refusal"),
    "thinking": _text_of("thinking", "thinking"),
    "redacted_thinking": _text_of("data", "redacted_thinking"),
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "image": _image,
    "image_url": _image,
    "input_image": _image,
    "file": _file,
    "input_file": _file,
    "input_audio": _audio,
    "document": _document,
    "search_result": _search_result,
}
_FIELDS: Final[Mapping[str, Callable[[Any, Path, Scope], Iterator[RequestBlock]]]] = {
    "content": read_content,
    "refusal": _of_kind("refusal"),
    "reasoning": _of_kind("thinking"),
    "reasoning_content": _of_kind("thinking"),
    "reasoning_details": _of_kind("thinking"),
    "thinking_blocks": read_content,
    "tool_calls": _calls,
    "function_call": _function_call,
}
_SILENT: Final = frozenset({"role", "tool_call_id", "cache_control"})
_AFTER_CONTENT: Final = frozenset({"tool_calls", "function_call", "refusal", "name"})


# --- tools -----------------------------------------------------------------------------------------------------------------


def read_tools(body: Mapping[str, Any]) -> Iterator[RequestTool]:
    """Yield the tools that a request body offers, whatever their type."""
    for place, tool in _objects(body.get("tools")):
        yield _tool(tool, ("tools", place))
    for place, function in _objects(body.get("functions")):
        yield read_definition(function, "function", ("functions", place), "parameters")


def _tool(tool: Part, path: Path) -> RequestTool:
    for kind in ("function", "custom"):
        if isinstance(tool.get(kind), dict):
            return read_definition(tool[kind], kind, (*path, kind), "parameters")
    kind = _string(tool, "type")
    return read_definition(tool, "function" if kind in {"", "custom"} else kind, path, "input_schema")


def read_definition(tool: Part, kind: str, path: Path, schema: str) -> RequestTool:
    """Return one definition of a tool; `schema` is the name of the field that has the schema of its arguments."""
    parameters = tool.get(schema)
    return RequestTool(
        name=_string(tool, "name") or ("" if kind in {"function", "custom"} else kind),
        description=_string(tool, "description"),
        type=kind,
        parameters=parameters if isinstance(parameters, dict) else {},
        path=path,
    )
