"""What the words of a script become when a shell expands them: quotes, escapes, variables, braces, substitutions.

Strategy: every node gives its *alternatives*, each a list of pieces; a piece is text and whether the shell would split it at
spaces. What cannot be known (a variable of the environment, a command's output) is `UNKNOWN` in the text, a character that no
script can hold. Where there are too many alternatives to follow, the word is unknown.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from luthien_asgi.policies.shell.parsing import text_of

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["UNKNOWN", "Fields", "Words", "decode_escapes"]

UNKNOWN: Final = "\0"
Piece = tuple[str, bool]
Fields = tuple[str, ...]
_MOST: Final = 24
"""Alternatives of one word that are followed."""
_KNOWN: Final[Mapping[str, str]] = {"HOME": "~", "PWD": ".", "OLDPWD": ".", "SHELL": "sh", "BASH": "bash", "0": "sh"}
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|0?([0-7]{1,3})|c(.)|(.))", re.DOTALL
)
_LETTERS: Final[Mapping[str, str]] = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v",
}  # fmt: skip
_PLAIN: Final = re.compile(rb"[\w./=+:@%^-]+")
_IN_QUOTES: Final = re.compile(r'\\(\n|[$`"\\])')


def decode_escapes(text: str) -> str:
    """Return what `$'…'`, `echo -e` and `printf` make of backslashes."""

    def decoded(found: re.Match[str]) -> str:
        digits = found[1] or found[2] or found[3]
        if digits:
            return _character(int(digits, 16))
        if found[4]:
            return _character(int(found[4], 8) & 0xFF)
        if found[5]:
            return _character(ord(found[5]) & 0x1F)
        return _LETTERS.get(found[6], found[6])

    return _ESCAPE.sub(decoded, text)


def _character(code: int) -> str:
    return chr(code) if 0 < code < 0x110000 else UNKNOWN


class Words:
    """Expands the words of one script."""

    def __init__(self, source: bytes, variables: Mapping[str, Iterable[str]], output_of: Callable[[Node], str]) -> None:
        self._source = source
        self._variables = variables
        self._output_of = output_of

    def fields(self, node: Node) -> list[Fields]:
        """Return the alternatives of what one word becomes: none, one or several words each."""
        if node.type == "word" and (plain := _PLAIN.fullmatch(self._source, node.start_byte, node.end_byte)):
            return [(plain[0].decode(),)]
        found = [self._split(pieces) for pieces in self._pieces(node, quoted=False)]
        raw = text_of(node, self._source)
        if "{" in raw and ("," in raw or ".." in raw):
            found = [tuple(itertools.chain(words, *map(_braces, words))) for words in found]
        return list(dict.fromkeys(found))

    def texts(self, node: Node) -> list[str]:
        """Return the alternatives of a word that is not split: an assigned value, a redirection's target, a document's text."""
        return list(dict.fromkeys("".join(text for text, _ in pieces) for pieces in self._pieces(node, quoted=True)))

    def _split(self, pieces: Sequence[Piece]) -> Fields:
        separators = {value for value in self._variables.get("IFS", ()) if value}
        marked = "".join(self._marked(text, separators) if split else text for text, split in pieces)
        if not any(split for _, split in pieces):
            return (marked,)
        return tuple(word for word in marked.split("\x01") if word)

    @staticmethod
    def _marked(text: str, separators: Iterable[str]) -> str:
        if any(UNKNOWN in separator for separator in separators):
            return UNKNOWN
        every = "".join(separators) + " \t\n"
        return "".join("\x01" if character in every else character for character in text)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _pieces(self, node: Node, *, quoted: bool) -> list[list[Piece]]:
        kind = node.type
        text = text_of(node, self._source)
        if kind == "raw_string":
            return [[(text[1:-1], False)]]
        if kind == "ansi_c_string":
            return [[(decode_escapes(text[2:-1]), False)]]
        if kind == "string":
            return self._parts(node, node.start_byte + 1, node.end_byte - 1, in_quotes=True)
        if kind in {"heredoc_body", "translated_string"}:
            return self._parts(node, node.start_byte + (kind == "translated_string"), node.end_byte, in_quotes=True)
        if kind in {"concatenation", "command_name"}:
            return self._parts(node, node.start_byte, node.end_byte, in_quotes=False, quoted=quoted)
        if kind == "array":
            return self._array(node)
        values = self._values(node)
        if values is None:
            return [[(_unescaped(text), False)]]
        return [[(value, not quoted or "@" in text)] for value in values]

    def _parts(self, node: Node, start: int, end: int, *, in_quotes: bool, quoted: bool = True) -> list[list[Piece]]:
        """Expand what is in a node; what is between its parts is taken as written: not all has a node."""
        parts: list[list[list[Piece]]] = []
        for child in node.named_children:
            if child.type in {"string_content", "heredoc_content", "comment"} or child.start_byte < start:
                continue
            parts += [self._literal(start, child.start_byte, in_quotes), self._pieces(child, quoted=quoted)]
            start = child.end_byte
        return _product([*parts, self._literal(start, end, in_quotes)])

    def _literal(self, start: int, end: int, in_quotes: bool) -> list[list[Piece]]:
        text = self._source[start:end].decode("utf-8", "surrogatepass")
        written = _IN_QUOTES.sub(lambda found: "" if found[1] == "\n" else found[1], text) if in_quotes else _unescaped(text)
        return [[(written, False)]]

    def _array(self, node: Node) -> list[list[Piece]]:
        elements = [self.texts(child) for child in node.named_children]
        joined = " ".join(texts[0] for texts in elements if texts)
        return [[(text, True)] for text in dict.fromkeys([joined, *itertools.chain(*elements)])][:_MOST]

    # --- expansions ---------------------------------------------------------------------------------------------------

    def _values(self, node: Node) -> list[str] | None:
        """Return the values of an expansion, None for what is none."""
        match node.type:
            case "simple_expansion":
                return self._variable(text_of(node, self._source)[1:])
            case "expansion":
                return self._braced(node)
            case "command_substitution":
                return [self._output_of(node).rstrip("\n")]
            case "process_substitution":
                return ["/dev/fd/63"]
            case "arithmetic_expansion":
                return [UNKNOWN]
        return None

    def _variable(self, name: str) -> list[str]:
        if name == "IFS" and name not in self._variables:
            return [" \t\n"]
        values = list(self._variables.get(name, ()))
        if not values:
            return [_KNOWN.get(name, UNKNOWN)]
        return values[:_MOST] + [UNKNOWN] * (len(values) > _MOST)

    def _braced(self, node: Node) -> list[str]:
        """Read `${x}`, `${x[0]}`, `${x:-word}` and the like; what cuts or edits a value makes it unknown."""
        named = [child for child in node.named_children if child.type != "comment"]
        operators = [text_of(child, self._source) for child in node.children if not child.is_named][1:-1]
        if not named or named[0].type not in {"variable_name", "subscript", "special_variable_name"}:
            return [UNKNOWN]
        holder = named[0].named_children[0] if named[0].type == "subscript" and named[0].named_children else named[0]
        values = self._variable(text_of(holder, self._source))
        if not operators:
            return values
        if operators[0] not in {":-", "-", ":=", "=", ":+", "+", ":?", "?"} or len(operators) > 1:
            return [UNKNOWN]
        others = self._product_of(named[1:]) if operators[0] not in {":?", "?"} else []
        return list(dict.fromkeys([*values, *others]))

    def _product_of(self, nodes: Sequence[Node]) -> list[str]:
        found = _product([self._pieces(node, quoted=True) for node in nodes]) if nodes else [[("", False)]]
        return ["".join(text for text, _ in pieces) for pieces in found]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.|\n)", lambda found: "" if found[1] == "\n" else found[1], text, flags=re.DOTALL)


def _product(parts: Sequence[list[list[Piece]]]) -> list[list[Piece]]:
    """Return every way to put the parts' alternatives together; one that is unknown where they are too many."""
    size = 1
    for alternatives in parts:
        size *= len(alternatives)
        if size > _MOST:
            return [[(UNKNOWN, True)]]
    return [list(itertools.chain(*chosen)) for chosen in itertools.product(*parts)]


def _braces(word: str) -> Iterator[str]:
    """Yield what `a{b,c}` and `a{1..3}` become, nested ones too, up to a limit beyond which they are unknown."""
    pending, made = [word], 0
    while pending:
        at = pending.pop()
        found = re.search(r"\{([^{}]*)\}", at)
        if found is None:
            if at != word:
                yield at
            continue
        choices = found[1].split(",") if "," in found[1] else [UNKNOWN] if ".." in found[1] else [found[1]]
        made += len(choices)
        if made > _MOST * 4:
            yield UNKNOWN
            return
        pending += [at[: found.start()] + choice + at[found.end() :] for choice in choices]
