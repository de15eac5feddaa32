"""What LiteLLM would do to a request on its way to a provider of another wire, and what of it is refused.

For those providers LiteLLM fetches images from the addresses that a client names, and writes out every `$ref` of a schema. Both
would happen in this process, at a client's word: a fetch of any address, and a few lines of JSON that become gigabytes.

Files it fetches for providers of OpenAI's wire too, as soon as it maps their requests: a `file_id` that is an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from luthien_asgi.errors import RequestError

__all__ = ["check_files", "check_foreign", "expanded_size"]

MOST_NODES: Final = 10_000
"""Values of a schema with its references written out."""
_ADDRESS: Final = re.compile(r"\s*(?:(?!data:)[a-z][a-z0-9+.-]*:/|//|www\.|file:)", re.IGNORECASE)
"""What is neither an id, nor data as base64, nor a data URL. (LiteLLM takes `www.` for an address as well.)"""
_WORDS: Final = frozenset({"filename", "refusal", "text", "thinking", "title"})
"""Fields of a content part that nobody takes for an address."""
_SPOKEN: Final = frozenset(
    {"content", "function_call", "name", "reasoning", "reasoning_content", "refusal", "role", "thinking_blocks", "tool_call_id"}
    | {"tool_calls"}
)
"""Fields of a message that hold words, or whose parts are looked at."""
_DEFINITIONS: Final = ("$defs", "definitions")


def check_foreign(params: Mapping[str, Any]) -> None:
    """Raise `RequestError` for what LiteLLM would fetch or blow up; `params` are OpenAI-style parameters."""
    for place, message in enumerate(params.get("messages") or ()):
        if beside := _beside(message):
            msg = f"This model takes images and files in content only: an address in {beside!r} would have to be fetched here."
            raise RequestError(msg, param=f"messages[{place}].{beside}")
        elsewhere = (said for part in _parts(message) for said in _texts(part) if _ADDRESS.match(said))
        if next(elsewhere, None) is not None or not all(url.startswith("data:") for url in _urls(message)):
            msg = "This model takes images as data URLs only: an address would have to be fetched here."
            raise RequestError(msg, param=f"messages[{place}].content")
    for name in ("tools", "functions", "response_format"):
        if expanded_size(params.get(name)) > MOST_NODES:
            msg = f"The schemas of {name} grow beyond {MOST_NODES} values when their references are written out."
            raise RequestError(msg, param=name)


def _beside(message: Any) -> str:  # noqa: ANN401 - JSON
    """Return the name of a message's field, beside those that hold words, in which there is an address; or nothing."""
    fields = message.items() if isinstance(message, Mapping) else ()
    beside = ((str(name), value) for name, value in fields if name not in _SPOKEN)
    return next((name for name, value in beside if any(map(_ADDRESS.match, _texts({name: value})))), "")[:100]


def check_files(params: Mapping[str, Any]) -> None:
    """Raise `RequestError` for files that LiteLLM would fetch; `params` are OpenAI-style parameters that it maps."""
    for place, message in enumerate(params.get("messages") or ()):
        for name, said in _files(message):
            if _ADDRESS.match(said):
                msg = "This model takes files as data or as ids of the provider's only: an address would have to be fetched here."
                raise RequestError(msg, param=f"messages[{place}].content.file.{name}")


def _files(message: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON
    for part in _parts(message):
        file = part.get("file")
        for name, said in file.items() if isinstance(file, Mapping) else ():
            if isinstance(said, str) and name not in _WORDS:
                yield str(name), said


def _urls(message: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    for part in _parts(message):
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        if isinstance(url, str):
            yield url


def _parts(message: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - JSON
    content = message.get("content") if isinstance(message, Mapping) else None
    yield from (part for part in (content if isinstance(content, list) else ()) if isinstance(part, Mapping))


def _texts(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a content part, whatever its type, that might be taken for an address."""
    for found in _objects(part):
        of_text = str(found.get("media_type", "")).startswith("text/")
        for name, value in found.items():
            if name not in _WORDS and not (name == "data" and of_text):
                yield from (said for said in (value if isinstance(value, list) else [value]) if isinstance(said, str))


def expanded_size(value: Any) -> int:  # noqa: ANN401 - JSON
    """Return how many values a JSON value has with its `$ref`s written out; more than `MOST_NODES` where they never end."""
    definitions: dict[str, Any] = {}
    for found in _objects(value):
        for name in _DEFINITIONS:
            if isinstance(found.get(name), Mapping):
                definitions |= found[name]
    return _size(value, definitions, {}, frozenset())


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - JSON
    pending = [value]
    while pending:
        at = pending.pop()
        if isinstance(at, Mapping):
            yield at
            pending += at.values()
        elif isinstance(at, list):
            pending += at


def _size(value: Any, definitions: Mapping[str, Any], known: dict[str, int], inside: frozenset[str]) -> int:  # noqa: ANN401
    if isinstance(value, list):
        return 1 + sum(_size(item, definitions, known, inside) for item in value)
    if not isinstance(value, Mapping):
        return 1
    here = 1 + sum(_size(item, definitions, known, inside) for key, item in value.items() if key not in _DEFINITIONS)
    name = str(value.get("$ref", "")).rsplit("/", 1)[-1]
    return here + _referred(name, definitions, known, inside) if name in definitions else here


def _referred(name: str, definitions: Mapping[str, Any], known: dict[str, int], inside: frozenset[str]) -> int:
    if name in inside:
        return MOST_NODES + 1
    if name not in known:
        known[name] = _size(definitions[name], definitions, known, inside | {name})
    return known[name]
