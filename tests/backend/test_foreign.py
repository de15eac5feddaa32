"""What LiteLLM would fetch or blow up for providers of another wire."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.backend.foreign import MOST_NODES, check_files, check_foreign, expanded_size
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


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "url", "url": "https://a/b"}},
        {"type": "video_url", "video_url": {"url": "http://a/b"}},
        {"type": "unheard_of", "deep": [{"er": ["http://a/b"]}]},
    ],
)
def test_an_address_is_refused_in_parts_of_any_type(part: Any) -> None:
    """LiteLLM knows more types than the API."""
    with pytest.raises(RequestError):
        check_foreign({"messages": [{"role": "user", "content": [{"type": "text", "text": "http://a/b"}, part]}]})


def test_words_that_look_like_an_address_pass() -> None:
    """Texts, titles and documents of text."""
    source = {"type": "text", "media_type": "text/plain", "data": "http://a/b is where"}
    parts = [{"type": "text", "text": "https://a/b"}, {"type": "document", "source": source, "title": "file:/a"}]
    check_foreign({"messages": [{"role": "user", "content": parts}]})


def a_file(**file: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "file", "file": file}]}]}


@pytest.mark.parametrize("name", ["file_id", "file_data", "file_url", "unheard_of"])
@pytest.mark.parametrize("said", ["http://127.0.0.1/x.pdf", " HTTPS://a/x", "file:/x", "gs://a/b", "//a/b"])
def test_an_address_of_a_file_is_refused(name: str, said: str) -> None:
    """In whatever field, with the field's path."""
    with pytest.raises(RequestError) as caught:
        check_files(a_file(**{name: said}))
    assert caught.value.param == f"messages[0].content.file.{name}"


def test_files_as_data_or_ids_pass() -> None:
    """Base64 may begin with a slash; a name may be anything."""
    for said in ("data:application/pdf;base64,AA==", "/9j/4AAQ", "file-0123456789", "AAAA"):
        check_files(a_file(file_data=said, file_id=said, filename="http://a/b"))
    check_files({"messages": [{"content": "http://a"}, "x", {"content": [1, {"file": 2}]}]})


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
