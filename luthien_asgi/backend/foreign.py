"""What LiteLLM would do to a request on its way to a provider of another wire, and what of it is refused.

For those providers LiteLLM fetches images from the addresses that a client names, and writes out every `$ref` of a schema. Both
would happen in this process, at a client's word: a fetch of any address, and a few lines of JSON that become gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from luthien_asgi.errors import RequestError

__all__ = ["check_foreign", "expanded_size"]

MOST_NODES: Final = 10_000
"""Values of a schema with its references written out."""
_DEFINITIONS: Final = ("$defs", "definitions")


def check_foreign(params: Mapping[str, Any]) -> None:
    """Raise `RequestError` for what LiteLLM would fetch or blow up; `params` are OpenAI-style parameters."""
    for place, message in enumerate(params.get("messages") or ()):
        for url in _urls(message):
            if not url.startswith("data:"):
                msg = "This model takes images as data URLs only: an address would have to be fetched here."
                raise RequestError(msg, param=f"messages[{place}].content")
    for name in ("tools", "functions", "response_format"):
        if expanded_size(params.get(name)) > MOST_NODES:
            msg = f"The schemas of {name} grow beyond {MOST_NODES} values when their references are written out."
            raise RequestError(msg, param=name)


def _urls(message: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    content = message.get("content") if isinstance(message, Mapping) else None
    for part in content if isinstance(content, list) else ():
        image = part.get("image_url") if isinstance(part, Mapping) else None
        url = image.get("url") if isinstance(image, Mapping) else image
        if isinstance(url, str):
            yield url


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
