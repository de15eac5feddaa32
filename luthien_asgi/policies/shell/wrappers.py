"""Commands that run other commands, and commands that run scripts: what is inside them.

Strategy: a table of wrappers says where the command in their arguments begins. It cannot know every option of every version, so
beside the command that it finds (`wrapped`), every later place at which one could begin is a possible one (`possible`): a rule
that finds something there is right often enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from luthien_asgi.policies.shell.words import UNKNOWN, Fields

__all__ = [
    "INTERPRETERS",
    "SHELLS",
    "folders_of",
    "is_wrapper",
    "name_of",
    "possible",
    "renamed_by",
    "runs_input",
    "scripts",
    "wrapped",
]

SHELLS: Final = frozenset(("sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "rbash", "fish", "csh", "tcsh", "posh", "yash"))
INTERPRETERS: Final = frozenset((
    "python", "pypy", "perl", "ruby", "node", "nodejs", "deno", "bun", "php", "lua", "luajit", "tclsh", "rscript",
    "osascript", "expect",
))  # fmt: skip
_WRAPPERS: Final[Mapping[str, tuple[str, int]]] = {
    "sudo": ("ugpCcRrtThDU", 0), "doas": ("uC", 0), "pkexec": ("", 0), "runuser": ("ugG", 0), "env": ("uCS", 0),
    "nohup": ("", 0), "timeout": ("ks", 1), "gtimeout": ("ks", 1), "nice": ("n", 0), "ionice": ("cnp", 0), "time": ("fo", 0),
    "stdbuf": ("ioe", 0), "setsid": ("", 0), "exec": ("a", 0), "command": ("", 0), "builtin": ("", 0),
    "xargs": ("adEeIiLlnPs", 0), "parallel": ("jIaNn", 0), "watch": ("n", 0), "strace": ("eopsuEaPbIOSX", 0),
    "ltrace": ("eopsuan", 0), "chroot": ("", 1), "flock": ("wE", 1), "caffeinate": ("tw", 0), "chrt": ("TPD", 1),
    "taskset": ("", 1), "unshare": ("", 0), "nsenter": ("t", 0), "busybox": ("", 0), "toybox": ("", 0), "coproc": ("", 0),
    "noglob": ("", 0), "nocorrect": ("", 0), "unbuffer": ("", 0), "systemd-run": ("pEtu", 0), "proxychains": ("f", 0),
    "proxychains4": ("f", 0), "firejail": ("", 0), "bwrap": ("", 0), "fakeroot": ("", 0), "chronic": ("", 0), "torsocks": ("", 0),
    "dbus-run-session": ("", 0), "xvfb-run": ("nesfp", 0), "setarch": ("", 1), "linux64": ("", 0), "prlimit": ("", 0),
    "eatmydata": ("", 0), "direnv": ("", 2), "catchsegv": ("", 0), "!": ("", 0), "-": ("", 0), "then": ("", 0), "do": ("", 0),
}  # fmt: skip
"""Of each wrapper the short options that take a value, and how many words of its own stand before the command."""
_STARTERS: Final = frozenset((
    "tmux", "screen", "script", "dtach", "abduco", "zellij", "byobu", "setpriv", "capsh", "gosu", "su-exec",
    "start-stop-daemon", "daemon", "daemonize", "chpst", "setuidgid", "s6-setuidgid", "envdir", "softlimit", "tini",
    "dumb-init", "catatonit", "valgrind", "perf", "rr", "gdb", "lldb", "heaptrack", "faketime", "hyperfine", "entr",
    "nodemon", "watchexec", "cpulimit", "systemd-inhibit", "flatpak-spawn", "arch", "linux32", "i386", "x86_64", "numactl",
    "cgexec", "trickle", "tsocks", "ssh-agent", "dbus-launch", "xterm", "rlwrap", "uv", "uvx", "pipx", "poetry", "pipenv",
    "hatch", "pdm", "rye", "conda", "mamba", "bundle", "mise", "asdf", "npx", "pnpx", "bunx", "dotenv", "dotenvx", "op",
    "doppler", "aws-vault", "nix", "qemu-x86_64", "proot", "runcon", "logsave", "ts-node", "machinectl",
    "gnome-terminal", "konsole", "alacritty", "kitty", "foot",
))  # fmt: skip
"""Commands that start others somewhere behind words of their own, which are too many to know."""
_LOADERS: Final = re.compile(r"ld(-[\w.-]*)?\.so[.\d]*|ld64\.so[.\d]*|ld\.elf_so|rtld")
"""The dynamic loader, which runs the program that it is given."""
_STANDARD_INPUT: Final = re.compile(r"/dev/stdin|(/dev|/proc/[\w-]+)/fd/\d+|-")
_LONG_WITH_VALUE: Final = frozenset((
    "user", "group", "host", "prompt", "chdir", "unset", "signal", "kill-after", "adjustment", "max-args",
    "max-procs", "max-lines", "max-chars", "replace", "delimiter", "arg-file", "interval", "class", "classdata",
    "role", "type", "other-user", "close-from", "output", "format", "input", "error", "wait", "timeout",
    "library-path", "preload", "argv0", "audit", "glibc-hwcaps-prepend", "glibc-hwcaps-mask",
))  # fmt: skip
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=")
_MOST: Final = 100
"""Places at which a command could begin that are looked at."""
_RUN: Final = re.compile(r"-[A-Za-z]*c[A-Za-z]*")
_EXECUTED: Final = frozenset({"-exec", "-execdir", "-ok", "-okdir"})


def name_of(argv: Sequence[str]) -> str:
    """Return a command's name: without its folder, in lower case (some file systems do not tell cases apart), without `.exe`.

    What is unknown in it counts as nothing: a variable that is not set.
    """
    name = argv[0].replace(UNKNOWN, "").rsplit("/", 1)[-1].rsplit("\\", 1)[-1].casefold() if argv else ""
    name = name.removesuffix(".exe")
    versioned = re.fullmatch(r"(python|perl|ruby|php|lua|node)[\d.]+w?", name)
    return versioned[1] if versioned else name


def is_wrapper(argv: Fields) -> bool:
    """Tell whether a command runs another one that its arguments hold."""
    name = name_of(argv)
    return name in _WRAPPERS or name in _STARTERS or _LOADERS.fullmatch(name) is not None


def runs_input(argv: Fields) -> bool:
    """Tell whether a command runs its input as a script: shells, `at`, `. /dev/stdin`."""
    name = name_of(argv)
    if name in {".", "source"}:
        return any(_STANDARD_INPUT.fullmatch(word) for word in argv[1:3] if word != "--")
    return name in SHELLS or name in {"at", "batch"}


def renamed_by(argv: Fields) -> Iterator[tuple[str, str]]:
    """Yield the names that `alias` and `hash -p` give to something else, each with what it then stands for."""
    name, rest = name_of(argv), argv[1:]
    if name == "alias":
        parted = (word.partition("=") for word in rest)
        yield from ((one, text) for one, sign, text in parted if sign and text.strip())
    if name == "hash":
        place = next((at for at, word in enumerate(rest) if word.startswith("-") and word.endswith("p")), None)
        if place is not None:
            yield from ((word, rest[place + 1]) for word in rest[place + 2 :])


def folders_of(argv: Fields) -> set[str]:
    """Return where a command goes."""
    return {word for word in argv[1:] if not word.startswith("-")} if name_of(argv) in {"cd", "pushd", "chdir"} else set()


def wrapped(argv: Fields) -> Fields | None:
    """Return the command that a wrapper's arguments hold, or None where this is no wrapper."""
    found = ("", 0) if _LOADERS.fullmatch(name_of(argv)) else _WRAPPERS.get(name_of(argv))
    if found is None:
        return None
    with_value, own = found
    rest = list(argv[1:])
    while rest and (rest[0].startswith("-") or _ASSIGNMENT.match(rest[0])):
        word = rest.pop(0)
        if word == "--":
            break
        takes = word[2:] in _LONG_WITH_VALUE if word.startswith("--") else len(word) > 1 and word[-1] in with_value
        if takes and rest and not _ASSIGNMENT.match(word):
            rest.pop(0)
    while rest and _ASSIGNMENT.match(rest[0]):
        rest.pop(0)
    return tuple(rest[own:])


