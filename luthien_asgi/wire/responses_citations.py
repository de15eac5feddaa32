"""Annotations and log probabilities of an answer's text, in the form of the Responses API.

OpenAI's chat completions have the annotations that this API has, one level deeper. Of Anthropic's citations those map that say
where something can be found: a page on the web, or a file with an id. One that quotes a document of the request does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["annotation_of", "citation_in", "cited", "logprobs_of"]


def annotation_of(said: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a mapping, or one of LiteLLM's classes
    """Return an annotation of chat completions as one of this API, None for one that is not understood."""
    value = said.model_dump(exclude_none=True) if hasattr(said, "model_dump") else said
    if not isinstance(value, Mapping):
        return None
    kind, inner = value.get("type"), value.get(str(value.get("type")))
    if not isinstance(kind, str) or not isinstance(inner, Mapping):
        return None
    if kind != "url_citation":
        return {"type": kind, **inner}
    url, title = str(inner.get("url") or ""), str(inner.get("title") or "")
    return _url_citation(url, title, _number(inner.get("start_index")), _number(inner.get("end_index")))


def citation_in(event: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the citation that an Anthropic event carries, or None."""
    delta = (event or {}).get("delta")
    citation = delta.get("citation") if isinstance(delta, Mapping) and delta.get("type") == "citations_delta" else None
    return citation if isinstance(citation, Mapping) else None


def cited(citation: Mapping[str, Any], start: int, end: int) -> dict[str, Any] | None:
    """Return Anthropic's citation as an annotation of the text from `start` to `end` (characters), None where there is none."""
    form = _CITATIONS.get(str(citation.get("type")))
    return None if form is None else form(citation, start, end)


def logprobs_of(logprobs: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a mapping, or one of LiteLLM's classes
    """Return the log probabilities of a text; `bytes` is empty where they are not known."""
    value = logprobs.model_dump() if hasattr(logprobs, "model_dump") else logprobs
    content = value.get("content") if isinstance(value, Mapping) else None
    tokens = content if isinstance(content, list) else []
    return [{**_token(token), "top_logprobs": _top(token)} for token in tokens if isinstance(token, Mapping)]


def _top(token: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_token(top) for top in token.get("top_logprobs") or () if isinstance(top, Mapping)]


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token") or "", "bytes": token.get("bytes") or [], "logprob": token.get("logprob") or 0.0}


def _url_citation(url: str, title: str, start: int, end: int) -> dict[str, Any]:
    return {"type": "url_citation", "end_index": end, "start_index": start, "title": title, "url": url}


def _web(citation: Mapping[str, Any], start: int, end: int) -> dict[str, Any] | None:
    url = citation.get("url") or citation.get("source")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    return _url_citation(url, str(citation.get("title") or ""), start, end)


def _file(citation: Mapping[str, Any], start: int, end: int) -> dict[str, Any] | None:
    del start, end
    file, name = citation.get("file_id"), citation.get("document_title")
    if not isinstance(file, str) or not file:
        return None
    return {"type": "file_citation", "file_id": file, "filename": name or file, "index": _number(citation.get("document_index"))}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


_CITATIONS: Final[Mapping[str, Callable[[Mapping[str, Any], int, int], dict[str, Any] | None]]] = MappingProxyType(
    {
        "web_search_result_location": _web,
        "search_result_location": _web,
        "char_location": _file,
        "page_location": _file,
        "content_block_location": _file,
    }
)
