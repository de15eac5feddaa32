"""`DenyTools`: calls denied by name or by arguments, whole and without a trace of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import StreamContext
from luthien_asgi.policies import DenyTools
from luthien_asgi.policy import Deny
from luthien_asgi.request import WireName
from luthien_asgi.testing import ToolCall, chunks, run_policy, text_chunk


def verdict(policy: DenyTools, name: str, arguments: str = "{}", *, custom: bool = False) -> Deny | None:
    nobody: Any = None
    ctx = StreamContext(transaction_id="t", request=nobody, keepalive=lambda: None, text=text_chunk)
    return policy.on_block_complete(Block(kind=BlockKind.TOOL_CALL, name=name, text=arguments, custom=custom), ctx)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_denied_call_is_replaced_by_the_message(client: WireName, stream: bool) -> None:
    """The client gets the text, the message and the other call; no byte of the denied one."""
    calls = [ToolCall("c1", "ls", {"path": "/"}), ToolCall("c2", "bash", {"command": "rm -rf /"}, cuts=(5, 14))]
    run = await run_policy(
        DenyTools(names=["bash"], message="{name}: no."), chunks("Let me see.", *calls), client=client, stream=stream
    )
    assert "Let me see." in run.text
    assert "bash: no." in run.text
    assert [call.name for call in run.tool_calls] == ["ls"]
    assert not any(b"rm -rf" in frame or b'"c2"' in frame for frame in run.frames)
    assert [(record.verdict, record.action, record.tool) for record in run.verdicts if record.verdict == "deny"] == [
        ("deny", "deny", "bash")
    ]


async def test_without_a_surviving_call_the_answer_ends_like_text() -> None:
    """The client has nothing to run, and is not told that it has."""
    run = await run_policy(DenyTools(names=["bash"]), chunks(ToolCall("c1", "bash", "{}")))
    assert (run.text, run.tool_calls, run.finish_reason) == ("The call of bash was denied by a policy.", [], "stop")


@pytest.mark.parametrize(
    ("policy", "name", "arguments", "denied"),
    [
        (DenyTools(names=["bash"]), "bash", "{}", True),
        (DenyTools(names=["bash"]), "bash2", "{}", False),
        (DenyTools(names=["bash"]), "Bash", "{}", False),
        (DenyTools(names=["mcp__*"]), "mcp__files__delete", "not json", True),
        (DenyTools(patterns={"bash": r"\brm\b"}), "bash", '{"command": "rm x"}', True),
        (DenyTools(patterns={"bash": r"\brm\b"}), "bash", '{"command": "ls"}', False),
        (DenyTools(patterns={"bash": r"\brm\b"}), "shell", '{"command": "rm x"}', False),
        (DenyTools(patterns={"*": r"\brm\b"}), "shell", '{"command": "rm x"}', True),
        (DenyTools(patterns={"a": "x", "*": "rm"}), "a", '{"command": "rm x"}', True),
        (DenyTools(patterns={"bash": "rm"}), "bash", "", False),
    ],
)
def test_names_and_patterns_decide(policy: DenyTools, name: str, arguments: str, denied: bool) -> None:
    """Names are exact unless they hold wildcards; patterns are searched in the arguments of their tools alone."""
    assert (verdict(policy, name, arguments) is not None) is denied


@pytest.mark.parametrize("place", [{"a": "TEXT"}, {"a": [1, {"b": ["TEXT"]}]}, {"TEXT": None}, ["x", "TEXT"]])
def test_a_json_escape_hides_nothing(place: Any) -> None:
    """The pattern sees the strings that the tool will see, keys included."""
    written = json.dumps(place).replace("TEXT", r"r\u006d -rf")
    assert "rm" not in written
    assert verdict(DenyTools(patterns={"bash": "rm -rf"}), "bash", written) is not None


def test_arguments_that_are_not_json_are_denied_where_a_pattern_applies() -> None:
    """What cannot be searched is not let through; the reason says so."""
    policy = DenyTools(patterns={"bash": "rm"})
    assert verdict(policy, "bash", '{"command": ') == Deny(
        "The call of bash was denied by a policy.", reason="the arguments are not JSON"
    )
    assert verdict(policy, "other", '{"command": ') is None


def test_a_custom_tool_s_input_is_searched_as_text() -> None:
    """Free text need not be JSON."""
    policy = DenyTools(patterns={"bash": "rm"})
    assert verdict(policy, "bash", "ls -l", custom=True) is None
    assert verdict(policy, "bash", "rm -rf", custom=True) is not None


def test_the_reason_names_the_rule_and_not_the_arguments() -> None:
    """Records may be kept without content."""
    by_name = verdict(DenyTools(names=["b*"]), "bash")
    by_pattern = verdict(DenyTools(patterns={"b*": "rm"}), "bash", '"rm"')
    assert by_name is not None
    assert by_name.reason == "the tool's name matches 'b*'"
    assert by_pattern is not None
    assert by_pattern.reason == "the arguments match the pattern of 'b*'"


def test_a_tool_s_name_is_put_in_literally() -> None:
    """A name with braces in it is not a format."""
    said = verdict(DenyTools(names=["*"], message="{name} {other}"), "{0}")
    assert said is not None
    assert said.message == "{0} {other}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give names or patterns"),
        ({"names": "bash"}, "names must be a list of tool names, not 'bash'"),
        ({"names": [1]}, "names must be a list of tool names"),
        ({"patterns": ["x"]}, "patterns must map tool names to regular expressions"),
        ({"patterns": {"x": 1}}, "patterns must map tool names to regular expressions"),
        ({"patterns": {"x": "("}}, "the pattern of 'x' is not a regular expression"),
        ({"names": ["x"], "message": " "}, "message must be a text that is not blank"),
        ({"names": ["x"], "message": 1}, "message must be a text that is not blank"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        DenyTools(**arguments)
