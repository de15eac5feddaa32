"""What LiteLLM would fetch or blow up for providers of another wire."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.backend.foreign import MOST_NODES, check_foreign, expanded_size
from luthien_asgi.errors import RequestError


def image(url: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "https://example.com/x.png", "file:///x", "//x", " data:x"])
def test_an_address_is_refused_whatever_its_form(url: str) -> None:
    """Nothing is fetched here at a client's word."""
    for form in (url, {"url": url}):
        with pytest.raises(RequestError) as caught:
            check_foreign(image(form))
        assert caught.value.param == "messages[0].content"


def test_data_urls_and_texts_pass() -> None:
    """What needs no fetching goes on, also odd shapes that somebody else refuses."""
    check_foreign(image({"url": "data:image/png;base64,AA=="}))
    check_foreign({"messages": [{"role": "user", "content": "http://example.com"}, {"content": ["x", {"image_url": 7}]}]})
    check_foreign({})


def doubling(depth: int) -> dict[str, Any]:
    two = {
        f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(depth)
    }
    return {"$defs": {**two, f"d{depth}": {"type": "string"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize("name", ["tools", "functions", "response_format"])
def test_references_that_blow_up_are_refused(name: str) -> None:
    """Thirty doublings, and one that refers to itself, are a 400 that names the field."""
    endless = {"$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"}
    for schema in (doubling(30), endless):
        with pytest.raises(RequestError) as caught:
            check_foreign({name: [{"type": "function", "function": {"name": "f", "parameters": schema}}]})
        assert caught.value.param == name


def test_ordinary_schemas_pass() -> None:
    """References are fine as long as they end."""
    assert expanded_size(doubling(5)) < MOST_NODES
    check_foreign({"tools": [{"function": {"parameters": doubling(5)}}]})
