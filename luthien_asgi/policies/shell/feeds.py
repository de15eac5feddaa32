"""What the commands of one script are given to read, and what they write, as far as that can be told.

Strategy: an output is that of a few commands which write what they are told (`echo`, `printf`, `cat`); of any other it is
`UNKNOWN`. Each is worked out once in a walk.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from luthien_asgi.policies.shell.command import written_by
from luthien_asgi.policies.shell.listed import listed_by
from luthien_asgi.policies.shell.parsing import text_of
from luthien_asgi.policies.shell.words import UNKNOWN, Fields, Words

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["REDIRECTS", "Feeds", "is_output"]

REDIRECTS: Final = frozenset({"file_redirect", "heredoc_redirect", "herestring_redirect"})
_NO_WORDS: Final = REDIRECTS | {"variable_assignment", "comment"}
_MOST_ARGUMENTS: Final = 32


class Feeds:
    """Works out words, outputs and redirections; `written` takes the files that redirections write to."""

    def __init__(self, source: bytes, variables: Mapping[str, list[str]], written: set[str]) -> None:
        self._source = source
        self._written_to = written
        self.outputs: dict[int, str] = {}
        self.words = Words(source, variables, self._output_of_substitution)

    def argvs(self, node: Node) -> list[Fields]:
        """Return the ways in which a command's words may come out; all words in one where they are too many."""
        words = [self.words.fields(child) for child in node.named_children if child.type not in _NO_WORDS]
        size = 1
        for alternatives in words:
            size *= max(len(alternatives), 1)
            if size > _MOST_ARGUMENTS:
                return [tuple(itertools.chain(*(itertools.chain(*dict.fromkeys(found)) for found in words)))]
        return list(dict.fromkeys(tuple(itertools.chain(*chosen)) for chosen in itertools.product(*words)))

    def declared(self, node: Node) -> Fields:
        """Return the words of `declare`, `export`, `unset` and the like, every alternative of each."""
        found = [child.type for child in node.children if not child.is_named][:1]
        for child in node.named_children:
            if child.type != "variable_assignment":
                found += self.words.texts(child)
                continue
            name, *given = child.named_children
            values = self.words.texts(given[0]) if given else [""]
            found += [f"{text_of(name, self._source)}={value}" for value in values]
        return tuple(found)

    def redirections(self, nodes: Sequence[Node]) -> tuple[Fields, str | None]:
        """Return what redirections lead from and to, and what they feed."""
        targets: list[str] = []
        fed: str | None = None
        for node in nodes:
            words = [child for child in node.named_children if child.type not in {"file_descriptor", "pipeline"}]
            values = [self.words.texts(child) for child in words]
            if node.type == "file_redirect":
                targets += itertools.chain(*values)
                if not any(child.type.startswith("<") for child in node.children):
                    self._written_to |= set(itertools.chain(*values))
                if self._is_from_elsewhere(node):
                    fed = UNKNOWN
            elif node.type == "herestring_redirect":
                fed = values[0][0] if values else UNKNOWN
            else:
                fed = self._document(node)
        return tuple(targets), fed

    def _is_from_elsewhere(self, node: Node) -> bool:
        """Tell whether a redirection reads what another command writes: `< <(curl …)`, `<&3`."""
        reads = any(child.type.startswith("<") for child in node.children)
        joins = any(child.type == "<&" for child in node.children)
        at = [child for child in node.named_children if child.type != "file_descriptor"]
        number = re.fullmatch(r"[3-9]|\d\d+", text_of(at[-1], self._source)) if at else None
        return (reads and any(child.type == "process_substitution" for child in at)) or (joins and number is not None)

    def _document(self, node: Node) -> str:
        start = next((child for child in node.named_children if child.type == "heredoc_start"), None)
        body = next((child for child in node.named_children if child.type == "heredoc_body"), None)
        if start is None or body is None:
            return ""
        literal = any(mark in text_of(start, self._source) for mark in "'\"\\")
        return text_of(body, self._source) if literal else self.words.texts(body)[0]

    def _output_of_substitution(self, node: Node) -> str:
        inner = [child for child in node.named_children if child.type != "comment"]
        return self.output(inner[0], None) if len(inner) == 1 else UNKNOWN

    def output(self, node: Node, fed: str | None) -> str:
        """Return what a command writes, as far as that can be told."""
        if node.id not in self.outputs:
            self.outputs[node.id] = self._written(node, fed)
        return self.outputs[node.id]

    def _written(self, node: Node, fed: str | None) -> str:
        if node.type == "redirected_statement":
            redirects = [child for child in node.named_children if child.type in REDIRECTS]
            _, given = self.redirections(redirects)
            return self._written(node.named_children[0], fed if given is None else given)
        if node.type == "pipeline":
            for stage in node.named_children:
                fed = self.output(stage, fed)
            return fed if fed is not None else UNKNOWN
        if node.type != "command":
            return UNKNOWN
        argvs = self.argvs(node)
        _, given = self.redirections([child for child in node.named_children if child.type in REDIRECTS])
        return written_by(argvs[0], fed if given is None else given) if len(argvs) == 1 and argvs[0] else UNKNOWN

    def listed(self, node: Node, before: Fields) -> Fields:
        """Return the paths that a stage of a pipeline hands on."""
        if node.type == "pipeline":
            for stage in node.named_children:
                before = self.listed(stage, before)
            return before
        if node.type == "redirected_statement" and node.named_children:
            return self.listed(node.named_children[0], before)
        argvs = self.argvs(node) if node.type == "command" else []
        return tuple(dict.fromkeys(path for argv in argvs if argv for path in listed_by(argv, before)))

    def listed_in(self, node: Node) -> Fields:
        """Return the paths that the substitutions among a node's words list: `rm $(find …)`."""
        found = [child for child in node.named_children if child.type == "command_substitution"]
        return tuple(path for child in found for inner in child.named_children for path in self.listed(inner, ()))


def is_output(node: Node, source: bytes) -> bool:
    """Tell whether a node is `>(…)`, whose commands are fed."""
    return node.type == "process_substitution" and source[node.start_byte : node.start_byte + 1] == b">"
