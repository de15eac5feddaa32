"""The OpenAPI document of the routes that are answered, `docs/openapi.json`: `python tests/fuzz/api_document.py` writes it.

The same document is what `api_run.py` holds a real gateway to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from api_schemas import ANSWERS, ERRORS, Schema, requests

from luthien_asgi import Paths, __version__
from luthien_asgi.approval_values import REASON_KEPT

__all__ = ["DOCUMENT", "document", "written"]

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "openapi.json"
_PATHS: Final = Paths(models="/v1/models", approvals="/luthien/approvals", records="/luthien/records", health="/luthien/health")
_CLIENT: Final = [{"clientKey": []}]
_OPERATOR: Final = [{"operatorKey": []}]


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _named(name)}}


def _operation(
    name: str, summary: str, answer: str, error: str, *, request: str = "", streams: bool = False, security: Any = None
) -> dict[str, Any]:
    content = {**_json(answer), **({"text/event-stream": {}} if streams else {})}
    failed = {"description": "what is wrong, in the client's own format", "content": _json(error)}
    found: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "security": _CLIENT if security is None else security,
        "responses": {"200": {"description": summary, "content": content}, "4XX": failed, "5XX": failed},
    }
    if request:
        found["requestBody"] = {"required": True, "content": _json(request)}
    return found


def _decision() -> Schema:
    reason = {"type": "string", "maxLength": REASON_KEPT}
    decision = {"enum": ["allow", "deny"]}
    properties = {"decision": decision, "reason": reason}
    return {"type": "object", "properties": properties, "required": ["decision"], "additionalProperties": False}


def _health() -> dict[str, Any]:
    said = _operation("health", "Whether the gateway serves.", "Health", "OpenAIError", security=[])
    ready = {"name": "ready", "in": "query", "allowEmptyValue": True, "schema": {"type": "string"}}
    about = "With it, whatever its value, the status is a 503 as long as `ready` is false."
    said["parameters"] = [{**ready, "description": about}]
    said["responses"]["503"] = {"description": "asked for `ready`, and it is not", "content": _json("Health")}
    return said


def _paths() -> dict[str, Any]:
    chat = _operation("chat", "One chat completion.", "ChatCompletion", "OpenAIError", request="ChatRequest", streams=True)
    messages = _operation("messages", "One message.", "Message", "AnthropicError", request="MessagesRequest", streams=True)
    responses = _operation("responses", "One response.", "Response", "OpenAIError", request="ResponsesRequest", streams=True)
    count = _operation("count_tokens", "How many tokens a request is.", "TokenCount", "AnthropicError", request="CountRequest")
    decide = _operation("decide", "Decides what waits.", "Decided", "OperatorError", request="Decision", security=_OPERATOR)
    one = {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        str(_PATHS.chat): {"post": chat},
        str(_PATHS.messages): {"post": messages},
        str(_PATHS.responses): {"post": responses},
        str(_PATHS.count_tokens): {"post": count},
        str(_PATHS.models): {"get": _operation("models", "The models that may be asked.", "ModelList", "OpenAIError")},
        f"{_PATHS.models}/{{model}}": {
            "get": _operation("model", "One model.", "Model", "OpenAIError"),
            "parameters": [{"name": "model", **one}],
        },
        str(_PATHS.health): {"get": _health()},
        str(_PATHS.approvals): {
            "get": _operation("approvals", "What waits for a person.", "Approvals", "OperatorError", security=_OPERATOR)
        },
        f"{_PATHS.approvals}/{{id}}": {"post": decide, "parameters": [{"name": "id", **one}]},
        f"{_PATHS.records}/{{id}}": {
            "get": _operation("record", "The record of one transaction.", "Record", "OperatorError", security=_OPERATOR),
            "parameters": [{"name": "id", **one}],
        },
    }


def document() -> dict[str, Any]:
    """Return the document; paths are those of the `luthien-asgi serve` gateway."""
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "luthien_asgi",
            "version": __version__,
            "description": "What a gateway answers. Models, and whether keys are needed, are its configuration's to say.",
        },
        "paths": _paths(),
        "components": {
            "schemas": {**requests(), **ANSWERS, **ERRORS, "Decision": _decision()},
            "securitySchemes": {"clientKey": bearer, "operatorKey": bearer},
        },
    }


def written() -> str:
    """Return the document as it stands in its file."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(written())
