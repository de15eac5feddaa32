"""Targets: bytes of a provider, in any cut, through a decoder, the executor and an encoder of every client format.

Strategy: the same driver and the same checks as for mutated streams (`fuzz_drive`, `fuzz_check`), so that a finding of one is a
case of the other. On top: whatever the packets are, the outcome is the same. A whole body is an answer that did not stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any, Final

from fuzz_cases import judged
from fuzz_check import difference
from fuzz_drive import CLIENTS, Case, Driver
from fuzz_policies import POLICIES
from fuzz_streams import load_streams
from guided_shapes import OPTION_BYTES, vary_json, vary_stream, with_options
from guided_target import Target

__all__ = ["TARGETS"]

_POLICIES: Final = tuple(POLICIES)
_ROOMS: Final = (10_000, 1, 2, 5)


@cache
def _driver() -> Driver:
    return Driver()


def case_of(backend: str, data: bytes) -> Case:
    """Return the case that an input stands for: client and form, policy, packets, room in the queues; then the stream."""
    client, policy, cut, room = data[:OPTION_BYTES].ljust(OPTION_BYTES, b"\0")
    return Case(
        backend=backend,
        client=CLIENTS[client % len(CLIENTS)],
        stream=client < 192,
        policy=_POLICIES[policy % len(_POLICIES)],
        packets=_packets(data[OPTION_BYTES:], cut),
        room=_ROOMS[room % len(_ROOMS)],
    )


def _packets(stream: bytes, cut: int) -> list[bytes]:
    """Cut a stream: at 0 not at all, at 1 after every event, at 2 after every byte of a short one, else at some places."""
    if cut == 0 or not stream:
        return [stream]
    if cut == 1:
        events = stream.split(b"\n\n")
        return [event + b"\n\n" for event in events[:-1]] + ([events[-1]] if events[-1] else [])
    if cut == 2 and len(stream) < 1000:
        return [stream[at : at + 1] for at in range(len(stream))]
    random = Random(cut)
    cuts = sorted({0, len(stream), *(random.randrange(len(stream)) for _ in range(cut % 16 + 1))})
    return [stream[begin:end] for begin, end in pairwise(cuts)]


def check_stream(backend: str, data: bytes) -> None:
    """Raise unless the stream is answered legally, with runs and without, and the same for another cut."""
    case, driver = case_of(backend, data), _driver()
    failure, _ = judged(driver, case)
    assert failure is None, str(failure)
    other = replace(case, packets=_packets(data[OPTION_BYTES:], 1 if data[2:3] == b"\0" else 0))
    wrong = difference(case, driver.run(other), driver.run(case))
    assert wrong is None, f"another cut: {wrong} ({case.client}, {case.policy})"


def check_body(backend: str, data: bytes) -> None:
    """Raise unless a provider's whole answer is answered legally."""
    failure, _ = judged(_driver(), replace(case_of(backend, data), whole=True))
    assert failure is None, str(failure)


_NAMES: Final[Sequence[str]] = (
    "id", "object", "created", "model", "choices", "index", "delta", "role", "content", "refusal", "reasoning_content",
    "reasoning", "tool_calls", "function", "name", "arguments", "custom", "input", "finish_reason", "stop", "length",
    "content_filter", "usage", "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens",
    "completion_tokens_details", "reasoning_tokens", "logprobs", "token", "bytes", "top_logprobs", "annotations", "url_citation",
    "audio", "error", "message", "code", "param", "type", "service_tier", "system_fingerprint", "reasoning_details", "images",
    "obfuscation", "provider_specific_fields", "thinking_blocks", "function_call", "x_groq", "citations", "assistant",
)  # fmt: skip
_ANTHROPIC_NAMES: Final[Sequence[str]] = (
    "type", "message_start", "message", "content_block_start", "content_block", "content_block_delta", "delta",
    "content_block_stop", "message_delta", "message_stop", "ping", "error", "index", "text", "text_delta", "input_json_delta",
    "partial_json", "thinking", "thinking_delta", "signature", "signature_delta", "redacted_thinking", "data", "tool_use",
    "server_tool_use", "web_search_tool_result", "mcp_tool_use", "mcp_tool_result", "citations_delta", "citation", "citations",
    "compaction", "compaction_delta", "id", "name", "input", "content", "tool_use_id", "is_error", "caller", "stop_reason",
    "stop_sequence", "end_turn", "max_tokens", "refusal", "pause_turn", "usage", "input_tokens", "output_tokens",
    "cache_read_input_tokens", "cache_creation", "model", "role", "assistant", "container", "context_management", "fallback",
)  # fmt: skip
_WORDS: Final = (
    b"data: ", b"event: ", b"\n\n", b"\r\n\r\n", b": ping\n\n", b"data: [DONE]\n\n", b"\xef\xbb\xbf", b"event: error\n",
    b"\\ud83d",
)  # fmt: skip
_LARGEST_SEED: Final = 6_000


def _seeds(wire: str) -> Iterable[bytes]:
    random = Random(0)
    for stream in load_streams():
        data = b"".join(event.encoded() for event in stream.events)
        if stream.wire == wire and len(data) <= _LARGEST_SEED:
            yield bytes(random.randrange(256) for _ in range(OPTION_BYTES)) + data


def _target(kind: str, backend: str, names: Sequence[str]) -> Target:
    stream: Any = kind == "stream"
    return Target(
        name=f"{backend}_{kind}",
        check=(lambda data: check_stream(backend, data)) if stream else (lambda data: check_body(backend, data)),
        seeds=lambda: _seeds(backend) if stream else (),
        vary=with_options(vary_stream(names) if stream else vary_json(names)),
        words=(*_WORDS, *(b'"%s"' % name.encode() for name in names)),
        seconds=5.0,
        per_byte=2e-3,
    )


TARGETS: Final = [
    _target(kind, backend, names)
    for kind in ("stream", "body")
    for backend, names in (("openai", _NAMES), ("anthropic", _ANTHROPIC_NAMES))
]
