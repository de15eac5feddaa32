"""Tools that a request declares and that run at the provider: no policy sees such a call before it ran.

Strategy: a short list of types that the *client* runs (they come back as ordinary tool calls, which are judged like all others);
every other type runs at the provider, known or not. What a tool may be called is collected, so that a rule about names can be
applied where the tool is declared. A tool's type comes from the API, its name and an MCP server's label are the client's word:
the first can allow, all of them can deny.

- Anthropic: `mcp_servers`; `tools` of a type other than `custom`, `bash_*`, `text_editor_*`, `computer_*` and `memory_*`.
- OpenAI chat completions: `web_search_options`, `search_parameters` (xAI); `tools` of a type other than `function` and `custom`,
  and every field of another API's tool in one (Gemini's `googleSearch`): LiteLLM looks for these whatever the type is.
- OpenAI Responses: `tools` and `additional_tools` of a type other than `function`, `custom`, `local_shell`, `apply_patch`,
  `computer*`, a `shell` with a local environment, a `tool_search` that the client executes.

Sources: the types of anthropic 2.12 and openai 2.54, and the API references behind them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from luthien_asgi.names import shown_name
from luthien_asgi.policies.tool_removal import Path, without_tools
from luthien_asgi.policy import Deny
from luthien_asgi.request import ChatRequest
from luthien_asgi.request_items import flat_tools

__all__ = ["MODES", "ServerTool", "declared_server_tools", "judge_server_tools"]

MODES: Final = ("refuse", "strip", "pass")
"""What becomes of a declared tool that a rule objects to: the request is refused (403), the tool is left out, nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTool:
    """One declared tool, or one MCP server, that runs at the provider."""

    kinds: frozenset[str]
    """What the API calls its type, with and without the date; `mcp` for MCP servers."""
    names: frozenset[str]
    """Every name that a call of it may have, as far as the request says: those of `kinds`, too."""
    any_name: bool = False
    """Whether it may hold tools of any name: an MCP server of which the request does not list the tools."""
    path: Path
    server: str = ""
    """The name of the MCP server; what is declared under one name belongs together."""

    @property
    def label(self) -> str:
        """What a message calls it."""
        return shown_name(min(self.kinds, key=len) + (f":{self.server}" if self.server else ""))


def judge_server_tools(request: ChatRequest, mode: str, objection: Callable[[ServerTool], str]) -> ChatRequest | Deny | None:
    """Return what `on_request` returns where a rule objects to declared tools that run at the provider."""
    objections = {tool: said for tool in declared_server_tools(request) if mode != "pass" and (said := objection(tool))}
    if not objections:
        return None
    if mode == "refuse":
        tool, said = next(iter(objections.items()))
        message = f"The tool {tool.label} runs at the provider, where its calls cannot be checked: it is not allowed here."
        return Deny(message, reason=f"{tool.label}: {said}")
    servers = {tool.server for tool in objections if tool.server}
    linked = [tool for tool in declared_server_tools(request) if tool.server in servers and tool.server]
    return without_tools(request, [tool.path for tool in (*objections, *linked)])


def declared_server_tools(request: ChatRequest) -> list[ServerTool]:
    """Return the tools of a request that run at the provider, in the order of the body."""
    return list(_READERS[request.wire](request.body))


