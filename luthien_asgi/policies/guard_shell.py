"""A policy that keeps dangerous commands from shell tools: it parses what would be run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import PolicyContext, StreamContext
from luthien_asgi.names import shown_name
from luthien_asgi.policies.checks import checked_choice, checked_message, checked_names, first_match
from luthien_asgi.policies.server_tools import MODES, ServerTool, judge_server_tools
from luthien_asgi.policies.shell.command import Command
from luthien_asgi.policies.shell.parsing import ScriptError, require_parser
from luthien_asgi.policies.shell.rules import FORK_BOMB, RULES
from luthien_asgi.policies.shell.script import Script, read_argv, read_script
from luthien_asgi.policies.shell.words import UNKNOWN
from luthien_asgi.policies.tool_arguments import ArgumentsError, read_arguments, strings_of
from luthien_asgi.policy import Allow, Deny, Handling, Hold, Policy, blocking
from luthien_asgi.request import ChatRequest

__all__ = ["GuardShell"]

_MESSAGE: Final = "The command was denied by a policy ({rule})."
_TOOLS: Final = (
    "bash", "sh", "zsh", "shell", "*terminal*", "*shell_command*", "*run_command*", "*execute_command*", "exec",
    "exec_command", "container.exec", "local_shell", "shell_call", "*execute_bash*", "*run_bash*",
    "run_in_terminal", "execute", "write_stdin", "mcp__*shell*", "mcp__*bash*", "mcp__*terminal*", "mcp__*exec*",
    "*run_shell*", "*execute_shell*", "bash_tool",
)  # fmt: skip
_FIELDS: Final = ("command", "commands", "cmd", "script", "input", "code", "chars")
_MORE_WORDS: Final = frozenset({"args", "arguments", "argv"})
_HARMLESS: Final = re.compile(
    r"(web_search|web_fetch|file_search|image_generation|tool_search|search_parameters|web_search_options).*"
)


class GuardShell(Policy):
    """Deny calls of shell tools that would run something dangerous. Needs `pip install 'luthien-asgi[shell]'`.

    The command is parsed as bash and its words are expanded: quotes and escapes (`r\\m`), variables that the script assigns,
    braces, `$IFS`, paths (`/bin/rm`). Pipelines, subshells, functions, aliases and substitutions are looked into, and so are
    `sh -c`, `eval`, documents and pipes for a shell, `find -exec`, and wrappers (`sudo`, `env`, `xargs`, `timeout`, …).

    - `rules`: which of these apply; all, when it is left out. `delete` (the root, a home, the working folder, the system's
      files), `disk` (writing to devices, making file systems), `fork_bomb`, `permissions` (`chmod -R` of what matters, setuid),
      `piped_script` (`curl … | sh`, `eval "$(…)"`), `reverse_shell`, `credentials` (files of keys and tokens, shell histories),
      `privileges` (`sudo` and the like), `system` (shutdown, accounts, crontab, writing the system's files), `force_push`,
      `publish` (packages, images, releases), `interpreter` (`python -c`, `perl -e` and other languages' programs within a
      command: what is in them is not read, so they are denied; leave the rule out to let them be).
    - `deny`: names of commands that may not be run. `allow_only`: those that may, when all others may not. With `*`, `?`, `[…]`.
    - `unresolved`: `deny` (the default) what cannot be told: a script that does not parse, a command whose name comes from an
      unknown variable, a recursive deletion that begins with one; `allow` judges what is there.
    - `tools` and `fields`: names of shell tools and of their arguments with a command, upper and lower case alike. A list is
      taken as a command's words (`["bash", "-lc", "…"]`), and `commands` as a list of scripts.
    - `server_tools`: `refuse` (the default), `strip` or `pass` requests that declare a tool which runs at the provider and may
      run programs there (code execution, a hosted shell, MCP servers that may hold a shell tool, what is not known): no such
      call is seen before it ran. What only searches or draws is let be.
    - `message` is what the client sees in place of the call; `{rule}` in it becomes the rule's name.

    What it cannot see: programs in files (`./build.sh`, `make`), a command under another name (`cp /bin/rm x`), the effect of
    earlier calls (a variable, an alias or folder of a shell that lives on), languages that are no shell of the Bourne family:
    PowerShell and cmd are denied as `interpreter` where bash runs them, and are not parsed. It keeps accidents and known
    attacks out; what may never happen has to be out of the tool's reach.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Allow, Deny)

    def __init__(
        self,
        *,
        rules: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        allow_only: Sequence[str] | None = None,
        unresolved: str = "deny",
        tools: Sequence[str] = _TOOLS,
        fields: Sequence[str] = _FIELDS,
        server_tools: str = "refuse",
        message: str = _MESSAGE,
    ) -> None:
        require_parser()
        self.rules = _checked_rules(rules)
        self.deny = checked_names(deny, "deny", "names of commands")
        self.allow_only = checked_names(allow_only, "allow_only", "names of commands") if allow_only is not None else None
        self.unresolved = checked_choice(unresolved, "unresolved", ("deny", "allow"))
        self.tools = tuple(name.casefold() for name in checked_names(tools, "tools"))
        self.fields = frozenset(name.casefold() for name in checked_names(fields, "fields", "names of arguments"))
        self.server_tools = checked_choice(server_tools, "server_tools", MODES)
        self.message = checked_message(message)

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest | Deny | None:
        """Refuse or leave out declared tools that run programs at the provider."""
        del ctx
        return judge_server_tools(request, self.server_tools, self._objection_to_server_tool)

    @blocking
    def on_block_complete(self, block: Block, ctx: StreamContext) -> Deny | None:
        """Deny the call if what it would run is against a rule."""
        del ctx
        if first_match([block.name.casefold()], self.tools) is None:
            return None
        rule, reason = self._objection(block)
        return Deny(self.message.replace("{rule}", rule), reason=reason) if rule else None

    def _objection(self, block: Block) -> tuple[str, str]:
        """Return the name of the rule that is broken and the reason for the record, or nothing twice."""
        try:
            arguments = read_arguments(block)
            scripts = [*self._scripts(arguments)]
        except (ArgumentsError, ScriptError) as error:
            return "unresolved", str(error)
        if not scripts and any(text.strip() for text in _values(arguments)):
            return "unresolved", "no argument is known to hold the command"
        return next((found for script, sure in scripts if (found := self._judged(script, sure))[0]), ("", ""))

    def _scripts(self, arguments: Any) -> Iterator[tuple[Script, bool]]:  # noqa: ANN401 - any JSON value
        """Yield what the arguments would run, each with whether it certainly is a script."""
        if isinstance(arguments, str):
            yield self._read(arguments), True
            return
        pending = [arguments]
        while pending:
            at = pending.pop()
            if isinstance(at, list):
                pending += at
            elif isinstance(at, Mapping):
                more = [word for key, value in at.items() if key.casefold() in _MORE_WORDS for word in _texts(value)]
                for key, value in at.items():
                    if key.casefold() in self.fields and not isinstance(value, Mapping):
                        yield from self._given(key.casefold(), value, more)
                pending += at.values()

    def _given(self, field: str, value: Any, more: Sequence[str]) -> Iterator[tuple[Script, bool]]:  # noqa: ANN401 - JSON
        """Yield what one argument would run: a script, or a list of words, which some tools join to one."""
        if isinstance(value, str):
            if more:
                yield read_argv([value, *more], strict=self._strict), True
            yield self._read(value), True
        elif isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                msg = "a list of words holds something else than texts"
                raise ScriptError(msg)
            if field == "commands":
                yield from ((self._read(item), True) for item in value)
            else:
                yield read_argv(value, strict=self._strict), True
                yield read_script(" ".join(value), strict=False), False

    def _read(self, text: str) -> Script:
        return read_script(text, strict=self._strict)

    @property
    def _strict(self) -> bool:
        return self.unresolved == "deny"

    def _judged(self, script: Script, sure: bool) -> tuple[str, str]:
        if FORK_BOMB in self.rules and script.bombs:
            return FORK_BOMB, "a function runs itself several times at once"
        for command in script.commands:
            for rule in self.rules:
                if RULES[rule](command):
                    return rule, f"a command is against the rule {rule!r}: {shown_name(command.name)}"
            if (pattern := first_match([command.name], self.deny)) is not None:
                return "deny", f"a command's name matches {pattern!r}"
        if not sure:
            return "", ""
        return self._unsure(script) or self._not_allowed(script) or ("", "")

    def _unsure(self, script: Script) -> tuple[str, str] | None:
        if self.unresolved == "allow":
            return None
        if any(_is_unknown(command) for command in script.commands):
            return "unresolved", "the name of a command cannot be told"
        return None

    def _not_allowed(self, script: Script) -> tuple[str, str] | None:
        if self.allow_only is None:
            return None
        allowed = (*self.allow_only, *map(str.casefold, script.functions))
        others = (
            command.name
            for command in script.commands
            if command.certain and not any(fnmatchcase(command.name, a) for a in allowed)
        )
        name = next(others, None)
        return None if name is None else ("allow_only", f"a command is not among those allowed: {shown_name(name)}")

    def _objection_to_server_tool(self, tool: ServerTool) -> str:
        if tool.any_name or first_match({name.casefold() for name in tool.names}, self.tools) is not None:
            return "it may be a shell"
        if "mcp" in tool.kinds or all(_HARMLESS.fullmatch(kind) for kind in tool.kinds):
            return ""
        return "it may run programs"


def _checked_rules(rules: Sequence[str] | None) -> tuple[str, ...]:
    if rules is None:
        return tuple(RULES)
    return tuple(checked_choice(rule, "a rule", RULES) for rule in checked_names(rules, "rules", "names of rules"))


def _texts(value: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _values(arguments: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Yield every string in the arguments but the names of fields."""
    if isinstance(arguments, Mapping):
        for value in arguments.values():
            yield from _values(value)
    elif isinstance(arguments, list):
        for value in arguments:
            yield from _values(value)
    else:
        yield from strings_of(arguments)


def _is_unknown(command: Command) -> bool:
    name = command.argv[0]
    return command.certain and (UNKNOWN in name or (name not in {"[", "[["} and re.search(r"[*?\[]", name) is not None))
