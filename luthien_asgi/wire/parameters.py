"""Every request parameter that clients may send, and what becomes of it when the backend speaks the other format.

Strategy: three tables, one a client format; a parameter that is in neither is refused by name. On the same wire a parameter goes
on as it was received (save those with `accepted=False`). Across wires its row says: *mapped* to another field, *carried* under
the same name, *refused* with a 400 that names it, *ignored* with notice (only what does not change what the answer means), or
*handled* here. A value that says what is the default anyway is `neutral`: nothing is lost by leaving it out. What is below a
parameter that is mapped has rows of its own, in `wire.parts_openai` and `wire.parts_anthropic`.

No provider is called in the Responses format. Its rows say what a request becomes as chat completions, and where the provider
speaks Anthropic's format, the rows of chat completions say what follows.

The rows are checked against the request types of openai-python 2.54 and anthropic-python 2.11 by a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from luthien_asgi.request import WireName
from luthien_asgi.wire.control_names import is_control_name
from luthien_asgi.wire.fates import Fate

__all__ = [
    "ANTHROPIC",
    "OPENAI",
    "OPENAI_OWN",
    "PARAMETERS",
    "RESPONSES",
    "Fate",
    "Parameter",
    "Shape",
    "has_shape",
    "why_unknown",
]


Shape = Literal["text", "flag", "whole", "number", "list", "object", "text or list", "text or object", "anything"]
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "text": (str,),
    "flag": (bool,),
    "whole": (int,),
    "number": (int, float),
    "list": (list,),
    "object": (dict,),
    "text or list": (str, list),
    "text or object": (str, dict),
}
_SHAPE_WORDS: Final[Mapping[str, str]] = {
    "text": "a string",
    "flag": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "list": "a list",
    "object": "an object",
    "text or list": "a string or a list",
    "text or object": "a string or an object",
}


def has_shape(value: Any, shape: Shape) -> bool:  # noqa: ANN401 - any JSON value
    """Tell whether a JSON value has a shape. A boolean is no number."""
    if shape == "anything":
        return True
    if isinstance(value, bool):
        return shape == "flag"
    return isinstance(value, _TYPES[shape])


def shape_words(shape: Shape) -> str:
    """Return a shape in words for an error message."""
    return _SHAPE_WORDS.get(shape, "any value")


def _never(_: Any) -> bool:  # noqa: ANN401
    return False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row: a parameter of one client format."""

    name: str
    shape: Shape
    fate: Fate
    note: str
    """What it becomes on the other wire, or why not."""
    neutral: Sequence[Any] = ()
    """Values that equal leaving the parameter out on the other wire; `null` always does."""
    harmless: Callable[[Any], bool] = _never
    """Values of a refused parameter that do not change what the answer means: ignored with notice instead."""
    accepted: bool = True
    """False for a name that is documented but not a field of the body."""

    def is_neutral(self, value: Any) -> bool:  # noqa: ANN401
        """Tell whether leaving the parameter out says the same."""
        return value is None or any(value == same and isinstance(value, bool) == isinstance(same, bool) for same in self.neutral)


def _only_clears_thinking(value: Any) -> bool:  # noqa: ANN401
    """Old thinking is not sent to the other wire at all, so an edit that only clears thinking has nothing left to do."""
    edits = value.get("edits", []) if isinstance(value, dict) else None
    return isinstance(edits, list) and all(
        isinstance(edit, dict) and str(edit.get("type", "")).startswith("clear_thinking_") for edit in edits
    )


def _table(*rows: Parameter) -> Mapping[str, Parameter]:
    return MappingProxyType({row.name: row for row in rows})


_MAPPED, _CARRIED, _REFUSED, _IGNORED, _HANDLED = Fate.MAPPED, Fate.CARRIED, Fate.REFUSED, Fate.IGNORED, Fate.HANDLED
_SAMPLING: Final = "the Messages API has no such sampling control, and it changes the answer"
_ENGINE: Final = "a setting of one inference engine"
_CACHE: Final = "where and how long prompts are cached; the answer is the same"

