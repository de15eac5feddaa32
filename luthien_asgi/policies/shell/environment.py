"""Variables that are code: what the shell or a common program runs because a variable says so.

Strategy: a table of names says how each one's value is read: as a script, as a prompt, as a program's own options. A value that
names a file which other programs then load cannot be read; it becomes a command that cannot be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from luthien_asgi.policies.shell import wrappers
from luthien_asgi.policies.shell.evaluated import DECLARING, as_documents, as_prompts
from luthien_asgi.policies.shell.words import UNKNOWN, Fields

__all__ = ["assigned_in", "code_in", "in_words", "is_code"]

_SCRIPTS: Final = re.compile(
    r"PROMPT_COMMAND|BASH_ALIASES|BASH_FUNC_.*|GIT_SSH|GIT_SSH_COMMAND|GIT_EXTERNAL_DIFF|GIT_PROXY_COMMAND|GIT_CONFIG_PARAMETERS"
    r"|GIT_CONFIG_VALUE_\d+|LESSOPEN|LESSCLOSE|SVN_SSH|RSYNC_RSH|CVS_RSH|FCEDIT|VISUAL|(?:\w+_|MAN|GIT)?(?:EDITOR|PAGER|BROWSER)"
    r"|\w+_ASKPASS|FZF_\w+_COMMAND|RUSTC(?:_WORKSPACE)?_WRAPPER|CMAKE_\w+_LAUNCHER"
)
_GIVEN_A_FILE: Final = re.compile(r"\w*(?:EDITOR|PAGER|VISUAL)")
_PROMPTS: Final = re.compile(r"PS[0-4]")
_STARTUP: Final = frozenset({"BASH_ENV", "ENV"})
_LOADED: Final = frozenset(
    {"LD_PRELOAD", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "PERL5OPT", "PERL5DB", "PYTHONSTARTUP", "BASH_CMDS"}
)
_OPTIONS: Final = {"NODE_OPTIONS": "node", "RUBYOPT": "ruby"}
_ASSIGNED: Final = re.compile(r"(?:--?[\w-]+=?)?((?:BASH_FUNC_[^=]*|[A-Za-z_]\w*))=(.*)", re.DOTALL)


def is_code(name: str) -> bool:
    """Tell whether a variable of that name is run by something."""
    if not name[:1].isupper():
        return False
    known = name in _STARTUP or name in _LOADED or name in _OPTIONS
    return known or _SCRIPTS.fullmatch(name) is not None or _PROMPTS.fullmatch(name) is not None


def code_in(name: str, value: str) -> Iterator[str]:
    """Yield the scripts that a variable's value is to whoever reads it; nothing where it is empty or no code."""
    if not value.strip():
        return
    if name in _LOADED:
        yield UNKNOWN
    elif name in _STARTUP:
        yield from as_documents(value)
        if name == "BASH_ENV" or "/" in value or UNKNOWN in value:  # `ENV=production` is no file
            yield UNKNOWN
    elif name in _OPTIONS:
        yield f"{_OPTIONS[name]} {value}"
    elif _PROMPTS.fullmatch(name):
        yield from as_prompts(value)
    elif _SCRIPTS.fullmatch(name):
        yield from _scripts(name, value)


def _scripts(name: str, value: str) -> Iterator[str]:
    if name == "GIT_CONFIG_PARAMETERS":
        yield from ((piece.partition("=")[2] or piece).lstrip("!") for piece in value.split("'"))
        return
    if name.startswith("BASH_FUNC_"):
        value = value.partition(")")[2]
    script = value.lstrip("!|-& ") if name.startswith(("LESS", "GIT_CONFIG")) else value
    yield script
    if _GIVEN_A_FILE.fullmatch(name):
        yield f"{script} {UNKNOWN}"


def in_words(argv: Fields) -> Iterator[str]:
    """Yield the scripts in the variables that a command's words set (`env PAGER=… git log`)."""
    for name, value in assigned_in(argv):
        yield from code_in(name, value)


def assigned_in(argv: Fields) -> list[tuple[str, str]]:
    """Return the variables that a command's words set, with their values."""
    if not wrappers.is_wrapper(argv) and wrappers.name_of(argv) not in DECLARING:
        return []
    return [(found[1], found[2]) for word in argv[1:] if (found := _ASSIGNED.fullmatch(word))]