def _objects(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:  # noqa: ANN401 - JSON
    return ((place, item) for place, item in enumerate(value if isinstance(value, list) else ()) if isinstance(item, Mapping))


def _texts(value: Any) -> set[str]:  # noqa: ANN401 - JSON
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()


# --- names -----------------------------------------------------------------------------------------------------------------

_DATE: Final = re.compile(r"_\d{4}_?\d{2}_?\d{2}$", re.ASCII)
_CALLED: Final[Mapping[str, frozenset[str]]] = {
    "code_execution": frozenset({"bash_code_execution", "text_editor_code_execution"}),
    "web_search_preview": frozenset({"web_search"}),
    "web_search_options": frozenset({"web_search"}),
    "search_parameters": frozenset({"web_search"}),
}
"""What a type's calls are called, where that is something else than the type."""


def _tool(kind: str, path: Path, tool: Mapping[str, Any]) -> ServerTool:
    if kind in {"mcp", "mcp_toolset"}:
        return _mcp(kind, path, tool)
    if "url" in tool or "server_url" in tool:  # an MCP server, whatever its type is called: LiteLLM knows `url` for one
        return _mcp("mcp_servers", path, tool)
    plain = _DATE.sub("", kind)
    kinds = frozenset({kind, plain}) | _CALLED.get(plain, frozenset())
    name = tool.get("name")
    return ServerTool(kinds=kinds, names=kinds | ({name} if isinstance(name, str) else set()), path=path)


def _mcp(kind: str, path: Path, tool: Mapping[str, Any], *, has_toolset: bool = False) -> ServerTool:
    """Read an MCP server or a set of its tools: OpenAI's `mcp`, Anthropic's `mcp_servers` and `mcp_toolset`."""
    label = next((tool[key] for key in ("mcp_server_name", "server_label", "name") if isinstance(tool.get(key), str)), "")
    listed = _listed(kind, tool)
    names = {name for tool_name in listed or () for name in (tool_name, f"mcp__{label}__{tool_name}")}
    kinds = frozenset({kind, "mcp"})
    return ServerTool(
        kinds=kinds,
        names=kinds | names | {f"mcp__{label}"},
        any_name=listed is None and not has_toolset,
        path=path,
        server=label,
    )


def _listed(kind: str, tool: Mapping[str, Any]) -> set[str] | None:
    """Return the names of the tools that an MCP declaration is restricted to, or None where it is not."""
    if kind == "mcp_toolset":
        default, configs = tool.get("default_config"), tool.get("configs")
        if not isinstance(default, Mapping) or default.get("enabled") is not False:
            return None
        given = configs if isinstance(configs, Mapping) else {}
        return {name for name, config in given.items() if not (isinstance(config, Mapping) and config.get("enabled") is False)}
    allowed = tool.get("allowed_tools")
    if kind == "mcp_servers":
        configuration = tool.get("tool_configuration")
        allowed = configuration.get("allowed_tools") if isinstance(configuration, Mapping) else None
    if isinstance(allowed, Mapping):
        allowed = allowed.get("tool_names")
    return _texts(allowed) if isinstance(allowed, list) else None


# --- the formats -----------------------------------------------------------------------------------------------------------

_ANTHROPIC_CLIENT: Final = re.compile(r"(bash|text_editor|computer|memory)_\d{8}", re.ASCII)
_CHAT_FIELDS: Final = frozenset(
    {"type", "function", "custom", "cache_control", "strict", "name", "description", "defer_loading", "allowed_callers"}
    | {"input_examples", "eager_input_streaming"}
)
_SETTINGS: Final = frozenset(
    {
        "user_location",
        "search_context_size",
        "search_content_types",
        "filters",
        "max_uses",
        "max_num_results",
        "max_content_tokens",
    }
    | {"allowed_domains", "blocked_domains", "citations", "vector_store_ids", "ranking_options", "container", "environment"}
    | {"background", "input_fidelity", "input_image_mask", "model", "moderation", "output_compression", "output_format"}
    | {"partial_images", "quality", "size", "action", "display_width", "display_height", "display_width_px", "display_height_px"}
    | {"server_label", "server_url", "server_description", "connector_id", "allowed_tools", "require_approval", "headers"}
    | {"authorization"}
)
"""What tools that run at a provider are set up with, in OpenAI's documents and Anthropic's."""
_RESPONSES_CLIENT: Final = frozenset(
    {"function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview", "computer-preview"}
)


def _anthropic(body: Mapping[str, Any]) -> Iterator[ServerTool]:
    for place, tool in _objects(body.get("tools")):
        kind = tool.get("type")
        if kind not in (None, "custom") and not _ANTHROPIC_CLIENT.fullmatch(str(kind)):
            yield _tool(str(kind), ("tools", place), tool)
    tools = [tool for _, tool in _objects(body.get("tools"))]
    toolsets = {str(tool.get("mcp_server_name")) for tool in tools if tool.get("type") == "mcp_toolset"}
    for place, server in _objects(body.get("mcp_servers")):
        yield _mcp("mcp_servers", ("mcp_servers", place), server, has_toolset=str(server.get("name")) in toolsets)


def _openai(body: Mapping[str, Any]) -> Iterator[ServerTool]:
    for place, tool in _objects(body.get("tools")):
        kind = str(tool.get("type", "function"))
        known = _CHAT_FIELDS
        if kind not in {"function", "custom"}:
            known = known | _SETTINGS
            yield _tool(kind, ("tools", place), tool)
        for field in sorted(tool.keys() - known):
            yield _tool(field, ("tools", place), tool if field in {"url", "server_url"} else {})
    for field in ("web_search_options", "search_parameters"):
        if body.get(field) is not None:
            yield _tool(field, (field,), {})


def _responses(body: Mapping[str, Any]) -> Iterator[ServerTool]:
    for path, tool in flat_tools(body):
        kind = str(tool.get("type", "function"))
        if kind not in _RESPONSES_CLIENT and not _is_local(kind, tool):
            yield _tool(kind, path, tool)


def _is_local(kind: str, tool: Mapping[str, Any]) -> bool:
    environment = tool.get("environment")
    if kind == "shell":
        return isinstance(environment, Mapping) and environment.get("type") == "local"
    return kind == "tool_search" and tool.get("execution") == "client"


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[ServerTool]]]] = {
    "anthropic": _anthropic,
    "openai": _openai,
    "responses": _responses,
}