_OPENAI_OWN: Final = (
    Parameter("messages", "list", _MAPPED, "messages; system and developer messages become `system`"),
    Parameter("model", "text", _CARRIED, "model"),
    Parameter("audio", "object", _REFUSED, "the Messages API gives no audio"),
    Parameter("frequency_penalty", "number", _REFUSED, _SAMPLING, (0,)),
    Parameter("function_call", "text or object", _MAPPED, "tool_choice (the deprecated form of OpenAI's tool_choice)"),
    Parameter("functions", "list", _MAPPED, "tools (the deprecated form of OpenAI's tools)", ([],)),
    Parameter("logit_bias", "object", _REFUSED, _SAMPLING, ({},)),
    Parameter("logprobs", "flag", _REFUSED, "the Messages API gives no log probabilities", (False,)),
    Parameter("max_completion_tokens", "whole", _MAPPED, "max_tokens"),
    Parameter("max_tokens", "whole", _MAPPED, "max_tokens; the smaller one where max_completion_tokens is there too"),
    Parameter("metadata", "object", _IGNORED, "labels for OpenAI's dashboard; the Messages API has none", ({},)),
    Parameter("modalities", "list", _REFUSED, "the Messages API gives text", (["text"], [])),
    Parameter("moderation", "object", _REFUSED, "a check that the client counts on, and the Messages API does not make"),
    Parameter("n", "whole", _REFUSED, "the Messages API gives one answer", (1,)),
    Parameter("parallel_tool_calls", "flag", _MAPPED, "tool_choice.disable_parallel_tool_use", (True,)),
    Parameter("prediction", "object", _IGNORED, "makes an answer faster, not different"),
    Parameter("presence_penalty", "number", _REFUSED, _SAMPLING, (0,)),
    Parameter("prompt_cache_key", "text", _IGNORED, _CACHE),
    Parameter("prompt_cache_options", "object", _IGNORED, _CACHE),
    Parameter("prompt_cache_retention", "text", _IGNORED, _CACHE),
    Parameter("reasoning_effort", "text", _MAPPED, "thinking, by the budgets in `wire.thinking`", ("none",)),
    Parameter(
        "response_format",
        "object",
        _MAPPED,
        "output_config.format (its name is a label); json_object is refused",
        ({"type": "text"},),
    ),
    Parameter("safety_identifier", "text", _MAPPED, "metadata.user_id: both serve the detection of abuse"),
    Parameter("seed", "whole", _IGNORED, "best effort at OpenAI too: any answer that may come without it may come with it"),
    Parameter("service_tier", "text", _REFUSED, "price and capacity of another provider", ("auto", "default")),
    Parameter("stop", "text or list", _MAPPED, "stop_sequences", ([],)),
    Parameter("store", "flag", _IGNORED, "keeps a copy at OpenAI; the answer is the same", (False,)),
    Parameter("stream", "flag", _CARRIED, "stream"),
    Parameter("stream_options", "object", _HANDLED, "include_usage is served by the encoder; obfuscation is not added"),
    Parameter("temperature", "number", _CARRIED, "temperature; its range is the provider's to judge"),
    Parameter("tool_choice", "text or object", _MAPPED, "tool_choice; allowed_tools leaves the allowed ones in `tools`"),
    Parameter("tools", "list", _MAPPED, "tools; custom tools (free text input) are refused", ([],)),
    Parameter("top_logprobs", "whole", _REFUSED, "the Messages API gives no log probabilities", (0,)),
    Parameter("top_p", "number", _CARRIED, "top_p"),
    Parameter("user", "text", _MAPPED, "metadata.user_id; ignored with notice where safety_identifier is there too"),
    Parameter(
        "verbosity",
        "text",
        _IGNORED,
        "how many words are made of the same answer; the Messages API has no such control",
        ("medium",),
    ),
    Parameter("web_search_options", "object", _REFUSED, "the search runs at the provider"),
)
"""The fields of the API itself: openai-python's CompletionCreateParams."""
_OPENAI_COMPATIBLE: Final = (
    Parameter("bad_words", "list", _REFUSED, _ENGINE, ([],)),
    Parameter("chat_template_kwargs", "object", _REFUSED, _ENGINE, ({},)),
    Parameter("documents", "list", _REFUSED, _ENGINE, ([],)),
    Parameter("enable_thinking", "flag", _REFUSED, _ENGINE),
    Parameter("guided_choice", "list", _REFUSED, _ENGINE),
    Parameter("guided_grammar", "text", _REFUSED, _ENGINE),
    Parameter("guided_json", "text or object", _REFUSED, _ENGINE),
    Parameter("guided_regex", "text", _REFUSED, _ENGINE),
    Parameter("ignore_eos", "flag", _REFUSED, _ENGINE, (False,)),
    Parameter("include_reasoning", "flag", _IGNORED, "whether reasoning is shown"),
    Parameter("length_penalty", "number", _REFUSED, _SAMPLING, (1,)),
    Parameter("min_p", "number", _REFUSED, _SAMPLING, (0,)),
    Parameter("min_tokens", "whole", _REFUSED, _SAMPLING, (0,)),
    Parameter("prompt_mode", "text", _REFUSED, _ENGINE),
    Parameter("random_seed", "whole", _IGNORED, "best effort, as `seed`"),
    Parameter("reasoning", "object", _REFUSED, "send reasoning_effort, which is understood"),
    Parameter("reasoning_format", "text", _IGNORED, "how reasoning is shown"),
    Parameter("repetition_penalty", "number", _REFUSED, _SAMPLING, (1,)),
    Parameter("safe_prompt", "flag", _REFUSED, _ENGINE, (False,)),
    Parameter("search_parameters", "object", _REFUSED, "the search runs at the provider"),
    Parameter("skip_special_tokens", "flag", _REFUSED, _ENGINE, (True,)),
    Parameter("stop_token_ids", "list", _REFUSED, _SAMPLING, ([],)),
    Parameter("structured_outputs", "object", _REFUSED, "send response_format, which is understood"),
    Parameter("thinking", "object", _MAPPED, "thinking, as it is; off where the history has tool calls without signed thinking"),
    Parameter("thinking_budget", "whole", _REFUSED, "send thinking or reasoning_effort, which are understood"),
    Parameter("top_a", "number", _REFUSED, _SAMPLING, (0,)),
    Parameter("top_k", "whole", _CARRIED, "top_k"),
    Parameter("typical_p", "number", _REFUSED, _SAMPLING, (1,)),
)
"""What OpenAI-compatible servers take beside it. Lists of models and of upstream providers are not among them."""

