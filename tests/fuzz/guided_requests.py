"""Targets: a client's raw bytes through the request parser, the views that policies have, and the conversions to both wires.

Strategy: a request is refused with a `RequestError` that makes a good error body, or it is taken; then nothing that reads, edits,
converts or counts it may fail in any other way, and what would be sent is JSON that our own parser of that wire takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fuzz_legal import illegal_body, illegal_stream
from guided_shapes import OPTION_BYTES, vary_json, with_options
from guided_target import Target

from luthien_asgi import ChatRequest, jsontext
from luthien_asgi.backend.chunks import build
from luthien_asgi.backend.foreign import check_foreign
from luthien_asgi.context import PolicyContext
from luthien_asgi.errors import RequestError
from luthien_asgi.policies import DenyTools, GuardShell, LimitOutput, Redact, ReplaceText
from luthien_asgi.policy import Deny
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.wire.anthropic import AnthropicWire
from luthien_asgi.wire.conversion import Converted
from luthien_asgi.wire.estimate import estimate_tokens
from luthien_asgi.wire.openai import OpenAIWire
from luthien_asgi.wire.parameters import PARAMETERS
from luthien_asgi.wire.responses import ResponsesWire
from luthien_asgi.wire.thought_signatures import for_backend
from luthien_asgi.wire.to_anthropic import to_anthropic
from luthien_asgi.wire.to_openai import to_openai

__all__ = ["TARGETS"]

_CORPUS: Final = Path(__file__).parents[1] / "corpus" / "requests"
_WIRES: Final[Mapping[str, Any]] = {"openai": OpenAIWire(), "anthropic": AnthropicWire(), "responses": ResponsesWire()}
_LIMITS: Final = Limits(body_bytes=1 << 20, messages=60, parts=200, tools=60)
_SETTINGS: Final = StreamSettings()
_STATUS: Final = frozenset({400, 413})
_POLICIES: Final = (
    Redact(where="both", key="k" * 16),
    ReplaceText(replacements=[["e", "EE"]]),
    DenyTools(names=["bash"]),
    DenyTools(names=["bash"], server_tools="strip"),
    GuardShell(),
    LimitOutput(max_tokens=5),
)
_Conversion = Callable[[ChatRequest], Converted]


def check_request(wire: str, data: bytes) -> None:
    """Raise unless the bytes are refused well, or taken and read, edited, judged, converted and answered without a fault."""
    options, body = data[:OPTION_BYTES].ljust(OPTION_BYTES, b"\0"), data[OPTION_BYTES:]
    request = _parsed(_WIRES[wire].parse_request, wire, body)
    if request is not None:
        _read(request)
        _convert(request, options[0])
        _judge(request, options[1])
        _answer(request)


def check_count(wire: str, data: bytes) -> None:
    """Raise unless a request to count tokens is refused well, or counted and converted."""
    request = _parsed(_WIRES[wire].parse_count, wire, data[OPTION_BYTES:])
    if request is not None:
        assert estimate_tokens(request) >= 0
        _convert(request, data[0])


def _parsed(parse: Callable[..., ChatRequest], wire: str, body: bytes) -> ChatRequest | None:
    try:
        return parse(body, limits=_LIMITS)
    except RequestError as error:
        _check_refusal(wire, error)
        return None


def _check_refusal(wire: str, error: RequestError) -> None:
    assert error.status in _STATUS, f"refused with {error.status}"
    assert len(error.message) < 1000, f"a refusal of {len(error.message)} characters"
    assert "Traceback" not in error.message
    said = json.loads(jsontext.dumps(_WIRES[wire].error_body(error, request_id="r")))
    assert isinstance(said["error"]["message"], str)
    assert said["error"].get("param") is None or isinstance(said["error"]["param"], str)


def _read(request: ChatRequest) -> None:
    assert isinstance(request.model, str)
    assert request.choices >= 1
    assert request.max_tokens is None or isinstance(request.max_tokens, int)
    assert estimate_tokens(request) >= 0
    blocks, tools = request.blocks(), request.tools()
    assert request.has_tools == bool(tools)
    before = jsontext.dumps(request.body)
    for block in blocks:
        assert isinstance(block.text, str)
        try:
            edited = request.with_text(block, block.text + "x")
        except ValueError:
            continue
        assert len(edited.blocks()) == len(blocks), f"an edit of {block.kind} changed how many blocks there are"
    jsontext.dumps(request.with_instructions("more").with_model("other").body)
    assert jsontext.dumps(request.body) == before, "an edit changed the request itself"


_TO_OPENAI: Final[tuple[Mapping[str, bool], ...]] = (
    {},
    {"extras": True, "custom_tools": False},
    {"keep_thinking": True, "keep_cache_control": True},
)


def _conversions(option: int) -> Iterator[tuple[str, _Conversion]]:
    flags = _TO_OPENAI[option % len(_TO_OPENAI)]
    yield "openai", lambda request: to_openai(request, **flags)
    adaptive = bool(option & 128)
    yield "anthropic", lambda request: to_anthropic(request, default_max_tokens=64, adaptive_thinking=adaptive)


def _convert(request: ChatRequest, option: int) -> None:
    before = jsontext.dumps(request.body)
    for wire, convert in _conversions(option):
        try:
            converted = convert(request)
        except RequestError as error:
            _check_refusal(request.wire, error)
            continue
        _check_converted(request, wire, converted)
    assert jsontext.dumps(request.body) == before, "a conversion changed the request itself"


def _check_converted(request: ChatRequest, wire: str, converted: Converted) -> None:
    params = converted.params
    sent = jsontext.dumps({"model": "m", **params})
    assert all(isinstance(name, str) for name in converted.ignored)
    assert len(set(converted.ignored)) == len(converted.ignored)
    if wire == "openai":
        messages = for_backend(params.get("messages") or (), signed=True)
        jsontext.dumps(for_backend(messages, signed=False))
        try:
            check_foreign(params)
        except RequestError as error:
            _check_refusal(request.wire, error)
    if wire != request.wire:
        _check_acceptable(wire, sent)


def _check_acceptable(wire: str, sent: bytes) -> None:
    """Raise unless our own parser of the wire takes what would be sent on it, what is inside a client's own objects apart."""
    try:
        parse = _WIRES[wire].parse_count if wire == "anthropic" else _WIRES[wire].parse_request
        parse(sent, limits=Limits(json_depth=200))
    except RequestError as error:
        if "." not in (error.param or ""):
            msg = f"converted to what {wire} refuses: {error.message}"
            raise AssertionError(msg) from None


