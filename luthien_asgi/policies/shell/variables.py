"""The values that a script's variables may have: all that it assigns anywhere.

Strategy: one method for each way to assign, called by the walk that finds it. A variable of too many values may be anything.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from luthien_asgi.policies.shell import environment, wrappers
from luthien_asgi.policies.shell.command import written_by
from luthien_asgi.policies.shell.parsing import text_of
from luthien_asgi.policies.shell.words import UNKNOWN, Fields, Words

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Variables"]

_MOST_VALUES: Final = 30
_MOST_POSITIONAL: Final = 9
_MOST_EXTENSIONS: Final = 3
_ASSIGNING: Final = frozenset({"read", "mapfile", "readarray", "getopts", "let", "typeset"})


class Variables:
    """Notes what one script assigns; `values` is shared with what expands its words."""

    def __init__(self, source: bytes, values: dict[str, list[str]], words: Words) -> None:
        self._source = source
        self.values = values
        self._words = words
        self._extended: dict[int, int] = {}
        """How often an assignment was read that adds to what a variable was."""

    def assign(self, name: str, values: Sequence[str]) -> None:
        """Note values that a variable may have, beside those that are known."""
        known = self.values.setdefault(name, [])
        known += [value for value in dict.fromkeys(values) if value not in known]
        if len(known) > _MOST_VALUES:
            known[:] = [*known[: _MOST_VALUES - 1], UNKNOWN]

    def assignment(self, node: Node) -> None:
        """Read `x=1`, `x+=1`, `x[0]=1` and `x=(1 2)`."""
        name = text_of(node.named_children[0], self._source).partition("[")[0]
        given = node.named_children[1:]
        if environment.is_code(name):
            self.values.setdefault(name, [""])  # what it was before is the environment's
            if name in text_of(node, self._source).partition("=")[2]:
                self._extended[node.id] = self._extended.get(node.id, 0) + 1
                if self._extended[node.id] > _MOST_EXTENSIONS:
                    return
        if given and given[0].type == "array":
            elements = [self._words.texts(child) for child in given[0].named_children]
            values = [" ".join(texts[0] for texts in elements if texts), *itertools.chain(*elements)]
        else:
            values = self._words.texts(given[0]) if given else [""]
        if any(child.type == "+=" for child in node.children):
            values = [*values, *(old + new for old in self.values.get(name, ())[:4] for new in values[:4])]
        self.assign(name, values)

    def declaration(self, node: Node) -> None:
        """Read `export "x=1"`, and what makes a variable's value uncertain: `unset x`, `declare -n x`."""
        refers = any(re.fullmatch(r"-\w*n\w*", text_of(child, self._source)) for child in node.named_children)
        for child in node.named_children:
            if child.type == "variable_assignment" and refers:
                self.assign(text_of(child.named_children[0], self._source), [UNKNOWN])
            if child.type in {"variable_assignment", "comment"}:
                continue
            for text in self._words.texts(child):
                name, sign, value = text.partition("=")
                if sign:
                    self.assign(name, [value])
                elif node.type == "unset_command" and not text.startswith("-"):
                    self.assign(text, [""])

    def loop(self, node: Node) -> None:
        """Read `for x in …` and `select x in …`."""
        name, *given = [child for child in node.named_children if child.type not in {"do_group", "compound_statement"}]
        words = [word for child in given for fields in self._words.fields(child) for word in fields]
        self.assign(text_of(name, self._source), words or [UNKNOWN])

    def default(self, node: Node) -> None:
        """Read `${x:=value}`, which assigns."""
        if any(child.type in {":=", "="} for child in node.children) and len(node.named_children) > 1:
            self.assign(text_of(node.named_children[0], self._source), self._words.texts(node.named_children[1]))

    def positional(self, args: Fields) -> None:
        """Note that a function of the script is called with words, one of which `$1` may then be."""
        for place, word in enumerate(args[:_MOST_POSITIONAL], 1):
            self.assign(str(place), [UNKNOWN, word])
        for name in "@*" if args else "":
            self.assign(name, [UNKNOWN, " ".join(args)])

    def by_command(self, argv: Fields, fed: str | None) -> None:
        """Note that commands such as `read x` assign what cannot be known."""
        name, args = wrappers.name_of(argv), argv[1:]
        if name == "set" and "--" in args:
            given = args[args.index("--") + 1 :]
            for place, word in [*enumerate(given, 1), ("@", " ".join(given)), ("*", " ".join(given))]:
                self.assign(str(place), [word])
        if name == "shift":
            for place in range(1, _MOST_POSITIONAL + 1):
                self.assign(str(place), [UNKNOWN])
        if name in _ASSIGNING or (name == "printf" and "-v" in args):
            values = [UNKNOWN, *_told(name, args, fed)]
            for word in args:
                if re.fullmatch(r"[A-Za-z_]\w*", word):
                    self.assign(word, values)


def _told(name: str, args: Fields, fed: str | None) -> list[str]:
    """Return what is known of the values that a command assigns."""
    if name == "printf":
        return [written_by(("printf", *args[args.index("-v") + 2 :]), None)]
    return [fed.rstrip("\n")] if fed is not None and name in {"read", "mapfile", "readarray"} else []
