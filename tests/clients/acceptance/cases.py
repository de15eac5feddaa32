"""The cases: which client asks over which API for which backend, what the model wants to run, and what has to come of it.

Strategy: a case needs no state anywhere. The commands stand in the user's prompt between marks with the case's name; the script
of the provider finds them there and calls whichever shell tool the client offers. So all cases share one provider and gateways.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from luthien_asgi import Paths
from luthien_asgi.testing import Answer, Failure, ProviderRequest, Text, Thinking, ToolCall, check_history, verdict_on
from luthien_asgi.testing.scripts import tool_results

__all__ = [
    "ANSWERED",
    "APIS",
    "DENIAL",
    "JUDGE",
    "JUDGED",
    "SCENARIOS",
    "SIGNATURE",
    "Case",
    "Scenario",
    "cases",
    "commands_in",
    "offered_tool",
    "script",
    "wire_of",
]

DENIAL: Final = "[{name} was denied by a policy.]"
FORBIDDEN: Final = r"forbidden"
"""The denying gateway's pattern, searched in the arguments of every tool."""
APIS: Final[Mapping[str, str]] = {"openai-chat": "openai", "openai-responses": "responses", "anthropic": "anthropic"}
"""What a client speaks, and the wire that it is."""
ANSWERED: Final = tuple(
    api for api in APIS if api != "openai-responses" or any(path.name == "responses" for path in fields(Paths))
)
"""The APIs that this version of the gateway answers."""
_MODELS: Final = {
    ("anthropic", "anthropic"): "claude-sonnet-5",
    ("anthropic", "openai"): "claude-opus-4-6",
    ("openai", "openai"): "gpt-4.1",
    ("openai", "anthropic"): "gpt-4o",
    ("responses", "openai"): "gpt-5.5",
    ("responses", "anthropic"): "gpt-5.5-claude",
}
"""Names by what the client speaks and the backend: each client is given a model that it knows, whatever is behind it."""
DEPLOYMENTS: Final[Mapping[str, str]] = {
    "claude-sonnet-5": "anthropic/claude-sonnet-5",
    "claude-opus-4-6": "openai/gpt-4.1",
    "gpt-4.1": "openai/gpt-4.1",
    "gpt-4o": "anthropic/claude-sonnet-5",
    "gpt-5.5": "openai/gpt-4.1",
    "gpt-5.5-claude": "anthropic/claude-sonnet-5",
    "judge": "openai/judge",
}
JUDGE: Final = "judge"
"""The model that the judging gateway asks, as the configuration and as the provider names it."""
SIGNATURE: Final = "c2lnbmVk"
"""What an Anthropic backend signs its thinking with."""
_MARKED: Final = re.compile(r"@@([\w.-]+):([^@]+)@@")
_SHELLS: Final = ("Bash", "exec_command", "shell_command", "shell", "run_command")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the model wants to run and which gateway it meets."""

    name: str
    gateway: str
    """`allow`, `deny` or `judge`: the policy in charge."""
    wants: tuple[str, ...]
    """The files that the commands would make; those with `forbidden` in their name are denied."""

    @property
    def made(self) -> tuple[str, ...]:
        """The files that have to be there afterwards."""
        return tuple(name for name in self.wants if not re.search(FORBIDDEN, name))

    @property
    def turns(self) -> int:
        """How many requests the tool loop takes: where no call survives, the first answer is the last."""
        return 2 if self.made else 1

    @property
    def judgements(self) -> int:
        """How often the judge is asked: once a call."""
        return len(self.wants) if self.gateway == "judge" else 0


SCENARIOS: Final = (
    Scenario("allow", "allow", ("allowed.txt",)),
    Scenario("deny", "deny", ("forbidden.txt",)),
    Scenario("mixed", "deny", ("allowed.txt", "forbidden.txt")),
)
JUDGED: Final = tuple(Scenario(f"judge-{each.name}", "judge", each.wants) for each in SCENARIOS)
"""The same, where a model decides."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a client."""

    client: str
    api: str
    backend: str
    scenario: Scenario
    stream: bool = True

    @property
    def name(self) -> str:
        """The case's name: its folder, and its mark in the prompt."""
        return "-".join((self.client, self.api, f"on-{self.backend}", self.scenario.name, "stream" if self.stream else "whole"))

    @property
    def model(self) -> str:
        """The model name that the client asks for."""
        return _MODELS[APIS[self.api], self.backend]

    @property
    def prompt(self) -> str:
        """The user's message."""
        commands = (f"@@{self.name}:echo ran > {name} && cat {name}@@" for name in self.scenario.wants)
        return f"Run each of these commands: {' '.join(commands)}"


