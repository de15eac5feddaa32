"""Which tools are shells, and what the arguments of a call of one would have run.

Strategy: arguments that are known to hold a command are scripts; a few are known to hold none (an explanation, a time limit).
A text under any other name may be a command as well, so it is judged as one that need not be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from luthien_asgi.json_strings import strings_of
from luthien_asgi.policies.shell.parsing import ScriptError
from luthien_asgi.policies.shell.paths import is_root
from luthien_asgi.policies.shell.script import Script, read_argv, read_environment, read_script

__all__ = ["FIELDS", "FOREIGN", "TOOLS", "Given", "holds_text", "scripts_given"]

TOOLS: Final = (
    "bash", "sh", "zsh", "shell", "*terminal*", "*shell_command*", "*run_command*", "*execute_command*", "exec",
    "*exec_command*", "unified_exec", "container.exec", "local_shell", "shell_call", "*execute_bash*", "executebash",
    "*run_bash*", "run_in_terminal", "execute", "*write_stdin*", "write_bash", "monitor", "*create_and_run_task*", "*__shell",
    "*shell_exec*", "*shell_write*", "*start_process*", "*interact_with_process*", "mcp__*shell*", "mcp__*bash*",
    "mcp__*terminal*", "mcp__*exec*", "*run_shell*", "*execute_shell*", "bash_tool", "*powershell*", "*pwsh*", "cmd",
)  # fmt: skip
"""Names of shell tools: of Claude Code, Codex, Gemini CLI, Copilot, Cursor, Cline and of usual MCP servers."""
FOREIGN: Final = ("*powershell*", "*pwsh*", "cmd")
"""Those of them whose scripts are no shell's of the Bourne family."""
FIELDS: Final = (
    "command", "commands", "cmd", "script", "input", "code", "chars", "commandline", "command_line", "shell_command",
)  # fmt: skip
_MORE_WORDS: Final = frozenset({"args", "arguments", "argv"})
_INPUTS: Final = frozenset({"stdin", "input", "standard_input"})
_FOLDERS: Final = frozenset({
    "cwd", "workdir", "working_directory", "workingdirectory", "working_dir", "dir", "directory", "dir_path", "exec_dir", "cd",
})  # fmt: skip
_ENVIRONMENT: Final = frozenset({"env", "environment", "envs", "environment_variables"})
_IDENTIFIERS: Final = frozenset({
    "id", "session_id", "sessionid", "bash_id", "shell_id", "terminal_id", "process_id", "task_id", "call_id",
})  # fmt: skip
_NOTES: Final = _IDENTIFIERS | {
    "description", "explanation", "goal", "reason", "justification", "summary", "title", "label", "thought", "thoughts",
    "rationale", "comment", "purpose", "timeout", "type", "mode",
}  # fmt: skip


class Given(NamedTuple):
    """What one argument would run."""

    script: Script
    sure: bool = True
    """Whether it certainly is a script."""
    named: bool = True
    """Whether its name says that it is one."""


def holds_text(arguments: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Tell whether arguments hold any text but the names of fields and identifiers."""
    if isinstance(arguments, Mapping):
        return any(holds_text(value) for key, value in arguments.items() if key.casefold() not in _IDENTIFIERS)
    if isinstance(arguments, list):
        return any(map(holds_text, arguments))
    return any(text.strip() for text in strings_of(arguments))


def scripts_given(arguments: Any, fields: Collection[str], *, strict: bool) -> Iterator[Given]:  # noqa: ANN401 - JSON
    """Yield what a call's arguments would run. Raises `ScriptError`."""
    if isinstance(arguments, str):
        yield Given(read_script(arguments, strict=strict))
        return
    pending = [arguments]
    while pending:
        at = pending.pop()
        if isinstance(at, list):
            pending += at
        elif isinstance(at, Mapping):
            yield from _Arguments(at, fields, strict=strict).scripts()
            pending += at.values()


class _Arguments:
    """One object of a call's arguments."""

    def __init__(self, values: Mapping[str, Any], fields: Collection[str], *, strict: bool) -> None:
        self._values = [(key.casefold(), value) for key, value in values.items()]
        self._fields = fields
        self._strict = strict
        self._more = [word for key, value in self._values if key in _MORE_WORDS for word in _texts(value)]
        self._folders = [value for key, value in self._values if key in _FOLDERS and isinstance(value, str) and is_root(value)]
        self._fed = next((value for key, value in self._values if key in _INPUTS and isinstance(value, str)), None)

    def scripts(self) -> Iterator[Given]:
        for key, value in self._values:
            if key in self._fields:
                yield from self._command(key, value)
            elif key in _ENVIRONMENT:
                yield Given(read_environment(_variables(value), strict=self._strict), named=False)
            elif key not in _NOTES | _MORE_WORDS | _FOLDERS:
                yield from self._unnamed(value)

    def _command(self, key: str, value: Any) -> Iterator[Given]:  # noqa: ANN401 - any JSON value
        """Yield what one argument would run: a script, or a list of words, which some tools join to one."""
        if isinstance(value, str):
            if self._more:
                yield Given(read_argv([value, *self._more], strict=self._strict))
            yield self._script(value)
        elif isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                msg = "a list of words holds something else than texts"
                raise ScriptError(msg)
            if key == "commands":
                yield from map(self._script, value)
            else:
                yield Given(read_argv(value, strict=self._strict))
                yield Given(read_script(" ".join(value), strict=False, folders=self._folders), sure=False)

    def _script(self, text: str) -> Given:
        return Given(read_script(text, strict=self._strict, fed=self._fed, folders=self._folders))

    @staticmethod
    def _unnamed(value: Any) -> Iterator[Given]:  # noqa: ANN401 - any JSON value
        words = [value] if isinstance(value, str) else _texts(value)
        if len(words) > 1:
            yield Given(read_argv(words, strict=False), sure=False, named=False)
        for word in words:
            yield Given(read_script(word, strict=False), sure=False, named=False)


def _texts(value: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _variables(value: Any) -> Sequence[tuple[str, str]]:  # noqa: ANN401 - any JSON value
    """Return the variables of an object, a list of `NAME=value`, or a text of them."""
    if isinstance(value, Mapping):
        return [(key, item) for key, item in value.items() if isinstance(item, str)]
    lines = value.splitlines() if isinstance(value, str) else _texts(value)
    return [(name, text) for name, _, text in (line.partition("=") for line in lines)]
