"""Parses shell scripts with tree-sitter's bash grammar, in bounded time.

Why this parser: it is kept, under the MIT licence, a compiled grammar with no code of the script's being run, and it goes on
after an error; bashlex is GPL. It comes with the extra `shell`.

The grammar is not bash. Where it is known to part words elsewhere the script is written otherwise first (`$x` as `${x}`), and
what can be checked afterwards is (`is_whole`): words that touch each other are one word to bash, and a document ends where bash
would end it. A script that fails the check counts as one that cannot be parsed.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tree_sitter import Language, Node

__all__ = ["ScriptError", "is_whole", "normalised", "parse", "require_parser", "text_of"]

LONGEST: Final = 100_000
"""Characters of one script."""
_SECONDS: Final = 1.0
"""Time for one parse; an ordinary script takes a thousandth of it, a hundred thousand open brackets take longer."""
_MOST_NODES: Final = 20_000
"""Parts of a script's syntax: words, operators, commands."""
_SLICE: Final = 65_536
_VARIABLE: Final = re.compile(r"\\.|\$([A-Za-z_]\w*|[0-9@*?!-])", re.DOTALL | re.ASCII)


class ScriptError(ValueError):
    """A script that is not read to its end; the message says why and quotes nothing of it."""


def require_parser() -> None:
    """Raise `ValueError` where the parser is not installed."""
    try:
        _language()
    except ImportError as error:
        msg = f"GuardShell needs a parser of shell scripts, pip install 'luthien-asgi[shell]': {error}"
        raise ValueError(msg) from None


@cache
def _language() -> Language:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Language(tree_sitter_bash.language())


def parse(script: str) -> Node:
    """Return a script's syntax tree. Raises `ScriptError` when it is too long, takes too long or has a NUL in it."""
    from tree_sitter import Parser

    if len(script) > LONGEST:
        msg = f"the script is longer than {LONGEST} characters"
        raise ScriptError(msg)
    if "\0" in script:
        msg = "the script has a NUL in it"
        raise ScriptError(msg)
    source = script.encode("utf-8", "surrogatepass")
    end = time.monotonic() + _SECONDS
    try:
        tree = Parser(_language()).parse(
            lambda at, _: source[at : at + _SLICE], progress_callback=lambda *_: time.monotonic() > end
        )
    except ValueError:
        msg = "the script takes too long to parse"
        raise ScriptError(msg) from None
    if tree.root_node.descendant_count > _MOST_NODES:
        msg = f"the script has more than {_MOST_NODES} parts"
        raise ScriptError(msg)
    return tree.root_node


def normalised(script: str) -> str:
    """Return a script with `${x}` for `$x`, which says the same: the grammar takes `a$x-b$y` for two words."""
    return _VARIABLE.sub(lambda found: f"${{{found[1]}}}" if found[1] else found[0], script)


def is_whole(root: Node, source: bytes) -> bool:
    """Tell whether all of a script was understood as bash would understand it, as far as that can be checked."""
    return not root.has_error and all(_is_sound(node, source) for node in _nodes(root))


def _nodes(root: Node) -> Iterator[Node]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending += node.named_children


def _is_sound(node: Node, source: bytes) -> bool:
    if node.type == "command":
        words = [child for child in node.named_children if child.type not in {"comment", "file_redirect", "herestring_redirect"}]
        gaps = (source[one.end_byte : other.start_byte] for one, other in itertools.pairwise(words))
        return all(gap.replace(b"\\\n", b"") for gap in gaps)  # a continued line is no gap
    if node.type == "heredoc_redirect":
        return _ends_as_in_bash(node, source)
    return True


def _ends_as_in_bash(node: Node, source: bytes) -> bool:
    parts = {child.type: text_of(child, source) for child in node.named_children}
    mark = re.sub(r"['\"\\]", "", parts.get("heredoc_start", ""))
    strips = any(child.type == "<<-" for child in node.children)
    lines = parts.get("heredoc_body", "").split("\n")
    if strips:
        lines = [line.lstrip("\t") for line in lines]
    return bool(mark) and parts.get("heredoc_end", "").lstrip("\t") == mark and mark not in lines[:-1]


def text_of(node: Node, source: bytes) -> str:
    """Return the script's text under a node."""
    return source[node.start_byte : node.end_byte].decode("utf-8", "surrogatepass")
