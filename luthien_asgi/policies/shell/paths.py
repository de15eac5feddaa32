"""Paths in commands: which hold the system or all of a person's files, and which hold credentials.

Strategy: paths are compared as they are written, `.` and `..` worked out, with a home folder as `~`. An unknown beginning
(a variable of the environment) is tried as nothing, which is what an unset variable becomes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from luthien_asgi.policies.shell.words import UNKNOWN

__all__ = ["holds_credentials", "is_device", "is_root", "is_system", "normalised_path"]

_SYSTEM: Final = frozenset((
    "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "sbin", "sys", "usr", "var",
    "run", "srv", "system", "library", "applications", "private", "windows", "program files",
))  # fmt: skip
"""Folders of the system, in lower case (macOS does not tell cases apart); what is in them is the system's as well …"""
_SHARED: Final = ("/var/tmp", "/var/folders", "/private/tmp", "/private/var/folders", "/dev/null", "/dev/shm/*")  # noqa: S108
"""… but for these."""
_HOMES: Final = frozenset({"home", "users", "mnt", "media", "volumes", "opt"})
"""Folders whose own children are too much to lose."""
_HOME: Final = re.compile(r"/(?:home|Users)/[^/]+|/root", re.IGNORECASE)
_CREDENTIALS: Final = (
    ".ssh", ".aws", ".gnupg", ".netrc", "_netrc", ".git-credentials", ".npmrc", ".pypirc", ".azure", ".kube", ".pgpass",
    ".my.cnf", ".password-store", ".vault-token", ".boto", ".s3cfg", ".dockercfg", "id_rsa", "id_dsa", "id_ecdsa",
    "id_ed25519", ".bash_history", ".zsh_history", ".python_history", ".psql_history", ".mysql_history", ".sh_history",
    ".node_repl_history", "login.keychain", "login.keychain-db", "kcpassword",
)  # fmt: skip
"""Files and folders of credentials, and of what was typed, wherever they are."""
_CREDENTIAL_PATHS: Final = (
    "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/master.passwd", "/etc/security/opasswd", "/proc/*/environ",
    "/proc/*/mem", "*/.docker/config.json", "*/.config/gcloud*", "*/.config/gh*", "*/.config/op*", "/var/run/secrets*",
    "/run/secrets*", "*/.claude/.credentials*", "*/.codex/auth.json", "*/.terraform.d/credentials*",
    "*/.cargo/credentials*",
)  # fmt: skip
_GLOB: Final = re.compile(r"[*?\[]")


def normalised_path(word: str) -> str:
    """Return a path without `.`, `..` and doubled slashes; a relative one stays relative."""
    path = word.replace("\\", "/")
    path = re.sub(r"^~(?=/|$)|^~root(?=/|$)", "~", re.sub(r"^[A-Za-z]:(?=/|$)", "", path) or "/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] not in {"..", "~"}:
            parts.pop()
        elif part and part != "." and not (part == ".." and path.startswith("/") and not parts):
            parts.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def _forms(word: str) -> Iterator[str]:
    """Yield a path as it is read, and what it is when what is unknown in it is nothing; without what stands for all in it."""
    for text in dict.fromkeys((word, word.replace(UNKNOWN, ""))):
        if text == "" and word:
            continue
        path = normalised_path(text)
        yield path
        while path.rpartition("/")[2] in {"*", ".*", "**", ".[!.]*", "..?*", "?*", "*.*", "[!.]*"}:
            path = path.rpartition("/")[0] or ("/" if path.startswith("/") else "")
            yield path


def is_root(word: str) -> bool:
    """Tell whether a path is all of a machine, of a home or of the working folder, or a folder just below the root."""
    return any(_is_root(path) for path in _forms(word))


def _is_root(path: str) -> bool:
    parts = path.strip("/").split("/")
    if path in {"/", "", "~", "..", "*"} or set(parts) == {".."} or (parts[:1] == ["~"] and len(parts) == 1):
        return True
    if not path.startswith("/"):
        return (parts[0] == "~" and len(parts) == 2 and parts[1] == "..") or (parts[0].startswith("~") and len(parts) == 1)
    first = parts[0].casefold()
    if len(parts) == 1:
        return first != "tmp"
    return first in _HOMES and len(parts) == 2 and first != "opt"


def is_system(word: str) -> bool:
    """Tell whether a path is a part of the system."""
    return any(_is_system(path) for path in _forms(word))


def _is_system(path: str) -> bool:
    if not path.startswith("/") or any(fnmatchcase(path, shared) or path.startswith(f"{shared}/") for shared in _SHARED):
        return False
    first = path.strip("/").split("/")[0].casefold()
    return first in _SYSTEM or bool(_GLOB.search(first) and any(fnmatchcase(name, first) for name in _SYSTEM))


_HARMLESS_DEVICES: Final = re.compile(
    r"/dev/(null|zero|full|u?random|stdin|stdout|stderr|tty\d*|ttys\d*|pts/\d+|fd(/\d+)?|shm(/.*)?|ptmx|console)"
)


def is_device(word: str) -> bool:
    """Tell whether a path is a disk, memory or another device that writing destroys."""
    path = normalised_path(word)
    return path.startswith("/dev/") and not _HARMLESS_DEVICES.fullmatch(path) and not path.startswith(("/dev/tcp/", "/dev/udp/"))


def holds_credentials(word: str) -> bool:
    """Tell whether a word names a file or folder of credentials, also behind an option, `@` or a host (`-F x=@~/.aws/…`)."""
    for piece in re.split(r"[=@,:;|'\"<>()\s]", word.replace(UNKNOWN, "")):
        path = _HOME.sub("~", normalised_path(piece), count=1) if piece else ""
        if not path:
            continue
        if any(_names(part) for part in path.split("/")) or any(fnmatchcase(path, form) for form in _CREDENTIAL_PATHS):
            return True
    return False


def _names(part: str) -> bool:
    if part in _CREDENTIALS:
        return True
    return len(part) > 2 and bool(_GLOB.search(part)) and any(fnmatchcase(name, part) for name in _CREDENTIALS)
