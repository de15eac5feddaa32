"""The rules of `GuardShell`, by name: each tells whether a command is what it is about.

Strategy: a rule looks at one command with its words expanded; wrappers, pipelines and scripts within scripts were seen through
before. A rule errs on the side of the machine: what looks like the thing is the thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from luthien_asgi.policies.shell.command import Command
from luthien_asgi.policies.shell.listed import starts_of_find
from luthien_asgi.policies.shell.paths import holds_credentials, is_device, is_root, is_system
from luthien_asgi.policies.shell.words import UNKNOWN
from luthien_asgi.policies.shell.wrappers import INTERPRETERS, SHELLS, runs_input

__all__ = ["FORK_BOMB", "RULES"]

FORK_BOMB: Final = "fork_bomb"


def _options(command: Command) -> tuple[set[str], set[str]]:
    """Return a command's short options, letter by letter, and its long ones, without what they are set to."""
    words = [word.replace(UNKNOWN, "") for word in command.args]
    short = {letter for word in words if re.fullmatch(r"-[A-Za-z0-9]+", word) for letter in word[1:]}
    return short, {word.partition("=")[0] for word in words if word.startswith("--")}


def _operands(command: Command) -> list[str]:
    return [word for word in command.args if not word.startswith("-")]


def _delete(command: Command) -> bool:
    """`rm`, `find -delete` and the like on all of a machine, a home, the working folder, or on the system's files."""
    short, long = _options(command)
    paths = _places(command)
    if command.name in {"rm", "rmdir", "unlink", "shred", "srm", "trash", "del", "rd"}:
        many = bool(short & set("rR")) or any(len(option) > 2 and "--recursive".startswith(option) for option in long)
        if "--no-preserve-root" in long or any(is_system(path) for path in paths):
            return True
        if command.listed and any(UNKNOWN in path for path in paths) and _lists_too_much(command):
            return True
        return many and any(is_root(path) or path.startswith(UNKNOWN) for path in paths)
    if command.name in {"find", "gfind", "fd", "fdfind"}:
        deletes = {"-delete", "rm", "unlink", "shred", "-X", "-x"} & set(command.args)
        starts = starts_of_find(command.args)
        tests = any(word.startswith(("-name", "-iname", "-path", "-regex", "-mtime", "-newer", "-size")) for word in command.args)
        starts += [
            f"{folder}/{start}" for folder in sorted(command.folders) for start in starts if not start.startswith(("/", "~"))
        ]
        return bool(deletes) and any(is_system(path) or (is_root(path) and (path != "." or not tests)) for path in starts)
    if command.name == "rsync":
        return any(option.startswith("--delete") for option in long) and any(map(is_root, paths[-1:]))
    return command.name == "mv" and any(is_root(path) or is_system(path) for path in paths[:-1])


def _places(command: Command) -> list[str]:
    """Return a command's operands, and what a relative one is in the folders that the script goes to."""
    paths = _operands(command)
    relative = [path for path in paths if not path.startswith(("/", "~", UNKNOWN))]
    return paths + [f"{folder}/{path}" for folder in sorted(command.folders) for path in relative[:200]]


def _lists_too_much(command: Command) -> bool:
    """Tell whether what a command takes from its input is unknown, or all that is in a place that matters."""
    starts = [path.removesuffix(f"/{UNKNOWN}") for path in command.listed]
    return any(start.startswith(UNKNOWN) or is_system(start) or is_root(start or "/") for start in starts)


_FORMATTERS: Final = re.compile(
    r"mkfs(\..*)?|mke2fs|mkswap|wipefs|blkdiscard|fdisk|sfdisk|cfdisk|gdisk|sgdisk|parted|zpool|newfs.*|badblocks|hdparm"
    r"|cryptsetup|pvremove|vgremove|lvremove|format"
)


def _disk(command: Command) -> bool:
    """Writing to a disk or another device, making file systems and partitions."""
    if _FORMATTERS.fullmatch(command.name):
        return not {"-l", "--list", "-V", "--version"} & set(command.args)
    if command.name == "diskutil":
        return any(word.casefold().startswith(("erase", "partition", "zero", "reformat", "secureerase")) for word in command.args)
    if command.name in {"dd", "dcfldd"}:
        return any(word.startswith("of=") and is_device(word[3:]) for word in command.args)
    if command.name in {"cp", "mv", "tee", "shred", "install", "truncate", "cat", "pv", "sponge", "ddrescue"} and any(
        is_device(word) for word in command.args
    ):
        return True
    return any(is_device(word) for word in command.targets)


