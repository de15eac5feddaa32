"""Every name of an attribute, event and bucket that the telemetry uses, and what a transaction's values are called under them.

The names follow the OpenTelemetry GenAI conventions, which are in development and will change: so they stand in one place. What
the conventions have no name for is under `luthien.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.context import ObservabilityContext
from luthien_asgi.recorder import End, VerdictRecord

__all__ = ["backend_attributes", "report_end", "usage_attributes"]

TRANSACTION: Final = "luthien.transaction"
TRANSACTION_ID: Final = "luthien.transaction.id"
ENDING: Final = "luthien.ending"
POLICY_ACTION: Final = "luthien.policy.action"
"""The event of one verdict; each also counts in `luthien.policy.actions`."""
POLICY_ABANDONED: Final = "luthien.policy.abandoned"
"""The event of a hook that was given up, because it did not end when it was cancelled; each counts under the same name."""
LOOP_BLOCK: Final = "luthien.loop.block"
"""The event of a standstill of the event loop; each also counts in `luthien.loop.blocks`."""
OPERATION: Final = "gen_ai.operation.name"
ERROR_TYPE: Final = "error.type"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

CALL_DIMENSIONS: Final = (OPERATION, "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model", ERROR_TYPE)
ACTION_DIMENSIONS: Final = (
    "luthien.policy.name",
    "luthien.policy.hook",
    "luthien.policy.verdict",
    "luthien.policy.action",
    "luthien.policy.mode",
    "luthien.block.type",
)
HOOK_DIMENSIONS: Final = ("luthien.policy.name", "luthien.policy.hook")
CONTENT: Final = frozenset(
    {"messages", "message", "content", "text", "arguments", "prompt", "completion", "system_instructions", "definitions"}
    | {"reason", "body", "request", "headers", "authorization", "api_key", "credential", "stop_sequences", "stacktrace"}
)
"""Last parts of attribute names that carry content or credentials; the conventions make such attributes opt-in."""
SECONDS: Final = tuple(0.01 * 2**power for power in range(14))
TOKENS: Final = tuple(4**power for power in range(14))
"""Bucket boundaries of the GenAI conventions: 0.01 to 81.92 s, and 1 to 67108864 tokens."""


def backend_attributes(*, provider: str, model: str, stream: bool, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the attributes of the backend call's span, which is named `chat <model>`; `body` is the request as sent."""
    attributes: dict[str, Any] = {OPERATION: "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model}
    if stream:
        attributes["gen_ai.request.stream"] = True
    given = body or {}
    for name in ("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed"):
        if isinstance(value := given.get(name), int | float):
            attributes[f"gen_ai.request.{name}"] = value
    return attributes


def usage_attributes(usage: Mapping[str, Any] | None) -> dict[str, int]:
    """Return usage (OpenAI's field names: `prompt_tokens` includes cached ones) under the names of the GenAI conventions."""
    given = usage or {}
    prompt, completion = _details(given, "prompt_tokens_details"), _details(given, "completion_tokens_details")
    found = {
        INPUT_TOKENS: given.get("prompt_tokens"),
        OUTPUT_TOKENS: given.get("completion_tokens"),
        "gen_ai.usage.cache_read.input_tokens": prompt.get("cached_tokens"),
        "gen_ai.usage.cache_write.input_tokens": prompt.get("cache_creation_tokens"),
        "gen_ai.usage.reasoning.output_tokens": completion.get("reasoning_tokens"),
    }
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, Mapping) else {}


def report_end(obs: ObservabilityContext, end: End) -> None:
    """Tell what a transaction's record knows and end its span: usage, finish reasons, one event a verdict, the ending."""
    for name, value in usage_attributes(end.usage).items():
        obs.set(name, value)
    if end.decoder:
        obs.set("luthien.decoder", end.decoder)
    obs.set("http.response.status_code", end.status)
    if end.unchecked:
        obs.set("luthien.policy.unchecked", ", ".join(end.unchecked))
    if end.samples:
        obs.set("luthien.samples.dropped", len(end.samples))
    for verdict in end.verdicts:
        obs.event(POLICY_ACTION, _verdict_attributes(verdict))
    error = None if end.error is None else str(end.error.get("type") or "error")
    obs.end(end.ending, error=error)


def _verdict_attributes(verdict: VerdictRecord) -> dict[str, Any]:
    return {
        "luthien.policy.name": verdict.policy,
        "luthien.policy.hook": verdict.hook,
        "luthien.policy.verdict": verdict.verdict,
        "luthien.policy.action": verdict.action,
        "luthien.policy.mode": verdict.mode,
        "luthien.block.type": verdict.kind or None,
        "luthien.policy.seconds": verdict.seconds,
    }
