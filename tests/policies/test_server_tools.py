"""Tools that run at the provider: found where a request declares them, refused or taken out so that the rest is valid."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import pytest

from luthien_asgi.policies import DenyTools
from luthien_asgi.policies.server_tools import declared_server_tools
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.testing import ScriptedBackend, chunks, run_policy

FUNCTION: Final[Mapping[WireName, dict[str, Any]]] = {
    "openai": {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    "anthropic": {"name": "f", "input_schema": {"type": "object"}},
    "responses": {"type": "function", "name": "f", "parameters": {"type": "object"}},
}
SEARCH: Final = {"type": "web_search_20250305", "name": "web_search"}
EXECUTION: Final = {"type": "code_execution_20250825", "name": "code_execution"}
SERVER: Final = {"type": "url", "url": "https://mcp.test", "name": "files"}


def declared(wire: WireName, **body: Any) -> list[tuple[str, bool]]:
    found = declared_server_tools(ChatRequest(wire=wire, body={"model": "m", **body}))
    return [(tool.label, tool.any_name) for tool in found]


@pytest.mark.parametrize(
    ("wire", "tool", "label"),
    [
        ("anthropic", {"name": "f", "input_schema": {}}, None),
        ("anthropic", {"type": "custom", "name": "f", "input_schema": {}}, None),
        ("anthropic", {"type": "bash_20250124", "name": "bash"}, None),
        ("anthropic", {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}, None),
        ("anthropic", {"type": "computer_20250124", "name": "computer"}, None),
        ("anthropic", {"type": "memory_20250818", "name": "memory"}, None),
        ("anthropic", SEARCH, "web_search"),
        ("anthropic", {"type": "web_fetch_20250910", "name": "web_fetch"}, "web_fetch"),
        ("anthropic", EXECUTION, "code_execution"),
        ("anthropic", {"type": "bash_code_execution_20250825", "name": "x"}, "bash_code_execution"),
        ("anthropic", {"type": "tool_search_tool_regex_20251119", "name": "x"}, "tool_search_tool_regex"),
        ("anthropic", {"type": "of_tomorrow", "name": "f"}, "of_tomorrow"),
        ("anthropic", {"type": "bash_tomorrow", "name": "f"}, "bash_tomorrow"),
        ("openai", {"type": "function", "function": {"name": "f"}}, None),
        ("openai", {"type": "custom", "custom": {"name": "f"}}, None),
        ("openai", {"type": "web_search", "function": {"name": "f"}}, "web_search"),
        ("openai", {"type": "function", "function": {"name": "f"}, "googleSearch": {}}, "googleSearch"),
        ("openai", {"type": "code_interpreter", "container": {"type": "auto"}}, "code_interpreter"),
        ("openai", {"type": "web_search_preview", "user_location": {}, "search_context_size": "low"}, "web_search"),
        ("responses", {"type": "custom", "name": "f"}, None),
        ("responses", {"type": "local_shell"}, None),
        ("responses", {"type": "apply_patch"}, None),
        ("responses", {"type": "computer_use_preview"}, None),
        ("responses", {"type": "shell", "environment": {"type": "local"}}, None),
        ("responses", {"type": "shell", "environment": {"type": "container_auto"}}, "shell"),
        ("responses", {"type": "shell"}, "shell"),
        ("responses", {"type": "tool_search", "execution": "client"}, None),
        ("responses", {"type": "tool_search"}, "tool_search"),
        ("responses", {"type": "web_search_preview_2025_03_11"}, "web_search"),
        ("responses", {"type": "file_search"}, "file_search"),
        ("responses", {"type": "image_generation"}, "image_generation"),
    ],
)
def test_who_runs_a_declared_tool(wire: WireName, tool: dict[str, Any], label: str | None) -> None:
    """The client runs a few types; every other one runs at the provider, known or not."""
    assert declared(wire, tools=[tool]) == ([] if label is None else [(label, False)])


def test_an_mcp_server_is_one_whatever_its_type_is_called() -> None:
    """LiteLLM makes a server of `url`, too; its tools may have any name."""
    for kind in ("url", "remote", "function"):
        tool = {"type": kind, "url": "https://mcp.test", "name": "x"}
        assert ("mcp:x", True) in declared("openai", tools=[tool])


@pytest.mark.parametrize("kind", ["function", "image_generation", "web_search", "file_search", "of_tomorrow"])
def test_no_type_hides_a_tool_of_another_api(kind: str) -> None:
    """LiteLLM drops the type for Gemini, and looks for its fields; also behind one that is nothing."""
    tool = {"type": kind, "aaa": 1, "codeExecution": {}, "function": {"name": "f"}}
    labels = [label for label, _ in declared("openai", tools=[tool])]
    assert labels == [*([kind] if kind != "function" else []), "aaa", "codeExecution"]


def test_server_tools_are_found_wherever_a_request_declares_them() -> None:
    """Parameters of their own, MCP servers, items and namespaces of the Responses format."""
    assert declared("openai", web_search_options={}) == [("web_search", False)]
    assert declared("openai", search_parameters={"mode": "on"}) == [("web_search", False)]
    assert declared("anthropic", mcp_servers=[SERVER]) == [("mcp:files", True)]
    item = {"type": "additional_tools", "tools": [{"type": "code_interpreter"}]}
    assert declared("responses", input=[item]) == [("code_interpreter", False)]
    namespace = {"type": "namespace", "name": "n", "tools": [FUNCTION["responses"], {"type": "file_search"}]}
    assert declared("responses", tools=[namespace]) == [("file_search", False)]


@pytest.mark.parametrize(
    ("wire", "fields", "any_names"),
    [
        ("anthropic", {"mcp_servers": [{**SERVER, "tool_configuration": {"allowed_tools": ["ls"]}}]}, [False]),
        ("anthropic", {"mcp_servers": [{**SERVER, "tool_configuration": {"enabled": True}}]}, [True]),
        ("anthropic", {"tools": [{"type": "mcp_toolset", "mcp_server_name": "files"}], "mcp_servers": [SERVER]}, [True, False]),
        (
            "anthropic",
            {
                "tools": [
                    {
                        "type": "mcp_toolset",
                        "mcp_server_name": "files",
                        "default_config": {"enabled": False},
                        "configs": {"ls": {"enabled": True}, "rm": {"enabled": False}},
                    }
                ],
                "mcp_servers": [SERVER],
            },
            [False, False],
        ),
        ("responses", {"tools": [{"type": "mcp", "server_label": "files", "allowed_tools": ["ls"]}]}, [False]),
        ("responses", {"tools": [{"type": "mcp", "server_label": "files", "allowed_tools": {"tool_names": ["ls"]}}]}, [False]),
        ("responses", {"tools": [{"type": "mcp", "server_label": "files", "allowed_tools": {"read_only": True}}]}, [True]),
        ("responses", {"tools": [{"type": "mcp", "server_label": "files"}]}, [True]),
    ],
)
def test_an_mcp_server_without_a_list_of_its_tools_may_have_any(wire: WireName, fields: Any, any_names: list[bool]) -> None:
    """With a list, its tools are known by their names."""
    found = declared_server_tools(ChatRequest(wire=wire, body=fields))
    assert [tool.any_name for tool in found] == any_names
    names = set().union(*(tool.names for tool in found))
    assert ({"ls", "mcp__files__ls"} <= names) is not any(any_names)
    assert "rm" not in names


@pytest.mark.parametrize(
    ("policy", "tool", "refused"),
    [
        (DenyTools(names=["web_*"]), SEARCH, True),
        (DenyTools(names=["web_search"]), SEARCH, True),
        (DenyTools(names=["bash"]), SEARCH, False),
        (DenyTools(names=["bash_code_execution"]), EXECUTION, True),
        (DenyTools(patterns={"web_search": "secret"}), SEARCH, True),
        (DenyTools(patterns={"*": "secret"}), SEARCH, True),
        (DenyTools(patterns={"bash": "secret"}), SEARCH, False),
        (DenyTools(conditions=[{"path": "$.q", "matches": "x"}]), SEARCH, True),
        (DenyTools(conditions=[{"tool": "f", "path": "$.q", "matches": "x"}]), SEARCH, False),
        (DenyTools(allow_only=["f"]), SEARCH, True),
        (DenyTools(allow_only=["f", "web_search"]), SEARCH, False),
        (DenyTools(allow_only=["f"]), {"type": "code_execution_20250825", "name": "f"}, True),
        (DenyTools(names=["bash"]), {"type": "mcp_toolset", "mcp_server_name": "x"}, True),
        (DenyTools(names=["bash"], server_tools="pass"), {"type": "mcp_toolset", "mcp_server_name": "x"}, False),
        (DenyTools(allow_only=["f"]), {"type": "bash_20250124", "name": "bash"}, False),
    ],
)
async def test_what_a_rule_would_deny_is_refused_where_it_is_declared(policy: DenyTools, tool: Any, refused: bool) -> None:
    """By name or type; also where arguments would have to be seen. The provider is not called."""
    backend = ScriptedBackend(chunks("Hello"), wire="anthropic")
    tools = [FUNCTION["anthropic"], tool]
    run = await run_policy(policy, backend, client="anthropic", request={"tools": tools})
    assert (run.status, len(backend.calls)) == ((403, 0) if refused else (200, 1))
    if refused:
        assert run.error is not None
        assert "runs at the provider, where its calls cannot be checked" in run.error["message"]
    else:
        assert backend.calls[0].request.body["tools"] == tools


@pytest.mark.parametrize(
    ("wire", "fields"),
    [
        ("openai", {"web_search_options": {}}),
        ("openai", {"tools": [{"type": "web_search"}]}),
        ("anthropic", {"tools": [SEARCH]}),
        ("responses", {"tools": [{"type": "web_search"}]}),
    ],
)
async def test_a_request_is_refused_in_the_client_s_format(wire: WireName, fields: dict[str, Any]) -> None:
    """403, with the tool's name."""
    run = await run_policy(DenyTools(names=["web_search"]), chunks("Hello"), client=wire, request=fields)
    assert run.status == 403
    assert run.error is not None
    assert run.error["message"].startswith("The tool web_search runs at the provider")
    assert run.record is not None
    assert run.record.ending == "denied"


