"""What a class's docstring says: its first line, and what it says about each parameter.

Three ways of writing are understood: an item of a list that begins with the parameter (``- `names`: tools that …``), an entry
under `Args:`, and else the first sentence that names it in backticks.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

__all__ = ["about", "of", "summary"]

_ITEM: Final = re.compile(r"^\s*[-*] ")
_ARGUMENT: Final = re.compile(r"^\s+(\w+)(?: \([^)]*\))?: +(.*)")
_SENTENCE_END: Final = re.compile(r"(?<=[.;]) ")


def of(cls: type[Any]) -> str:
    """Return a class's own docstring; that of its base says nothing about it."""
    return inspect.cleandoc(cls.__doc__ or "")


def summary(text: str) -> str:
    """Return the first paragraph as one line."""
    return " ".join(text.split("\n\n", 1)[0].split())


def about(text: str, names: Collection[str]) -> Mapping[str, str]:
    """Return what is said about each of the names, as one line each; nothing for those that are not mentioned."""
    arguments = dict(_arguments(text)) if re.search(r"^Args:$", text, re.MULTILINE) else {}
    items, sentences = _items_and_sentences(text)
    found = {name: arguments.get(name) or _item(items, name) or _sentence(sentences, name) for name in names}
    return {name: said for name, said in found.items() if said}


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    name, said = "", ""
    for line in text.partition("Args:\n")[2].splitlines():
        if found := _ARGUMENT.match(line):
            if name:
                yield name, said
            name, said = found[1], found[2].strip()
        elif line.startswith(" ") and name:
            said += f" {line.strip()}"
        else:
            break
    if name:
        yield name, said


def _items_and_sentences(text: str) -> tuple[list[str], list[str]]:
    parts = [part for paragraph in text.split("\n\n") for part in _parts(paragraph)]
    items = [said for is_item, said in parts if is_item]
    return items, [sentence for _, said in parts for sentence in _SENTENCE_END.split(said)]


def _parts(paragraph: str) -> list[tuple[bool, str]]:
    """Return the text before a list and the list's items, each as one line and whether it is one; nothing of a block of code."""
    lines = paragraph.splitlines()
    if all(line.startswith("    ") for line in lines):
        return []
    parts: list[tuple[bool, list[str]]] = [(False, [])]
    for line in lines:
        if _ITEM.match(line):
            parts.append((True, []))
        parts[-1][1].append(_ITEM.sub("", line))
    return [(is_item, " ".join(" ".join(part).split())) for is_item, part in parts if part]


def _item(items: list[str], name: str) -> str:
    return next((item for item in items if f"`{name}`" in item.partition(": ")[0] and ": " in item), "")


def _sentence(sentences: list[str], name: str) -> str:
    named = re.compile(rf"`{name}[`:]")
    return next((sentence.rstrip(";") for sentence in sentences if named.search(sentence)), "")