def possible(argv: Fields) -> Iterator[Fields]:
    """Yield every command that could begin within a wrapper's arguments, and those that `find` and the like execute."""
    starts = [place for place, word in enumerate(argv) if place and word in _EXECUTED]
    yield from (argv[place + 1 :] for place in starts[:_MOST])
    if argv and not argv[0].strip(UNKNOWN):
        yield argv[1:]
    if is_wrapper(argv):
        places = [place for place, word in enumerate(argv) if place and not word.startswith("-")]
        yield from (argv[place:] for place in places[:_MOST])


# --- scripts ---------------------------------------------------------------------------------------------------------------


_TAKE_SCRIPTS: Final = frozenset((
    "su", "script", "flock", "nix-shell", "runuser", "sg", "newgrp", "tmux", "screen", "at", "batch", "hyperfine", "watchexec",
    "nodemon", "entr", "xterm", "konsole", "gnome-terminal",
))  # fmt: skip


def scripts(argv: Fields) -> Iterator[tuple[str, Fields]]:
    """Yield the scripts that a command's arguments hold, each with its positional parameters."""
    name, rest = name_of(argv), argv[1:]
    if name in {"eval", "watch", "parallel"}:
        yield " ".join(rest), ()
    elif name == "ssh":
        # An option may take a value, so the host is one of the first words that are none.
        words = [place for place, word in enumerate(rest) if not word.startswith("-")]
        yield from ((" ".join(rest[place + 1 :]), ()) for place in words[:3])
    elif name == "trap":
        yield from ((word, ()) for word in rest[:2] if not word.startswith("-"))
    elif name == "alias":
        yield from ((word.partition("=")[2], ()) for word in rest if "=" in word)
    elif name == "env":
        yield from _split_strings(rest)
    elif name in _TAKE_SCRIPTS:
        # What is unknown behind an option is its value: `tmux attach -t $NAME`.
        yield from (
            (word, ())
            for before, word in zip(("", *rest), rest, strict=False)
            if not word.startswith("-") and not (word == UNKNOWN and before.startswith("-"))
        )
        yield from ((word.partition("=")[2], ()) for word in rest if word.startswith("--") and "=" in word)
    yield from ((word.rpartition("exec=")[2], ()) for word in rest if name in {"tar", "gtar", "bsdtar"} and "exec=" in word)
    if name in {"git", "ssh", "scp", "sftp", "rsync", "tar", "gtar", "bsdtar"}:
        # Settings that are commands: aliases, pagers, proxies, compressors.
        yield from ((word.partition("=")[2].lstrip("!"), ()) for word in rest if re.match(r"[\w.-]+=.*\s", word, re.DOTALL))
    yield from _given_to_builtins(name, rest)
    yield from _escapes(name, rest)
    yield from _given_to_shells(argv)