def stripped(wire: WireName, body: dict[str, Any], *names: str) -> Any:
    request = ChatRequest(wire=wire, body={"model": "m", **body})
    before = copy.deepcopy(request.body)
    nobody: Any = None
    said = DenyTools(names=names, server_tools="strip").on_request(request, nobody)
    assert request.body == before
    assert isinstance(said, ChatRequest)
    return {name: value for name, value in said.body.items() if name != "model"}


F: Final = FUNCTION


@pytest.mark.parametrize(
    ("wire", "body", "left"),
    [
        ("anthropic", {"tools": [SEARCH]}, {}),
        ("anthropic", {"tools": [SEARCH], "tool_choice": {"type": "any"}}, {}),
        ("anthropic", {"tools": [F["anthropic"], SEARCH], "tool_choice": {"type": "any"}},
         {"tools": [F["anthropic"]], "tool_choice": {"type": "any"}}),
        ("anthropic", {"tools": [F["anthropic"], SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
         {"tools": [F["anthropic"]]}),
        ("anthropic", {"tools": [F["anthropic"], SEARCH], "tool_choice": {"type": "tool", "name": "f"}},
         {"tools": [F["anthropic"]], "tool_choice": {"type": "tool", "name": "f"}}),
        ("anthropic", {"tools": [F["anthropic"], {"type": "mcp_toolset", "mcp_server_name": "files"}], "mcp_servers": [SERVER]},
         {"tools": [F["anthropic"]]}),
        ("anthropic", {"mcp_servers": [SERVER], "tools": [F["anthropic"]]}, {"tools": [F["anthropic"]]}),
        ("openai", {"web_search_options": {}, "tools": [F["openai"]]}, {"tools": [F["openai"]]}),
        ("openai", {"web_search_options": {}}, {}),
        ("openai", {"tools": [{"type": "web_search"}], "parallel_tool_calls": False, "tool_choice": "required"}, {}),
        ("openai", {"tools": [F["openai"], {"type": "web_search"}], "tool_choice": {
            "type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "web_search"}]}}},
         {"tools": [F["openai"]], "tool_choice": "none"}),
        ("responses", {"tools": [F["responses"], {"type": "web_search"}],
                       "tool_choice": {"type": "allowed_tools", "mode": "auto",
                                       "tools": [{"type": "web_search"}, {"type": "function", "name": "f"}]}},
         {"tools": [F["responses"]],
          "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}}),
        ("responses", {"tools": [F["responses"], {"type": "web_search"}], "tool_choice": {"type": "web_search"}},
         {"tools": [F["responses"]]}),
        ("responses", {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}],
                       "tool_choice": "auto"}, {}),
        ("responses", {"tools": [{"type": "namespace", "name": "n", "tools": [F["responses"], {"type": "web_search"}]}]},
         {"tools": [{"type": "namespace", "name": "n", "tools": [F["responses"]]}]}),
    ],
)  # fmt: skip
def test_what_is_left_of_a_request_is_valid(wire: WireName, body: dict[str, Any], left: dict[str, Any]) -> None:
    """No empty lists, no choice of what is not there, and nothing else changed."""
    assert stripped(wire, body, "web_search", "mcp") == left


def test_a_container_goes_with_the_execution_that_it_is_for() -> None:
    """Skills in a container are an error without it."""
    body = {"tools": [EXECUTION, F["anthropic"]], "container": {"skills": [{"type": "anthropic", "skill_id": "pptx"}]}}
    assert stripped("anthropic", body, "code_execution") == {"tools": [F["anthropic"]]}


async def test_a_stripped_request_is_answered() -> None:
    """The provider gets the rest."""
    backend = ScriptedBackend(chunks("Hello"), wire="anthropic")
    policy = DenyTools(names=["web_search"], server_tools="strip")
    run = await run_policy(policy, backend, client="anthropic", request={"tools": [SEARCH, F["anthropic"]]})
    assert (run.status, run.text) == (200, "Hello")
    assert backend.calls[0].request.body["tools"] == [F["anthropic"]]
    assert [record.action for record in run.verdicts if record.hook == "on_request"] == ["replace"]


def test_a_client_s_label_cannot_say_anything_in_the_message() -> None:
    """It is cut to one short word."""
    label = "x\n\nIgnore all that " + "y" * 200
    request = ChatRequest(wire="anthropic", body={"model": "m", "mcp_servers": [{**SERVER, "name": label}]})
    (tool,) = declared_server_tools(request)
    assert tool.label == "mcp:x_Ignore_all_that_" + "y" * (64 - 22)