def _permissions(command: Command) -> bool:
    """Changing owner or rights of a whole tree that matters, or giving programs the rights of root."""
    short, long = _options(command)
    paths = _operands(command)
    many = "R" in short or "--recursive" in long
    if command.name in {"chmod", "chown", "chgrp", "setfacl", "chattr", "chflags"}:
        if many and any(is_root(path) or is_system(path) for path in paths[command.name != "setfacl" :]):
            return True
        return command.name == "chmod" and any(re.search(r"^[ugoa]*[+=]\w*s|^[2467][0-7]{3}$", word) for word in command.args)
    return command.name == "setcap"


_FETCHERS: Final = frozenset(
    ("curl", "wget", "fetch", "aria2c", "http", "https", "xh", "lynx", "ftp", "nc", "ncat", "socat", "scp")
)
_DECODERS: Final = frozenset(
    ("base64", "base32", "xxd", "uudecode", "openssl", "gunzip", "zcat", "gzip", "rev", "tr", "hex", "od")
)


def _piped_script(command: Command) -> bool:
    """A shell or an interpreter that runs what another command wrote: `curl … | sh`, `sh <(…)`, `eval "$(base64 -d …)"`."""
    shell = command.name in SHELLS
    if shell or command.name in INTERPRETERS:
        reads = not [word for word in _operands(command) if word not in {"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}]
        reads = reads or any(re.fullmatch(r"-[A-Za-z]*s[A-Za-z]*", word) for word in command.args if shell)
        given = any(re.fullmatch(r"-[A-Za-z]*[cem][A-Za-z]*|--(eval|print|command).*", word) for word in command.args)
        if command.fed == UNKNOWN and reads and not given:
            return True
    if command.name in {"at", "batch", ".", "source"} and runs_input(command.argv):
        return command.fed == UNKNOWN or (command.fed is None and command.name in {".", "source"})
    runs = shell or command.name in {*INTERPRETERS, "eval", "source", ".", "env", "ssh", "trap"}
    return runs and ("/dev/fd/63" in command.args or bool(command.sources & (_FETCHERS | _DECODERS)))


def _reverse_shell(command: Command) -> bool:
    """A shell at the other end of a connection: `/dev/tcp/…`, `nc -e`, `socat … exec:`."""
    if any("/dev/tcp/" in word or "/dev/udp/" in word for word in command.words):
        return True
    if command.name in {"nc", "ncat", "netcat", "nc.traditional", "nc.openbsd"}:
        short, long = _options(command)
        return bool(short & set("ec")) or bool(long & {"--exec", "--sh-exec", "--lua-exec"})
    return command.name == "socat" and any(re.search(r"(?i)\b(exec|system|shell):", word) for word in command.args)


def _credentials(command: Command) -> bool:
    """Keys, tokens, password files and what was typed before: named in any word, read from or written to."""
    if command.name == "history":
        return True
    if command.name == "security":
        return any(word.startswith(("find-", "dump-", "export")) for word in command.args)
    return any(map(holds_credentials, command.words))


def _privileges(command: Command) -> bool:
    """Commands as another user."""
    return command.name in {"sudo", "su", "doas", "pkexec", "runuser", "sudoedit", "visudo", "gsudo", "runas", "newgrp", "sg"}


_POWER: Final = frozenset(("shutdown", "reboot", "halt", "poweroff", "telinit", "kexec"))
_ACCOUNTS: Final = frozenset(("useradd", "userdel", "usermod", "adduser", "deluser", "passwd", "chpasswd", "groupmod", "vipw"))
_MODULES: Final = frozenset(("insmod", "rmmod", "modprobe", "killall5", "mkinitcpio", "grub-install", "efibootmgr", "nvram"))


def _changed(command: Command) -> list[str]:
    """Return the files that a command writes to because it is asked to."""
    paths = _operands(command)
    match command.name:
        case "tee" | "truncate" | "sponge":
            return paths
        case "cp" | "mv" | "install" | "ln" | "rsync" | "scp":
            targets = [word.partition("=")[2] for word in command.args if word.startswith("--target-directory=")]
            return paths[-1:] + targets + (paths if "-t" in command.args else [])
        case "sed" | "gsed" | "perl":
            return paths if any(word.startswith(("-i", "--in-place")) for word in command.args) else []
        case "dd":
            return [word[3:] for word in command.args if word.startswith("of=")]
    return []


def _is_system_file(path: str) -> bool:
    return is_system(path) and not path.startswith("/dev/")


def _system(command: Command) -> bool:
    """Ending or changing the machine's work: shutdown, accounts, modules, every process, timed jobs, the system's files."""
    args = set(command.args)
    if any(map(_is_system_file, (*command.written, *_changed(command)))):
        return True
    match command.name:
        case "init":
            return bool(args & {"0", "1", "6", "s", "S"})
        case "systemctl" | "loginctl":
            return bool(args & {"poweroff", "reboot", "halt", "kexec", "isolate", "rescue", "emergency", "mask", "suspend"})
        case "kill" | "pkill":
            return bool({"-1", "1", "--"} & set(command.args[1:])) or command.args[-1:] == ("-1",) or "-u" in args
        case "crontab":
            return bool(args & {"-r", "-"}) or any(not word.startswith("-") for word in command.args)
        case "iptables" | "ip6tables" | "nft" | "ufw":
            return bool(args & {"-F", "--flush", "flush", "disable", "reset"})
        case "sysctl":
            return "-w" in args or any("=" in word for word in command.args)
    return command.name in _POWER | _ACCOUNTS | _MODULES


def _force_push(command: Command) -> bool:
    """`git push` that overwrites or deletes what others have."""
    if command.name != "git" or "push" not in command.args:
        return False
    after = command.args[command.args.index("push") + 1 :]
    letters = {letter for word in after if re.fullmatch(r"-[A-Za-z]+", word) for letter in word[1:]}
    forced = any(word.startswith(("--force", "--mirror", "--delete", "--prune", "+", ":")) for word in after)
    return forced or bool(letters & {"f", "d"})


_PUBLISHING: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("npm", "yarn", "pnpm", "bun", "lerna"), frozenset({"publish", "unpublish", "deprecate", "dist-tag"})),
    **dict.fromkeys(("poetry", "hatch", "flit", "uv", "pdm", "cargo", "dart", "flutter", "jsr"), frozenset({"publish", "yank"})),
    "twine": frozenset({"upload"}),
    "gem": frozenset({"push", "yank"}),
    **dict.fromkeys(("docker", "podman", "helm", "nuget", "buildah", "vagrant"), frozenset({"push"})),
    "dotnet": frozenset({"push"}),
    "gh": frozenset({"release"}),
    **dict.fromkeys(("mvn", "mvnw"), frozenset({"deploy", "release:perform"})),
    **dict.fromkeys(("gradle", "gradlew"), frozenset({"publish", "publishPlugins", "uploadArchives"})),
    "goreleaser": frozenset({"release"}),
    "setup.py": frozenset({"upload"}),
    "vsce": frozenset({"publish"}),
}


