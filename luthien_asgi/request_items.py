"""The blocks of a Responses request, read from the client's own body: `instructions`, and the items of `input`.

Strategy: one reader an item type, chosen by dict, as in `luthien_asgi.request_blocks`, whose parts and scope they share. An item
whose type is not in the table, a field that a reader does not know, is yielded as JSON of kind `other`.

A tool in a namespace is named `<namespace>__<name>` here, and to the model: other formats have no namespaces. Where that is too
long the namespace is cut and the tool's own name is whole, so that a policy's rule for that name holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from luthien_asgi.reasoning_items import decode
from luthien_asgi.request_blocks import (
    Part,
    Path,
    RequestBlock,
    RequestTool,
    Scope,
    read_any,
    read_content,
    read_definition,
    role_of,
)

__all__ = [
    "ADDITIONAL_TOOLS",
    "LONGEST_NAME",
    "flat_tools",
    "given_tools",
    "qualified_name",
    "read_item_tools",
    "read_items",
    "type_of_item",
]

ADDITIONAL_TOOLS: Final = "additional_tools"
"""The type of an item that holds tools: they are offered as those of the request are."""
LONGEST_NAME: Final = 64
"""Characters of a tool's name (OpenAI and Anthropic API reference)."""


def qualified_name(name: Any, namespace: Any = None) -> str:  # noqa: ANN401 - JSON
    """Return the one name of a tool: its namespace before its own where it has one.

    Where that is longer than `LONGEST_NAME` the namespace is cut and ends in its check sum; the name is longer still where the
    tool's own leaves no room for that.
    """
    plain = name if isinstance(name, str) else ""
    if not isinstance(namespace, str) or not namespace:
        return plain
    full = f"{namespace}__{plain}"
    room = LONGEST_NAME - len(f"_{0:08x}__{plain}")
    if len(full) <= LONGEST_NAME or room < 0:
        return full
    mark = zlib.crc32(namespace.encode("utf-8", "surrogatepass"))
    return f"{namespace[:room]}_{mark:08x}__{plain}"


def type_of_item(item: Mapping[str, Any]) -> str:
    """Return an item's type; one with a role is a message and one with nothing but an id a reference, as the API has it."""
    kind = item.get("type")
    if kind is not None:
        return str(kind)
    return "message" if "role" in item else "item_reference"


def read_items(body: Mapping[str, Any]) -> Iterator[RequestBlock]:
    """Yield every block of a Responses body, in the order of the conversation; never raises on malformed items."""
    names: dict[str, str] = {}
    yield from read_content(body.get("instructions"), ("instructions",), Scope("system", names))
    given = body.get("input")
    if not isinstance(given, list):
        yield from read_content(given, ("input",), Scope("user", names))
        return
    for place, item in enumerate(given):
        path: Path = ("input", place)
        if isinstance(item, dict):
            yield from _item(item, path, names)
        else:
            yield from read_any(item, path, Scope("user", names))


def _item(item: Part, path: Path, names: dict[str, str]) -> Iterator[RequestBlock]:
    kind = type_of_item(item)
    reader = _ITEMS.get(kind)
    scope = Scope(role_of(item) if reader is _message else "assistant", names)
    if reader is None:
        yield from read_any(item, path, scope)
        return
    yield from reader(item, path, scope)
    for field, value in item.items():
        if field not in _SILENT and field not in _READ[kind]:
            yield from read_any(value, (*path, field), scope)


