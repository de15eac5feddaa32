"""Annotations and log probabilities of an answer's text, in the form of the Responses API.

OpenAI's chat completions have the annotations that this API has, one level deeper. Of Anthropic's citations those map that say
where something can be found: a page on the web, or a file with an id. One that quotes a document of the request does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["Citations", "annotation_of", "citation_in", "logprobs_of"]


def annotation_of(said: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a mapping, or one of LiteLLM's classes
    """Return an annotation of chat completions as one of this API, None for one that is not understood."""
    value = said.model_dump(exclude_none=True) if hasattr(said, "model_dump") else said
    inner = value.get("url_citation") if isinstance(value, Mapping) else None
    url = inner.get("url") if isinstance(inner, Mapping) else None
    if inner is None or not isinstance(url, str):
        return None
    return _url_citation(url, _text(inner.get("title")), _count(inner.get("start_index")), _count(inner.get("end_index")))


def citation_in(event: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the citation that an Anthropic event carries, or None."""
    delta = (event or {}).get("delta")
    citation = delta.get("citation") if isinstance(delta, Mapping) and delta.get("type") == "citations_delta" else None
    return citation if isinstance(citation, Mapping) else None


class Citations:
    """The citations of one block of text, which speak of all of it and so wait for its end."""

    def __init__(self) -> None:
        self.start = 0
        """Where the block begins in its part, in characters."""
        self.waiting: list[Mapping[str, Any]] = []

    def end(self, length: int) -> list[dict[str, Any] | None]:
        """Return the annotations of a block that ends at `length`; None for a citation that this API has no word for."""
        found = [self._annotation(citation, length) for citation in self.waiting]
        self.waiting = []
        return found

    def _annotation(self, citation: Mapping[str, Any], length: int) -> dict[str, Any] | None:
        form = _CITATIONS.get(str(citation.get("type")))
        return None if form is None else form(citation, self.start, length)


def logprobs_of(logprobs: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a mapping, or one of LiteLLM's classes
    """Return the log probabilities of a text; `bytes` is empty where they are not known."""
    value = logprobs.model_dump() if hasattr(logprobs, "model_dump") else logprobs
    tokens = value.get("content") if isinstance(value, Mapping) else None
    return [
        {**_token(token), "top_logprobs": list(map(_token, _objects(token.get("top_logprobs"))))} for token in _objects(tokens)
    ]


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    logprob, said = token.get("logprob"), token.get("bytes")
    known = [_count(byte) for byte in said] if isinstance(said, list) else []
    return {"token": _text(token.get("token")), "bytes": known, "logprob": logprob if isinstance(logprob, int | float) else 0.0}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0


def _url_citation(url: str, title: str, start: int, end: int) -> dict[str, Any]:
    return {"type": "url_citation", "end_index": end, "start_index": start, "title": title, "url": url}


def _web(citation: Mapping[str, Any], start: int, end: int) -> dict[str, Any] | None:
    url = citation.get("url") or citation.get("source")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    return _url_citation(url, _text(citation.get("title")), start, end)


def _file(citation: Mapping[str, Any], start: int, end: int) -> dict[str, Any] | None:
    del start, end
    file, name = _text(citation.get("file_id")), _text(citation.get("document_title"))
    if not file:
        return None
    return {"type": "file_citation", "file_id": file, "filename": name or file, "index": _count(citation.get("document_index"))}


_CITATIONS: Final[Mapping[str, Callable[[Mapping[str, Any], int, int], dict[str, Any] | None]]] = MappingProxyType(
    {
        "web_search_result_location": _web,
        "search_result_location": _web,
        "char_location": _file,
        "page_location": _file,
        "content_block_location": _file,
    }
)
