"""JSON Schemas of what the gateway takes and gives, from the tables that its parsers read, and of what those check below.

A request's fields are the rows of `luthien_asgi.wire.parameters`: what is not there is refused, and null is as good as absent.
What only the provider can judge is left open. Answers are bound to what the official SDKs count on, and may hold more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthien_asgi.request import WireName
from luthien_asgi.settings import Limits
from luthien_asgi.wire import anthropic_request, openai_request, responses_request
from luthien_asgi.wire.parameters import PARAMETERS, Parameter, Shape

__all__ = ["ANSWERS", "ERRORS", "Schema", "requests"]

Schema = dict[str, Any]
_LIMITS: Final = Limits()
_TEXT: Final[Schema] = {"type": "string"}
_OBJECT: Final[Schema] = {"type": "object"}
_SHAPES: Final[Mapping[Shape, Sequence[str]]] = {
    "text": ("string",),
    "flag": ("boolean",),
    "whole": ("integer",),
    "number": ("number",),
    "list": ("array",),
    "object": ("object",),
    "text or list": ("string", "array"),
    "text or object": ("string", "object"),
    "anything": (),
}


def _field(row: Parameter) -> Schema:
    types = list(_SHAPES[row.shape])
    return {"description": row.note, **({"type": [*types, "null"]} if types else {})}


def _object(required: Sequence[str] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _list(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items, **bounds}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _part(kind: str, field: str, schema: Schema) -> Schema:
    return _object(["type", field], type={"const": kind}, **{field: schema})


def _content(known: Mapping[str, Any], *parts: Schema) -> Schema:
    """A text, or parts; those of kinds that are not `known` to the parser are for the provider, or the conversion, to judge."""
    other = _object(["type"], type={"type": "string", "not": {"enum": sorted(known)}})
    return {"anyOf": [_TEXT, _list({"anyOf": [*parts, other]})]}


def _message(role: Sequence[str], content: Schema, *required: str, **more: Schema) -> Schema:
    return _object(["role", *required], role={"enum": list(role)}, content=content, **more)


_OPENAI: Final = openai_request._PARTS
_ANTHROPIC: Final = anthropic_request._PARTS
_RESPONSES: Final = responses_request._PARTS
_AT_LEAST_ONE: Final[Schema] = {"type": ["integer", "null"], "minimum": 1}
_IMAGE: Final = _part("image_url", "image_url", {"type": ["string", "object"]})
_CALLED: Final = _object(["name", "arguments"], name=_TEXT, arguments=_TEXT)
_CALL: Final = _object(["id", "function"], id=_TEXT, function=_CALLED)
_OPENAI_TEXT: Final = _content(_OPENAI, _part("text", "text", _TEXT), _part("refusal", "refusal", _TEXT), _IMAGE)
_OPENAI_MESSAGE: Final[Schema] = {
    "anyOf": [
        _message(["system", "developer", "user"], _OPENAI_TEXT, "content"),
        _message(["assistant"], _or_null(_OPENAI_TEXT), tool_calls=_or_null(_list(_CALL)), refusal=_or_null(_TEXT)),
        _message(["tool"], _or_null(_OPENAI_TEXT), "tool_call_id", tool_call_id=_TEXT),
    ]
}
_DEFINED: Final = _object(["name"], name=_TEXT, description=_or_null(_TEXT), parameters=_or_null(_OBJECT))
_OPENAI_TOOL: Final[Schema] = {
    "anyOf": [
        _object(["type", "function"], type={"const": "function"}, function=_DEFINED),
        _object(["type"], type={"type": "string", "not": {"enum": ["function", "custom"]}}),  # the provider's to judge
    ]
}

_TEXT_PART: Final = _part("text", "text", _TEXT)
_TOOL_USE: Final = _object(["type", "id", "name", "input"], type={"const": "tool_use"}, id=_TEXT, name=_TEXT, input=_OBJECT)
_TOOL_RESULT: Final = _object(
    ["type", "tool_use_id"],
    type={"const": "tool_result"},
    tool_use_id=_TEXT,
    content=_or_null(_content(_ANTHROPIC, _TEXT_PART)),
    is_error=_or_null({"type": "boolean"}),
)
_THINKING: Final = _object(["type", "thinking"], type={"const": "thinking"}, thinking=_TEXT, signature=_or_null(_TEXT))
_IMAGE_BLOCK: Final = _part("image", "source", _OBJECT)
_ANTHROPIC_CONTENT: Final = _content(_ANTHROPIC, _TEXT_PART, _IMAGE_BLOCK, _TOOL_USE, _TOOL_RESULT, _THINKING)
_ANTHROPIC_MESSAGE: Final = _message(["user", "assistant"], _ANTHROPIC_CONTENT, "content")
_ANTHROPIC_TOOL: Final = _object(["name", "input_schema"], name=_TEXT, description=_or_null(_TEXT), input_schema=_OBJECT)

_INPUT_TEXT: Final = _part("input_text", "text", _TEXT)
_OUTPUT_TEXT: Final = _part("output_text", "text", _TEXT)
_SHORT: Final[Schema] = {"type": "string", "maxLength": 128}
_ITEM_TEXT: Final = _content(_RESPONSES, _INPUT_TEXT, _OUTPUT_TEXT)
_ITEM: Final[Schema] = {
    "anyOf": [
        _message(["user", "system", "developer", "assistant"], _ITEM_TEXT, "content"),
        _object(
            ["type", "call_id", "name", "arguments"],
            type={"const": "function_call"},
            call_id=_TEXT,
            name=_TEXT,
            arguments=_TEXT,
        ),
        _object(
            ["type", "call_id", "output"],
            type={"const": "function_call_output"},
            call_id=_TEXT,
            output=_ITEM_TEXT,
        ),
    ]
}
_RESPONSES_TOOL: Final = _object(
    ["type", "name"], type={"const": "function"}, name=_SHORT, description=_or_null(_TEXT), parameters=_or_null(_OBJECT)
)

_BELOW: Final[Mapping[str, Mapping[str, Schema]]] = {
    "openai": {
        "messages": _list(_OPENAI_MESSAGE, minItems=1),
        "tools": _or_null(_list(_OPENAI_TOOL)),
        "functions": _or_null(_list(_DEFINED)),
        "n": {**_AT_LEAST_ONE, "maximum": _LIMITS.choices},
        "max_tokens": _AT_LEAST_ONE,
        "max_completion_tokens": _AT_LEAST_ONE,
    },
    "anthropic": {
        "messages": _list(_ANTHROPIC_MESSAGE, minItems=1),
        "system": _or_null(_content(_ANTHROPIC, _TEXT_PART)),
        "tools": _or_null(_list(_ANTHROPIC_TOOL)),
        "max_tokens": {"type": "integer", "minimum": 1},
    },
    "responses": {
        "input": {"anyOf": [_TEXT, _list(_ITEM, minItems=1)]},
        "tools": _or_null(_list(_RESPONSES_TOOL)),
        "include": _or_null(_list(_TEXT)),
        "metadata": _or_null({"type": "object", "additionalProperties": _TEXT}),
        "max_output_tokens": _AT_LEAST_ONE,
        "reasoning": _or_null(_object(effort=_or_null(_TEXT), summary=_or_null(_TEXT))),
        "text": _or_null(_object(verbosity=_or_null(_TEXT), format=_or_null(_object(["type"], type={"enum": ["text"]})))),
        "stream_options": _or_null(_object(include_obfuscation=_or_null({"type": "boolean"}))),
    },
}
_REQUIRED: Final[Mapping[str, Sequence[str]]] = {
    "openai": ("model", "messages"),
    "anthropic": ("model", "messages", "max_tokens"),
    "responses": ("model", "input"),
}


def _request(wire: WireName) -> Schema:
    rows = {name: _field(row) for name, row in PARAMETERS[wire].items() if row.accepted}
    below = {name: {"description": rows[name]["description"], **schema} for name, schema in _BELOW[wire].items()}
    model = {"model": {"type": "string", "pattern": "\\S", "description": "a name of the configuration's model_list"}}
    properties = {**rows, **below, **model}
    return {**_object(_REQUIRED[wire], **properties), "additionalProperties": False}


def requests() -> dict[str, Schema]:
    """Return the schemas of the four request bodies."""
    count = _request("anthropic")
    count["required"] = ["model", "messages"]
    count["properties"]["max_tokens"] = {"type": ["integer", "null"]}
    return {
        "ChatRequest": _request("openai"),
        "MessagesRequest": _request("anthropic"),
        "ResponsesRequest": _request("responses"),
        "CountRequest": count,
    }


# --- answers ---------------------------------------------------------------------------------------------------------------

_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
_ANSWER_MESSAGE: Final = _object(["role"], role={"const": "assistant"}, content=_or_null(_TEXT), tool_calls=_list(_OBJECT))
_CHOICE: Final = _object(["index", "message", "finish_reason"], index=_NUMBER, message=_ANSWER_MESSAGE, finish_reason=_TEXT)
_USAGE: Final = _object(
    ["prompt_tokens", "completion_tokens", "total_tokens"],
    prompt_tokens=_NUMBER,
    completion_tokens=_NUMBER,
    total_tokens=_NUMBER,
)
_MODEL: Final = _object(["id", "object", "created"], id=_TEXT, object={"const": "model"}, created=_NUMBER)
_ANTHROPIC_MODEL: Final = _object(["id", "type", "display_name"], id=_TEXT, type={"const": "model"}, display_name=_TEXT)
_WAITING: Final = _object(
    ["id", "transaction_id", "policy", "question", "kind", "content", "asked_at", "expires_at"],
    **dict.fromkeys(("id", "transaction_id", "policy", "question", "kind", "tool", "content", "client", "model"), _TEXT),
    asked_at={"type": "number"},
    expires_at={"type": "number"},
)

ANSWERS: Final[Mapping[str, Schema]] = {
    "ChatCompletion": _object(
        ["id", "object", "created", "model", "choices"],
        id=_TEXT,
        object={"const": "chat.completion"},
        created=_NUMBER,
        model=_TEXT,
        choices=_list(_CHOICE, minItems=1),
        usage=_or_null(_USAGE),
    ),
    "Message": _object(
        ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
        id=_TEXT,
        type={"const": "message"},
        role={"const": "assistant"},
        model=_TEXT,
        content=_list(_object(["type"], type=_TEXT)),
        stop_reason=_TEXT,
        stop_sequence=_or_null(_TEXT),
        usage=_object(["input_tokens", "output_tokens"], input_tokens=_or_null(_NUMBER), output_tokens=_NUMBER),
    ),
    "Response": _object(
        ["id", "object", "created_at", "status", "model", "output"],
        id=_TEXT,
        object={"const": "response"},
        created_at={"type": "number"},
        status={"enum": ["completed", "incomplete", "failed"]},
        model=_TEXT,
        output=_list(_object(["type"], type=_TEXT)),
    ),
    "TokenCount": _object(["input_tokens"], input_tokens=_NUMBER),
    "Model": {"anyOf": [_MODEL, _ANTHROPIC_MODEL]},
    "ModelList": _object(["data"], data=_list({"$ref": "#/components/schemas/Model"})),
    "Health": _object(
        ["status", "ready", "backend", "recorder", "draining", "pid"],
        status={"const": "ok"},
        ready={"type": "boolean"},
        backend={"enum": ["starting", "ready", "failed"]},
        recorder={"enum": ["ready", "failed"]},
        draining={"type": "boolean"},
        pid={"type": "integer"},
        config=_object(
            ["version", "loaded_at", "refused_at", "restart_needed"],
            version=_TEXT,
            loaded_at={"type": "number"},
            refused_at=_or_null({"type": "number"}),
            restart_needed={"type": "boolean"},
        ),
    ),
    "Record": _object(["id", "begin", "end"], id=_TEXT, begin={"type": "object"}, end=_or_null({"type": "object"})),
    "Approvals": _list(_WAITING),
    "Decided": _object(
        ["id", "decision", "by", "reason"], id=_TEXT, decision={"enum": ["allow", "deny"]}, by=_TEXT, reason=_TEXT
    ),
}
ERRORS: Final[Mapping[str, Schema]] = {
    "OpenAIError": _object(
        ["error"],
        error=_object(
            ["message", "type", "param", "code"], message=_TEXT, type=_TEXT, param=_or_null(_TEXT), code=_or_null(_TEXT)
        ),
    ),
    "AnthropicError": _object(
        ["type", "error"], type={"const": "error"}, error=_object(["type", "message"], type=_TEXT, message=_TEXT)
    ),
    "OperatorError": _object(["error"], error=_object(["type", "message"], type=_TEXT, message=_TEXT, param=_or_null(_TEXT))),
}
