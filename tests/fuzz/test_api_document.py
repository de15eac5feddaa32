"""The OpenAPI document: as the code has it, and about every route that is answered."""

from __future__ import annotations

import json
import re

import pytest
from api_document import _PATHS, DOCUMENT, document, written

from luthien_asgi import Limits
from luthien_asgi.errors import RequestError
from luthien_asgi.routes import Routes
from luthien_asgi.wire.anthropic import AnthropicWire
from luthien_asgi.wire.openai import OpenAIWire
from luthien_asgi.wire.parameters import PARAMETERS
from luthien_asgi.wire.responses import ResponsesWire


def test_the_document_is_as_the_code_has_it() -> None:
    """`python tests/fuzz/api_document.py` writes it anew."""
    assert DOCUMENT.read_text() == written()


def test_every_route_is_in_it() -> None:
    """Those of the gateway, and those with a name below them; of records there is no list."""
    routes = set(Routes(_PATHS)._exact)
    below = {("GET", f"{_PATHS.models}/{{model}}"), ("POST", f"{_PATHS.approvals}/{{id}}")}
    below |= {("GET", f"{_PATHS.records}/{{id}}")}
    found = {(method.upper(), path) for path, item in document()["paths"].items() for method in item if method != "parameters"}
    assert found == (routes | below) - {("GET", str(_PATHS.records))}


def test_every_reference_leads_somewhere() -> None:
    """And no schema is there that nothing refers to."""
    schemas = set(document()["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document()))) == schemas


@pytest.mark.parametrize("wire", [OpenAIWire(), AnthropicWire(), ResponsesWire()], ids=lambda wire: wire.name)
def test_what_it_names_is_known(wire: OpenAIWire | AnthropicWire | ResponsesWire) -> None:
    """Each field of a request's schema is one that its parser knows, and no other field is."""
    names = {"openai": "ChatRequest", "anthropic": "MessagesRequest", "responses": "ResponsesRequest"}
    schema = document()["components"]["schemas"][names[wire.name]]
    assert set(schema["properties"]) == {name for name, row in PARAMETERS[wire.name].items() if row.accepted}
    with pytest.raises(RequestError, match="not a parameter"):
        wire.parse_request(b'{"model": "m", "unheard_of": 1}', limits=Limits())
