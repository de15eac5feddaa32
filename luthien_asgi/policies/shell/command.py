"""One command as a shell would run it, and what is known of what it writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from luthien_asgi.policies.shell import wrappers
from luthien_asgi.policies.shell.words import UNKNOWN, Fields, decode_escapes

__all__ = ["Command", "written_by"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command as it would be run."""

    argv: Fields
    targets: Fields = ()
    """What its input and output is redirected from and to."""
    written: Fields = ()
    """Those that are written to."""
    fed: str | None = None
    """What it reads from its input: None where nothing is fed to it, `UNKNOWN` where another command writes it."""
    sources: frozenset[str] = frozenset()
    """The commands whose output is among its words."""
    folders: frozenset[str] = frozenset()
    """Where the script goes (`cd`) at one place or another."""
    listed: Fields = ()
    """The paths that it takes from its input one by one, with `UNKNOWN` for what is below where they start."""
    certain: bool = True
    """False for one that only might begin where it was found."""

    @property
    def name(self) -> str:
        """Its name, without a folder."""
        return wrappers.name_of(self.argv)

    @property
    def args(self) -> Fields:
        """Its words after the name."""
        return self.argv[1:]

    @property
    def words(self) -> Fields:
        """Every word, and every redirection's target."""
        return (*self.argv, *self.targets)


def written_by(argv: Fields, fed: str | None) -> str:
    """Return what `echo`, `printf`, `cat` and the like write."""
    name, args = wrappers.name_of(argv), argv[1:]
    if name == "echo":
        while args and re.fullmatch(r"-[neE]+", args[0]):
            args = args[1:]
        return decode_escapes(" ".join(args)) + "\n"
    if name == "printf" and args and "-v" not in args:
        return _formatted(decode_escapes(args[0]), args[1:])
    if name in {"cat", "tee"} and fed is not None and (name == "tee" or not [word for word in args if word != "-"]):
        return fed
    if name in {"which", "type", "whereis"} or (name == "command" and {"-v", "-V"} & set(args)):
        return args[-1] if args else UNKNOWN
    return UNKNOWN


def _formatted(form: str, args: Fields) -> str:
    """Return what `printf` makes of a form with `%s` and `%b`, which is used again while there are words left."""
    parts = re.split(r"%([sb%])", form)
    if any("%" in text for text in parts[::2]):
        return UNKNOWN
    pending, written = list(args), ""
    for _ in range(max(len(args), 1)):
        for place, part in enumerate(parts):
            if not place % 2 or part == "%":
                written += part
            else:
                word = pending.pop(0) if pending else ""
                written += decode_escapes(word)
        if not pending or set(parts[1::2]) <= {"%"}:
            break
    return written
