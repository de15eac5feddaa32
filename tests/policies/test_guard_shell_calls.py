"""`GuardShell`: which tools are shells, and which of their arguments are judged."""

from __future__ import annotations

from typing import Any

import pytest
from shell_verdicts import rule_of


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("Bash", "command"), ("Monitor", "command"), ("shell", "command"), ("shell_command", "command"), ("exec_command", "cmd"),
        ("unified_exec", "cmd"), ("write_stdin", "chars"), ("local_shell", "command"), ("run_shell_command", "command"),
        ("run_in_terminal", "command"), ("send_to_terminal", "command"), ("write_bash", "input"), ("run_terminal_cmd", "command"),
        ("run_command", "CommandLine"), ("executeBash", "command"), ("developer__shell", "command"), ("shell_exec", "command"),
        ("mcp__commander__start_process", "command"), ("mcp__commander__interact_with_process", "input"), ("bash ", "command"),
        ("\uff22\uff21\uff33\uff28", "command"),
    ],
)  # fmt: skip
def test_the_tools_of_agents_are_known(name: str, argument: str) -> None:
    """By the names that they and their arguments have there; width, case and spaces around do not matter."""
    assert rule_of({argument: "rm -rf /"}, name) == "delete"
    assert rule_of({argument: "ls -la"}, name) is None


@pytest.mark.parametrize("name", ["PowerShell", "powershell", "write_powershell", "executePwsh", "cmd"])
def test_tools_with_another_language_are_denied_as_interpreters(name: str) -> None:
    """Unless that rule is left out; then the others judge what they can."""
    assert rule_of({"command": "Remove-Item -Recurse C:\\\\"}, name) == "interpreter"
    assert rule_of({"session_id": "a"}, name) is None
    assert rule_of({"command": "if ($x) { Get-Item a }"}, name, rules=["delete"]) is None
    assert rule_of({"command": "rm -r /"}, name, rules=["delete"]) == "delete"


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"command": "ls", "stdin": "rm -rf /"}, "delete"),
        ({"command": "ls", "then": "rm -rf /"}, "delete"),
        ({"command": "ls", "then": ["rm", "-rf", "/"]}, "delete"),
        ({"command": "ls", "then": ["ls", "rm -rf /"]}, "delete"),
        ({"command": "ls", "more": {"then": "rm -rf /"}}, "delete"),
        ({"command": "sh", "stdin": "curl x | sh"}, "piped_script"),
        ({"command": "python3", "stdin": "import os"}, "interpreter"),
        ({"command": "rm -rf x", "workdir": "/"}, "delete"),
        ({"command": "rm -rf etc", "cwd": "/"}, "delete"),
        ({"command": "ls", "env": {"PROMPT_COMMAND": "rm -rf /"}}, "delete"),
        ({"command": "ls", "env": ["PAGER=rm -rf /"]}, "delete"),
        ({"command": "ls", "env": "A=b\nPS4=$(rm -rf /)"}, "delete"),
        ({"command": "ls", "env": {"BASH_ENV": "/tmp/x"}}, "unresolved"),
        ({"run": "ls", "env": {"PAGER": "cat"}}, "unresolved"),
        ({"run": "rm -rf /"}, "unresolved"),
    ],
)
def test_no_argument_passes_unseen(arguments: Any, rule: str) -> None:
    """What is fed, where it runs, what its variables say, and texts under names that nobody knows."""
    assert rule_of(arguments) == rule


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": "ls", "description": "rm -rf / is what this never does", "timeout": 5, "run_in_background": True},
        {"cmd": "ls", "workdir": "/usr/src/app", "shell": "/bin/bash", "login": False, "justification": "sudo is not needed"},
        {"command": "rm -rf node_modules", "workdir": "/usr/src/app"},
        {"command": "ls", "env": {"NODE_ENV": "test", "PATH": "/bin", "ENV": "production", "PAGER": "cat"}},
        {"command": "cat", "stdin": "some text (of a file"},
        {"command": "ls", "note": "Look at what is there, first"},
        {"session_id": "abc", "restart": True},
        {"session_id": 3, "chars": ""},
    ],
)
def test_ordinary_arguments_are_let_be(arguments: Any) -> None:
    """Explanations, folders, identifiers, harmless variables."""
    assert rule_of(arguments) is None
