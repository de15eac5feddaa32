"""What commands list: the paths that `find`, `ls` and the like hand on to `xargs`.

Strategy: a listing is told by where it starts. One that is certain to hold everything below its start ends with `UNKNOWN` alone;
one that was selected from (`-name`, `grep`, `head`) of a relative folder names some things in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from luthien_asgi.policies.shell import wrappers
from luthien_asgi.policies.shell.command import Command
from luthien_asgi.policies.shell.words import UNKNOWN, Fields

__all__ = ["listed_by", "starts_of_find", "with_input"]

_FIND: Final = frozenset({"find", "gfind", "fd", "fdfind"})
_KEEPS: Final = frozenset({"sort", "uniq", "cat", "tee", "tr", "shuf", "tac"})
_SELECTS: Final = frozenset({"grep", "egrep", "fgrep", "head", "tail"})
_TESTS: Final = ("-name", "-iname", "-path", "-regex", "-mtime", "-newer", "-size")
_MOST_WORDS: Final = 200


def starts_of_find(args: Sequence[str]) -> list[str]:
    """Return the folders in which `find` begins."""
    starts = []
    for word in args:
        if word.startswith(("-", "(", "!")) and word not in {"-H", "-L", "-P"}:
            break
        starts.append(word)
    return starts or ["."]


def listed_by(argv: Fields, fed: Fields) -> Fields:
    """Return the paths that a command writes, with `UNKNOWN` for what is below where it starts; none that could be told: `()`."""
    name, args = wrappers.name_of(argv), argv[1:]
    if name in _FIND:
        tested = any(word.startswith(_TESTS) for word in args)
        return tuple(_below(start, selected=tested) for start in starts_of_find(args))
    if name == "ls":
        return tuple(_below(word, selected=False) for word in args if not word.startswith("-")) or (_below(".", selected=False),)
    if name in {"git", "rg", "ag"} and ({"ls-files", "-l", "--files", "--files-with-matches"} & set(args)):
        starts = [word for word in args if word.startswith(("/", "~", ".."))] or ["."]
        return tuple(_below(start, selected=True) for start in starts)
    if name in {"grep", "egrep"} and any(re.fullmatch(r"-\w*[lL]\w*|--files-.*", word) for word in args):
        starts = [word for word in args[1:] if not word.startswith("-")][1:] or ["."]
        return tuple(_below(start, selected=True) for start in starts)
    if name in _KEEPS:
        return fed
    return tuple(_below(path.removesuffix(f"/{UNKNOWN}"), selected=True) for path in fed) if name in _SELECTS else ()


def _below(start: str, *, selected: bool) -> str:
    relative = not start.startswith(("/", "~", "..", UNKNOWN))
    return f"{start.rstrip('/')}/{'some' if selected and relative else ''}{UNKNOWN}"


def with_input(command: Command) -> Command:
    """Return `xargs` and `parallel` with the words that they take from their input."""
    if command.name != "xargs" and not (command.name == "parallel" and command.fed is not None):
        return command
    if not wrappers.wrapped(command.argv):  # a bare `xargs` echoes
        return command
    listed = command.listed
    if command.fed is None or command.fed == UNKNOWN:
        words = listed or (UNKNOWN,)
        listed = words
    else:
        words = tuple(command.fed.split()[:_MOST_WORDS])
    mark = _replaced(command.args)
    argv = tuple(word.replace(mark, " ".join(words[:1])) if mark else word for word in command.argv)
    return replace(command, argv=(*argv, *words), listed=listed)


def _replaced(args: Fields) -> str:
    """Return what stands for a word of the input (`xargs -I{} …`)."""
    for place, word in enumerate(args):
        if word in {"-I", "-J"} and place + 1 < len(args):
            return args[place + 1]
        if found := re.fullmatch(r"(?:-[IJ]|--replace=|-i(?=.))(.+)", word):
            return found[1]
        if word in {"-i", "--replace"}:
            return "{}"
    return ""