OPENAI_OWN: Final = frozenset(row.name for row in _OPENAI_OWN)
"""The names of the fields of OpenAI's own API."""
OPENAI: Final = _table(*_OPENAI_OWN, *_OPENAI_COMPATIBLE)
"""Parameters of `POST /v1/chat/completions`, and what becomes of them at an Anthropic backend."""

_STATE: Final = "state or machinery of the Anthropic API"
_HEADER: Final = "a header of the API, not a field of the body"

ANTHROPIC: Final = _table(
    Parameter("max_tokens", "whole", _CARRIED, "max_tokens"),
    Parameter("messages", "list", _MAPPED, "messages"),
    Parameter("model", "text", _CARRIED, "model"),
    Parameter("betas", "list", _REFUSED, _HEADER, accepted=False),
    Parameter("billing_policy", "object", _REFUSED, _STATE),
    Parameter("cache_control", "object", _IGNORED, _CACHE),
    Parameter("compaction", "object", _REFUSED, _STATE),
    Parameter("container", "text or object", _REFUSED, _STATE),
    Parameter(
        "context_management",
        "object",
        _REFUSED,
        "edits of the history at the Anthropic API; those that only clear thinking are ignored with notice",
        ({}, {"edits": []}),
        _only_clears_thinking,
    ),
    Parameter("diagnostics", "object", _IGNORED, "asks why a cache was missed; the answer is the same"),
    Parameter("fallback_credit_token", "text or object", _REFUSED, _STATE),
    Parameter("fallbacks", "anything", _REFUSED, "which models may be used is this server's configuration", accepted=False),
    Parameter("inference_geo", "text", _REFUSED, "where the Anthropic API computes"),
    Parameter("mcp_servers", "list", _REFUSED, "servers that the Anthropic API calls", ([],)),
    Parameter("metadata", "object", _MAPPED, "metadata.user_id becomes user; anything else is ignored with notice", ({},)),
    Parameter(
        "output_config",
        "object",
        _MAPPED,
        "reasoning_effort and response_format; task_budget is refused",
        ({},),
    ),
    Parameter("output_format", "object", _MAPPED, "response_format (the earlier form of output_config.format)"),
    Parameter("service_tier", "text", _REFUSED, "price and capacity of another provider", ("auto",)),
    Parameter("speed", "text", _IGNORED, "makes an answer faster, not different", ("standard",)),
    Parameter("stop_sequences", "list", _MAPPED, "stop", ([],)),
    Parameter("stream", "flag", _CARRIED, "stream"),
    Parameter("system", "text or list", _MAPPED, "a system message, the first one"),
    Parameter("temperature", "number", _CARRIED, "temperature"),
    Parameter("thinking", "object", _MAPPED, "reasoning_effort, by the budgets in `wire.thinking`", ({"type": "disabled"},)),
    Parameter("thread", "object", _REFUSED, _STATE),
    Parameter("tool_choice", "object", _MAPPED, "tool_choice and parallel_tool_calls"),
    Parameter("tools", "list", _MAPPED, "tools; tools that run at the Anthropic API are refused", ([],)),
    Parameter("top_k", "whole", _REFUSED, "OpenAI has no such sampling control; carried for a backend that takes extras"),
    Parameter("top_p", "number", _CARRIED, "top_p"),
    Parameter("user_profile_id", "text", _REFUSED, _HEADER, accepted=False),
    Parameter("workspace_id", "text", _REFUSED, _HEADER, accepted=False),
)
"""Parameters of `POST /v1/messages` (beta ones included), and what becomes of them at an OpenAI backend."""

