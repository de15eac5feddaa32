"""A policy that keeps dangerous commands from shell tools: it parses what would be run."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Final

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import PolicyContext, StreamContext
from luthien_asgi.names import shown_name
from luthien_asgi.policies.checks import checked_choice, checked_message, checked_names, first_match
from luthien_asgi.policies.server_tools import MODES, ServerTool, judge_server_tools
from luthien_asgi.policies.shell.calls import FIELDS, FOREIGN, TOOLS, holds_text, scripts_given
from luthien_asgi.policies.shell.command import Command
from luthien_asgi.policies.shell.parsing import ScriptError, require_parser
from luthien_asgi.policies.shell.rules import FORK_BOMB, RULES
from luthien_asgi.policies.shell.script import Script
from luthien_asgi.policies.shell.words import UNKNOWN
from luthien_asgi.policies.tool_arguments import ArgumentsError, read_arguments
from luthien_asgi.policy import Allow, Deny, Handling, Hold, Policy, blocking
from luthien_asgi.request import ChatRequest

__all__ = ["GuardShell"]

_MESSAGE: Final = "The command was denied by a policy ({rule})."
_HARMLESS: Final = re.compile(
    r"(web_search|web_fetch|file_search|image_generation|tool_search|search_parameters|web_search_options).*"
)


class GuardShell(Policy):
    """Deny calls of shell tools that would run something dangerous. Needs `pip install 'luthien-asgi[shell]'`.

    The command is parsed as bash and its words are expanded: quotes and escapes (`r\\m`), variables that the script assigns,
    braces, `$IFS`, paths (`/bin/rm`). Pipelines, subshells, functions, aliases and substitutions are looked into, and so are
    `sh -c`, `eval`, documents and pipes for a shell, `find -exec`, and wrappers (`sudo`, `env`, `xargs`, `timeout`, `tmux`, …).
    What builtins evaluate is code (`test -v 'a[$(…)]'`, `$((x))`, `${x@P}`), and so are variables that programs run
    (`PROMPT_COMMAND`, `GIT_SSH_COMMAND`, `EDITOR`, …); those that load a file (`BASH_ENV`, `LD_PRELOAD`) are `unresolved`.

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
      taken as a command's words (`["bash", "-lc", "…"]`), and `commands` as a list of scripts. A text under a name that is
      not known is judged by the rules as well. Tools that run PowerShell or cmd are denied as `interpreter`.
    - `server_tools`: `refuse` (the default), `strip` or `pass` requests that declare a tool which runs at the provider and may
      run programs there (code execution, a hosted shell, MCP servers that may hold a shell tool, what is not known): no such
      call is seen before it ran. What only searches or draws is let be.
    - `message` is what the client sees in place of the call; `{rule}` in it becomes the rule's name.

    What it cannot see: programs in files (`./build.sh`, `make`), a command under another name (`cp /bin/rm x`), the effect of
    earlier calls (a variable, an alias or folder of a shell that lives on), numbers and names that another program writes
    (`$((n))` after `n=$(…)` is taken for a number), what a container runs, languages that are no shell of the Bourne family:
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
        tools: Sequence[str] = TOOLS,
        fields: Sequence[str] = FIELDS,
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
        name = unicodedata.normalize("NFKC", block.name).strip().casefold()
        if first_match([name], self.tools) is None:
            return None
        rule, reason = self._objection(block, foreign=first_match([name], FOREIGN) is not None)
        return Deny(self.message.replace("{rule}", rule), reason=reason) if rule else None

    def _objection(self, block: Block, *, foreign: bool) -> tuple[str, str]:
        """Return the name of the rule that is broken and the reason for the record, or nothing twice."""
        try:
            arguments = read_arguments(block)
            if foreign and "interpreter" in self.rules and holds_text(arguments):
                return "interpreter", "the tool's scripts are in a language that is not read"
            scripts = [*scripts_given(arguments, self.fields, strict=self._strict and not foreign)]
        except (ArgumentsError, ScriptError) as error:
            return "unresolved", str(error)
        if not any(given.named for given in scripts) and holds_text(arguments):
            return "unresolved", "no argument is known to hold the command"
        judged = (self._judged(given.script, given.sure and not foreign) for given in scripts)
        return next((found for found in judged if found[0]), ("", ""))

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


def _is_unknown(command: Command) -> bool:
    name = command.argv[0]
    return command.certain and (UNKNOWN in name or (name not in {"[", "[["} and re.search(r"[*?\[]", name) is not None))