def cases(
    client: str,
    apis: tuple[str, ...],
    *,
    streams: tuple[bool, ...] = (True, False),
    scenarios: tuple[Scenario, ...] = SCENARIOS,
) -> list[Case]:
    """Return a client's cases: each of its APIs on both backends, in each scenario."""
    product = itertools.product(apis, ("anthropic", "openai"), scenarios, streams)
    return [Case(client, api, backend, scenario, stream) for api, backend, scenario, stream in product]


def commands_in(body: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the commands that stand in a request's conversation, by the case's name; each once, in order."""
    found: dict[str, list[str]] = {}
    for text in _strings([body.get("messages"), body.get("input")]):
        for case, command in _MARKED.findall(text):
            commands = found.setdefault(case, [])
            if command not in commands:
                commands.append(command)
    return found


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _strings(item)
        case dict():
            for item in value.values():
                yield from _strings(item)


def offered_tool(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return name and JSON schema of the shell tool that a request offers, in any of the wires."""
    tools = [tool.get("function", tool) for tool in body.get("tools") or []]
    offered = {tool.get("name"): tool.get("input_schema") or tool.get("parameters") or {} for tool in tools}
    return next(((name, offered[name]) for name in _SHELLS if name in offered), None)


def script(request: ProviderRequest) -> Answer | Failure:
    """Answer as the model: call the shell for each command of the prompt, then quote the results. A bad history is a 400.

    Asked as the judge, it looks at the call alone, which is the last of the data: the conversation has all commands in it.
    """
    if request.body.get("model") == JUDGE:
        call = request.body["messages"][-1]["content"].rpartition("<data ")[2]
        return Answer(verdict_on(request.body, score=0.9 if re.search(FORBIDDEN, call) else 0.1))
    if complaint := check_history(request.wire, request.body):
        return Failure(400, None, complaint)
    commands = [command for found in commands_in(request.body).values() for command in found]
    tool = offered_tool(request.body)
    if not commands or tool is None:
        return Answer("A title")
    if results := tool_results(request.wire, request.body):
        return Answer(Text("The tool ", "said: ", "; ".join(results)))
    turn = len(request.body["messages"])
    calls = [
        ToolCall(f"call_{turn}_{n}", tool[0], _arguments(tool[1], command), cuts=(4, 11)) for n, command in enumerate(commands)
    ]
    return Answer(*_thoughts(request), Text("I will ", "run it."), *calls)


def _thoughts(request: ProviderRequest) -> list[Thinking]:
    """Think as a model of each wire does: Anthropic's when it was asked to, others as they like."""
    asked = (request.body.get("thinking") or {}).get("type") in {"enabled", "adaptive"}
    thinks = asked if request.wire == "anthropic" else True
    return [Thinking("The user wants ", "a command.", signature=SIGNATURE)] if thinks else []


def _arguments(schema: Mapping[str, Any], command: str) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    name = "cmd" if "cmd" in properties else "command"
    is_list = (properties.get(name) or {}).get("type") == "array"
    return {name: ["bash", "-c", command] if is_list else command}


def wire_of(path: str) -> str | None:
    """Return the wire of a completion route, None for other paths."""
    ends = {"/chat/completions": "openai", "/responses": "responses", "/messages": "anthropic"}
    return next((wire for end, wire in ends.items() if path.partition("?")[0].endswith(end)), None)
