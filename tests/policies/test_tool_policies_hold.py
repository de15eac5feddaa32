"""What every policy promises, for those that judge tool calls and bound answers: the kit's own proof, in one line each."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.policies import AllowModels, DenyTools, GuardShell, GuardSql, LimitOutput
from luthien_asgi.policy import Policy
from luthien_asgi.testing import Answer, Text, ToolCall, assert_policy_holds


def answer(name: str, field: str, bad: str, good: str) -> Answer:
    return Answer(Text("Let me see."), ToolCall("call_1", name, {field: bad}), ToolCall("call_2", name, {field: good}))


@pytest.mark.parametrize(
    ("policy", "more"),
    [
        (
            DenyTools(names=["evil"], patterns={"*": "QZX"}, conditions=[{"path": "$..x", "matches": "QZX"}]),
            {"examples": ["QZX"]},
        ),
        (GuardShell(), {"answers": [answer("bash", "command", "rm -rf /", "ls")], "max_block": 2.0}),
        (GuardSql(dialect="postgres"), {"answers": [answer("run_sql", "sql", "DROP TABLE x", "SELECT 1")], "max_block": 2.0}),
        (LimitOutput(tokens=6, tool_calls=1, blocks=3), {}),
        (LimitOutput(tokens=20, per="answer"), {}),
        (AllowModels(allow=["*"]), {}),
    ],
    ids=["DenyTools", "GuardShell", "GuardSql", "LimitOutput", "LimitOutput-per-answer", "AllowModels"],
)
def test_it_holds(policy: Policy, more: dict[str, Any]) -> None:
    """Any cut, streamed or not, every format, legal, shared by streams."""
    assert_policy_holds(policy, cuts=1, **more)