def _publish(command: Command) -> bool:
    """Publishing packages, images and releases."""
    if command.name in INTERPRETERS:
        return ("twine" in command.args and "upload" in command.args) or {"setup.py", "upload"} <= set(command.args)
    return bool(_PUBLISHING.get(command.name, frozenset()) & set(command.args))


_INLINE: Final = re.compile(
    r"-[A-Za-z]*[ceEr][A-Za-z]*|--(eval|print|command|run|exec).*|-p|-[pn]e|eval|-EncodedCommand", re.IGNORECASE
)


_SED_RUNS: Final = re.compile(r"(?:^|[;{}\n])[^;{}\n]*?s([^\w\s;{}]).*\1[a-zA-Z0-9]*e[a-zA-Z0-9]*\s*(?:[;}\n]|$)")
_LONGEST_PROGRAM: Final = 2000
"""Characters of a program of an editor or of awk that is looked into; a longer one is denied."""


def _interpreter(command: Command) -> bool:
    """Programs in another language, given in the command (`python -c`, `perl -e`, `awk 'BEGIN{system(…)}'`) or fed to it."""
    if command.name in {"powershell", "pwsh", "cmd", "wscript", "cscript", "mshta", "wsl"}:
        return True
    if command.name in {"awk", "gawk", "mawk", "nawk", "sed", "gsed", "vim", "vi", "nvim", "ex", "ed", "emacs", "gdb"}:
        if any(len(word) > _LONGEST_PROGRAM for word in command.args):
            return True
        if command.name in {"sed", "gsed"} and any(_SED_RUNS.search(word) for word in command.args):
            return True
        return any(re.search(r"system\s*\(|\|\s*getline|\|\s*\"|\|&|(^|[;\d])\s*e\s|:?!|shell", word) for word in command.args)
    if command.name not in INTERPRETERS:
        return False
    operands = [word for word in _operands(command) if word != "-"]
    return any(_INLINE.fullmatch(word) for word in command.args) or (command.fed is not None and not operands)


RULES: Final[Mapping[str, Callable[[Command], bool]]] = {
    "delete": _delete,
    "disk": _disk,
    FORK_BOMB: lambda command: False,  # noqa: ARG005 - it is a matter of the whole script
    "permissions": _permissions,
    "piped_script": _piped_script,
    "reverse_shell": _reverse_shell,
    "credentials": _credentials,
    "privileges": _privileges,
    "system": _system,
    "force_push": _force_push,
    "publish": _publish,
    "interpreter": _interpreter,
}