_STORED: Final = "nothing is stored here; send the whole conversation as `input`"

RESPONSES: Final = _table(
    Parameter("background", "flag", _REFUSED, "nothing is stored here that an answer could be fetched from", (False,)),
    Parameter("client_metadata", "object", _IGNORED, "what a client says about itself to OpenAI (Codex)", ({},)),
    Parameter("context_management", "list", _REFUSED, "compaction runs at OpenAI", ([],)),
    Parameter("conversation", "text or object", _REFUSED, _STORED),
    Parameter(
        "include",
        "list",
        _MAPPED,
        "log probabilities become logprobs; encrypted reasoning is given where there is some; the rest is of OpenAI's tools",
        ([],),
    ),
    Parameter("input", "text or list", _MAPPED, "messages; consecutive items of the assistant become one message"),
    Parameter("instructions", "text", _MAPPED, "a system message, the first one"),
    Parameter("max_output_tokens", "whole", _MAPPED, "max_completion_tokens"),
    Parameter("max_tool_calls", "whole", _IGNORED, "bounds the calls of tools that run at OpenAI, and there are none"),
    Parameter("metadata", "object", _HANDLED, "labels of the response object, where the client finds them again"),
    Parameter("model", "text", _CARRIED, "model"),
    Parameter("moderation", "object", _REFUSED, "a check that the client counts on, and whose result has no place elsewhere"),
    Parameter("parallel_tool_calls", "flag", _MAPPED, "parallel_tool_calls, where there are tools", (True,)),
    Parameter("previous_response_id", "text", _REFUSED, _STORED),
    Parameter("prompt", "object", _REFUSED, "prompts are stored at OpenAI"),
    Parameter("prompt_cache_key", "text", _CARRIED, "prompt_cache_key"),
    Parameter("prompt_cache_options", "object", _CARRIED, "prompt_cache_options"),
    Parameter("prompt_cache_retention", "text", _CARRIED, "prompt_cache_retention"),
    Parameter(
        "reasoning",
        "object",
        _MAPPED,
        "reasoning_effort; a mode other than standard is refused; which summary is asked for is ignored with notice",
        ({},),
    ),
    Parameter("safety_identifier", "text", _CARRIED, "safety_identifier"),
    Parameter("service_tier", "text", _CARRIED, "service_tier"),
    Parameter("store", "flag", _REFUSED, "nothing is stored here; leave it out or send false", (False,)),
    Parameter("stream", "flag", _CARRIED, "stream"),
    Parameter("stream_options", "object", _HANDLED, "obfuscation is not added"),
    Parameter("temperature", "number", _CARRIED, "temperature"),
    Parameter("text", "object", _MAPPED, "response_format and verbosity", ({},)),
    Parameter("tool_choice", "text or object", _MAPPED, "tool_choice"),
    Parameter("tools", "list", _MAPPED, "tools; those that run at OpenAI are refused, web search is left out with notice", ([],)),
    Parameter("top_logprobs", "whole", _MAPPED, "logprobs and top_logprobs", (0,)),
    Parameter("top_p", "number", _CARRIED, "top_p"),
    Parameter(
        "truncation",
        "text",
        _IGNORED,
        "what is dropped from a conversation that is too long; here it is the provider's error",
        ("disabled",),
    ),
    Parameter("user", "text", _CARRIED, "user"),
)
"""Parameters of `POST /v1/responses`, and what becomes of them as parameters of chat completions."""

PARAMETERS: Final[Mapping[WireName, Mapping[str, Parameter]]] = MappingProxyType(
    {"openai": OPENAI, "anthropic": ANTHROPIC, "responses": RESPONSES}
)


def why_unknown(name: str, wire: WireName) -> str | None:
    """Return why a field is not accepted from a client of a wire, or None when it is."""
    row = PARAMETERS[wire].get(name)
    if row is not None and row.accepted:
        return None
    shown = name[:100]
    if row is not None:
        return f"{shown} is not accepted from clients: {row.note}"
    if is_control_name(name):
        return f"{shown} is not accepted from clients: it is for this server's configuration to say"
    return f"{shown} is not a parameter of this request that is known here"
