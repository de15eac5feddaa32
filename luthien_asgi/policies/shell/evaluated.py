"""What a shell evaluates beside commands: arithmetic, subscripts and prompts, in which a substitution is run.

Strategy: an evaluated text (`a[$(cmd)]`, wherever it comes from) is read like a document, whose substitutions are commands; the
names in it lead to the values of variables, which are evaluated in turn. A value that cannot be known counts as a plain name or
number: nearly every script counts with some.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from luthien_asgi.policies.shell import wrappers
from luthien_asgi.policies.shell.parsing import text_of
from luthien_asgi.policies.shell.words import Fields, Words, decode_escapes

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["DECLARING", "as_documents", "as_prompts", "followed", "in_node", "in_words", "shown_as_prompt"]

DECLARING: Final = frozenset({"declare", "typeset", "local", "export", "readonly", "integer", "float"})
_NAMING: Final = frozenset({"unset", "read", "mapfile", "readarray", "getopts", "wait", "let", "vared"})
_TESTING: Final = frozenset({"test", "[", "[["})
_CODE: Final = re.compile(r"\$[({\[]|`")
_BACKTICKS: Final = re.compile(r"`((?:\\.|[^`\\])*)`", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_]\w*|\d+|[@*]", re.ASCII)
_TEXTS: Final = frozenset({"raw_string", "ansi_c_string", "string", "concatenation", "word", "translated_string"})
_EVALUATING: Final = frozenset({
    "arithmetic_expansion", "compound_statement", "c_style_for_statement", "test_command", "subscript", "expansion",
})  # fmt: skip
_IN_DOCUMENTS: Final = re.compile(r"\$\(\((.{0,500}?)\)\)", re.DOTALL)
"""Arithmetic in a document, which the grammar takes for a subshell."""


def as_documents(text: str) -> Iterator[str]:
    """Yield the scripts that evaluating a text runs: what is substituted in it as in a document, and what is in backticks."""
    if not _CODE.search(text):
        return
    mark = "EVALUATED"
    while mark in text:
        mark += mark
    yield f": <<{mark}\n{text}\n{mark}\n"
    yield from (re.sub(r"\\(.)", r"\1", found[1]) for found in _BACKTICKS.finditer(text))


def as_prompts(text: str) -> Iterator[str]:
    """Yield the scripts that showing a prompt runs: its escapes (`\\044` is a dollar) are read first."""
    for form in dict.fromkeys((text, decode_escapes(text))):
        yield from as_documents(form)


def followed(texts: Iterable[str], variables: Mapping[str, Sequence[str]]) -> list[str]:
    """Return evaluated texts and the values that the names in them lead to."""
    found = dict.fromkeys(texts)
    pending, names = list(found), set[str]()
    while pending:
        for name in _NAME.findall(pending.pop()):
            if name in names or name not in variables:
                continue
            names.add(name)
            values = [value for value in variables[name] if value not in found]
            found |= dict.fromkeys(values)
            pending += values
    return list(found)


def in_words(argv: Fields) -> list[str]:
    """Return what a builtin evaluates of its words: names with subscripts, and arithmetic."""
    name, args = wrappers.name_of(argv), argv[1:]
    if name in _TESTING:
        return list(args) if any(re.fullmatch(r"-([vR]|eq|ne|[lg][te])", word) for word in args) else []
    if name == "printf":
        after = [args[place + 1] for place, word in enumerate(args[:-1]) if word == "-v"]
        return after + [word[2:] for word in args[:1] if word.startswith("-v")]
    if name in DECLARING:
        counts = any(re.fullmatch(r"[-+]\w*[inEF]\w*", word) for word in args) or name in {"integer", "float"}
        return [word if counts else word.partition("=")[0] for word in args]
    return list(args) if name in _NAMING else []


def in_node(node: Node, source: bytes, words: Words) -> list[str]:
    """Return the texts and the names of variables that a node evaluates; what is substituted in it is a node of its own."""
    if node.type == "heredoc_body":
        return _IN_DOCUMENTS.findall(text_of(node, source))
    if node.type == "array":
        places = (re.match(r"\[(.*?)\]\+?=", text, re.DOTALL) for child in node.named_children for text in words.texts(child))
        return [found[1] for found in places if found]
    if node.type not in _EVALUATING or not _evaluates(node, source):
        return []
    found: list[str] = []
    pending = [child for child in node.named_children if child.type != "do_group"]
    while pending:
        at = pending.pop()
        if at.type in _TEXTS:
            found += words.texts(at)
        elif at.type in {"variable_name", "special_variable_name"}:
            found.append(text_of(at, source))
        if at.type not in {"command_substitution", "process_substitution"}:
            pending += at.named_children
    return found


def shown_as_prompt(node: Node, source: bytes) -> str:
    """Return the name of the variable in `${x@P}`; none in anything else."""
    marks = [child.type for child in node.children if not child.is_named]
    if node.type != "expansion" or not {"@", "P"} <= set(marks):
        return ""
    return next((found[0] for child in node.named_children if (found := _NAME.match(text_of(child, source)))), "")


def _evaluates(node: Node, source: bytes) -> bool:
    if node.type == "test_command":
        return re.search(rb"\s-([vR]|eq|ne|[lg][te])\s|^\(\(", source[node.start_byte : node.end_byte]) is not None
    marks = [child.type for child in node.children if not child.is_named]
    if node.type == "compound_statement":
        return marks[:1] == ["(("]
    return node.type != "expansion" or ":" in marks or "!" in marks