def _message(item: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    yield from read_content(item.get("content"), (*path, "content"), scope)


def _reasoning(item: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    thinking = scope._replace(kind="thinking")
    shown = [
        *_texts(item.get("summary"), (*path, "summary"), thinking),
        *_texts(item.get("content"), (*path, "content"), thinking),
    ]
    yield from shown
    sealed, where = item.get("encrypted_content"), (*path, "encrypted_content")
    carried = decode(sealed)
    if carried is None or carried.kind != "thinking":
        yield from read_any(sealed, where, scope) if not isinstance(sealed, str) else _sealed(sealed, where, scope)
    elif carried.text not in {block.text for block in shown}:
        # What goes to the provider is the text in there, whatever the client shows beside it.
        yield thinking.block(carried.text, where)


def _texts(value: Any, path: Path, scope: Scope) -> Iterator[RequestBlock]:  # noqa: ANN401 - JSON
    return read_content(value, path, scope)


def _sealed(value: str, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    if value:
        yield scope.block(value, path, "redacted_thinking")


def _called(field: str) -> Callable[[Part, Path, Scope], Iterator[RequestBlock]]:
    def read(item: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
        call, name = _string(item, "call_id"), qualified_name(item.get("name"), item.get("namespace"))
        scope.names[call] = name
        text = item.get(field)
        named = scope._replace(id=call, name=name, kind="tool_call")
        yield from [named.block(text, (*path, field))] if isinstance(text, str) else read_any(text, (*path, field), scope)

    return read


def _output(item: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    call = _string(item, "call_id")
    name = scope.names.get(call) or qualified_name(item.get("name"), item.get("namespace"))
    result = scope._replace(role="tool", kind="tool_result", id=call, name=name)
    yield from read_content(item.get("output"), (*path, "output"), result)


def _string(part: Part, field: str) -> str:
    value = part.get(field)
    return value if isinstance(value, str) else ""


def _nothing(item: Part, path: Path, scope: Scope) -> Iterator[RequestBlock]:
    """Read what `read_item_tools` reads."""
    del item, path, scope
    return iter(())


_ITEMS: Final[Mapping[str, Callable[[Part, Path, Scope], Iterator[RequestBlock]]]] = {
    ADDITIONAL_TOOLS: _nothing,
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _called("arguments"),
    "custom_tool_call": _called("input"),
    "function_call_output": _output,
    "custom_tool_call_output": _output,
}
_CALL_FIELDS: Final = frozenset({"call_id", "name", "namespace"})
_READ: Final[Mapping[str, frozenset[str]]] = {
    ADDITIONAL_TOOLS: frozenset({"role", "tools"}),
    "message": frozenset({"role", "content"}),
    "reasoning": frozenset({"summary", "content", "encrypted_content"}),
    "function_call": _CALL_FIELDS | {"arguments"},
    "custom_tool_call": _CALL_FIELDS | {"input"},
    "function_call_output": _CALL_FIELDS | {"output"},
    "custom_tool_call_output": _CALL_FIELDS | {"output"},
}
_SILENT: Final = frozenset({"type", "id", "status", "phase"})
"""Names and states of items: nothing of them reaches a model."""


# --- tools -----------------------------------------------------------------------------------------------------------------


def read_item_tools(body: Mapping[str, Any]) -> Iterator[RequestTool]:
    """Yield the tools that a Responses body offers, those of a namespace one by one."""
    for path, tool in flat_tools(body):
        yield read_definition(tool, _string(tool, "type") or "function", path, "parameters")


def flat_tools(body: Mapping[str, Any]) -> Iterator[tuple[Path, Part]]:
    """Yield every tool with its path; one of a namespace has its qualified name, the first also the description of both."""
    for path, tool in given_tools(body):
        yield from _flat(tool, path)


def given_tools(body: Mapping[str, Any]) -> Iterator[tuple[Path, Part]]:
    """Yield every tool and namespace with its path: those of the request, then those of its items."""
    yield from _objects(body.get("tools"), ("tools",))
    for path, item in _objects(body.get("input"), ("input",)):
        if type_of_item(item) == ADDITIONAL_TOOLS:
            yield from _objects(item.get("tools"), (*path, "tools"))


def _objects(given: Any, path: Path) -> Iterator[tuple[Path, Part]]:  # noqa: ANN401 - JSON
    for place, value in enumerate(given if isinstance(given, list) else ()):
        if isinstance(value, dict):
            yield (*path, place), value


def _flat(tool: Part, path: Path) -> Iterator[tuple[Path, Part]]:
    inner = tool.get("tools")
    if tool.get("type") != "namespace" or not isinstance(inner, list):
        yield path, tool
        return
    shared = _string(tool, "description")
    for inside, named in _objects(inner, (*path, "tools")):
        about = "\n\n".join(text for text in (shared, _string(named, "description")) if text)
        shared = ""  # said once: a long one times many tools would be a body of any size
        yield inside, {**named, "name": qualified_name(named.get("name"), tool.get("name")), "description": about}