def _judge(request: ChatRequest, option: int) -> None:
    ctx = PolicyContext(transaction_id="t1", request=request)
    said: Any = _POLICIES[option % len(_POLICIES)].on_request(request, ctx)
    assert said is None or isinstance(said, ChatRequest | Deny)
    if isinstance(said, ChatRequest):
        jsontext.dumps(said.body)
        list(said.blocks())


def _answer(request: ChatRequest) -> None:
    """Raise unless an answer to the request, which some formats repeat in it, is legal."""
    if request.wire == "openai" and request.stream:
        request = request.with_field("stream_options", {"include_usage": True})
    encoder = _WIRES[request.wire].encoder(request, settings=_SETTINGS, id="t1", created=7)
    frames = [frame for chunk in _ANSWER for frame in encoder.feed(chunk)] + encoder.finish()
    if request.stream:
        wrong = illegal_stream(request.wire, b"".join(frames), backend="")
    else:
        wrong = illegal_body(request.wire, json.loads(jsontext.dumps(encoder.body())), backend="")
    assert not wrong, wrong


def _chunk(delta: Mapping[str, Any], finish: str | None) -> Any:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return build({"id": "c", "created": 7, "model": "m", "choices": [choice]})


_USAGE: Final = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_ANSWER: Final = (
    _chunk({"content": "a"}, None),
    _chunk({}, "stop"),
    build({"id": "c", "created": 7, "model": "m", "choices": [], "usage": _USAGE}),
)


_INNER: Final = (
    "type", "role", "content", "text", "name", "id", "user", "assistant", "system", "developer", "tool", "function", "tool_calls",
    "arguments", "tool_call_id", "image_url", "url", "detail", "file", "file_data", "input_audio", "data", "format", "refusal",
    "json_schema", "schema", "strict", "parameters", "properties", "$ref", "$defs", "custom", "grammar", "allowed_tools", "mode",
    "auto", "required", "none", "low", "high", "cache_control", "ephemeral", "ttl", "tool_use", "tool_result", "tool_use_id",
    "is_error", "input", "input_schema", "image", "document", "source", "base64", "media_type", "thinking", "signature",
    "redacted_thinking", "budget_tokens", "enabled", "adaptive", "disabled", "search_result", "citations", "title", "context",
    "server_tool_use", "web_search_20250305", "mcp_servers", "message", "input_text", "output_text", "input_image", "input_file",
    "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning", "summary",
    "summary_text",
    "encrypted_content", "call_id", "output", "namespace", "tools", "item_reference", "local_shell_call", "include",
    "reasoning.encrypted_content", "effort", "verbosity", "prompt", "conversation", "thinking_blocks", "function_call",
)  # fmt: skip


def _seeds(wire: str) -> Iterable[bytes]:
    for path in sorted((_CORPUS / wire).glob("*.json")):
        yield b"\0" * OPTION_BYTES + path.read_bytes()


def _target(name: str, wire: str, check: Callable[[str, bytes], None]) -> Target:
    names = (*PARAMETERS[wire], *_INNER)  # type: ignore[index]  # the three names are the table's
    return Target(
        name=name,
        check=lambda data: check(wire, data),
        seeds=lambda: _seeds(wire),
        vary=with_options(vary_json(names)),
        words=[b'"%s"' % word.encode() for word in names],
        longest=16_384,
        seconds=3.0,
        per_byte=1e-3,
    )


TARGETS: Final = [
    _target("openai_request", "openai", check_request),
    _target("anthropic_request", "anthropic", check_request),
    _target("responses_request", "responses", check_request),
    _target("count_request", "anthropic", check_count),
]