_CALLBACKS: Final[Mapping[str, str]] = {"compgen": "CFW", "complete": "CFW", "mapfile": "C", "readarray": "C"}


def _given_to_builtins(name: str, rest: Fields) -> Iterator[tuple[str, Fields]]:
    """Yield what builtins of the shell run later, or in completions; what they load or repeat cannot be told."""
    for place, word in enumerate(rest):
        found = re.fullmatch(rf"-\w*?([{_CALLBACKS[name]}])(.*)", word, re.DOTALL) if name in _CALLBACKS else None
        text = (found[2] or "".join(rest[place + 1 : place + 2])) if found else ""
        if found and found[1] == "W":
            yield f": <<WORDS_OF_COMPLETION\n{text}\nWORDS_OF_COMPLETION\n", ()
        elif text:
            yield text, ()
    if name == "bind":
        yield from ((word.partition(":")[2].strip().strip("'\""), ()) for word in rest if ":" in word)
    loads = name == "enable" and any(re.fullmatch(r"-\w*f\w*", word) for word in rest)
    if loads or (name == "fc" and not any(re.fullmatch(r"-\w*l\w*", word) for word in rest)):
        yield UNKNOWN, ()


_ESCAPES: Final[Mapping[str, str]] = {
    "sqlite3": r"\.(?:shell|system)\s+(.*)", "psql": r"\\!\s*(.*)", "mysql": r"(?:\\!|system)\s+(.*)", "less": r"\+!(.*)",
    "more": r"\+!(.*)", "ftp": r"!(.*)",
}  # fmt: skip


def _escapes(name: str, rest: Fields) -> Iterator[tuple[str, Fields]]:
    """Yield the scripts that programs with commands of their own are told to run, and the pagers of `man`."""
    if name in _ESCAPES:
        yield from ((found[1], ()) for word in rest if (found := re.search(_ESCAPES[name], word)))
    if name == "man":
        for place, word in enumerate(rest):
            if found := re.fullmatch(r"(?:-P|--pager=?|-H|--html=?)(.*)", word, re.DOTALL):
                yield found[1] or "".join(rest[place + 1 : place + 2]), ()
    if name in {"make", "gmake"}:
        yield from ((word.partition("=")[2].replace("$(shell ", "$("), ()) for word in rest if word.startswith("--eval="))
    typed = next((place for place, word in enumerate(rest) if word in {"send", "send-keys"}), None) if name == "tmux" else None
    if typed is not None:
        keys = {"space": "", "enter": ";", "c-m": ";"}
        words = rest[typed + (3 if rest[typed + 1 : typed + 2] == ("-t",) else 1) :]
        yield " ".join(keys.get(word.casefold(), word) for word in words), ()


def _split_strings(words: Fields) -> Iterator[tuple[str, Fields]]:
    for place, word in enumerate(words):
        if word in {"-S", "--split-string"} and place + 1 < len(words):
            yield words[place + 1], ()
        elif word.startswith(("-S", "--split-string=", "-vS", "-iS")):
            yield word.partition("S")[2] if "=" not in word[:15] else word.partition("=")[2], ()


def _given_to_shells(argv: Fields) -> Iterator[tuple[str, Fields]]:
    """Yield what follows `-c` of a shell, wherever in a command's words the shell stands (`docker exec … sh -c …`)."""
    places = [place for place, word in enumerate(argv) if name_of((word,)) in SHELLS or name_of((word,)) == "capsh"]
    for place in places[:_MOST]:
        words = argv[place + 1 :]
        run = next((at for at, word in enumerate(words) if _RUN.fullmatch(word)), None)
        if run is None:
            continue
        operands = [at for at in range(run + 1, len(words)) if not words[at].startswith(("-", "+"))]
        # An option between may take a value (`-o pipefail`), so the script is one of the first.
        yield from ((words[at], words[at + 1 :]) for at in operands[:3])
