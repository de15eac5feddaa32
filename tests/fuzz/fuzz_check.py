"""What every answer has to be, whatever its provider sent: legal, ended, readable for the official SDKs, without the canary.

Strategy: the validators of `luthien_asgi.testing` hold an answer to its wire (`fuzz_legal`); the types of its standard fields are
checked here once more, one table a wire; the official SDKs' own accumulators have the last word. Each check returns a complaint,
or nothing.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from anthropic.lib.streaming._beta_messages import accumulate_event
from fuzz_drive import Case, Outcome
from fuzz_legal import illegal_body, illegal_stream
from fuzz_mutations import CANARY
from fuzz_policies import JUDGES, REWRITERS
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from luthien_asgi.reasoning_items import decode
from luthien_asgi.testing import Violation, accumulate_anthropic, accumulate_openai, sse_events, validate_body, validate_stream

__all__ = ["complaint", "difference"]

_MADE_UP: Final = re.compile(rb"(call|toolu|fc|ctc|msg|rs)_[0-9a-f]{24,}|completed_at.{,3}\d+")
_CUT: Final = re.compile(rb',"obfuscation":"\w*"|"sequence_number":\d+')
_SAID: Final = re.compile(rb'"(content|refusal|arguments|input|text|partial_json|delta)":"((?:[^"\\]|\\.)*)"')


def complaint(case: Case, outcome: Outcome) -> str | None:
    """Return what is wrong with an outcome, or None."""
    if outcome.escapes:
        return f"escape: {outcome.escapes[0]}"
    try:
        with warnings.catch_warnings():  # the SDKs' own, of types that they did not expect
            warnings.simplefilter("ignore")
            written = _checked(case, outcome)
    except Exception as error:  # whatever an SDK raises
        return f"illegal: {type(error).__name__}: {error}"
    if case.policy in JUDGES and CANARY in written and not _cut_by_blocks(outcome):
        return "leak: the canary passed a policy that lets none through"
    return None


def difference(case: Case, together: Outcome, apart: Outcome) -> str | None:
    """Return what tells runs from their chunks in two outcomes of one case, or None.

    Nothing may; only that a policy which rewrites runs may cut texts elsewhere, and let a padding leave with another one.
    """
    for what, of in _SIDES.items():
        one, other = of(together), of(apart)
        if what == "frames" and case.policy in REWRITERS:
            one, other = _without_cuts(one), _without_cuts(other)
        if one != other:
            return f"difference: {what}: {_from_there(one, other)} with runs, {_from_there(other, one)} without"
    return None


_SIDES: Final[Mapping[str, Callable[[Outcome], bytes]]] = {
    "frames": lambda outcome: _MADE_UP.sub(b"id", b"".join(outcome.frames)),
    "body": lambda outcome: _MADE_UP.sub(b"id", json.dumps(outcome.body).encode()),
    "error": lambda outcome: repr(outcome.error).encode(),
    "blocks": lambda outcome: "\n".join(outcome.judged).encode("utf-8", "backslashreplace"),
    "record": lambda outcome: "\n".join(outcome.record).encode("utf-8", "backslashreplace"),
}


def _without_cuts(frames: bytes) -> bytes:
    """Return frames with what was said in several, one like the other, in one."""
    merged: list[list[bytes]] = []
    for frame in frames.split(b"\n\n"):
        shape = _SAID.sub(b"", _CUT.sub(b"", frame))
        said = b"".join(text for _, text in _SAID.findall(frame))
        if merged and said and merged[-1][0] == shape:
            merged[-1].append(said)
        else:
            merged.append([shape, said])
    return b"\n".join(b"".join(pieces) for pieces in merged)


def _from_there(one: bytes, other: bytes) -> str:
    """Return what stands in one where it begins to differ from another."""
    same = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return repr(one[max(0, same - 30) : same + 60])


def _checked(case: Case, outcome: Outcome) -> str:
    """Return what reached the client, as one text. Raises what is wrong with it."""
    if outcome.body is None:
        return _stream_checked(case, b"".join(outcome.frames))
    said = _strict_json(json.dumps(outcome.body).encode())
    if wrong := illegal_body(case.client, said, backend=case.backend):
        raise ValueError(wrong)
    check = _BODIES[case.client] if outcome.error is None else _error_body
    check(said)
    return json.dumps(said) + _unsealed(said)


def _cut_by_blocks(outcome: Outcome) -> bool:
    """Tell whether only the client put the canary together: two wires join the texts of blocks that were judged apart."""
    frames = b"".join(outcome.frames)
    if b"response.created" in frames:  # whose later events repeat what the deltas were
        frames = b"".join(frame for frame in frames.split(b"\n\n") if b'"delta":' in frame)
    return CANARY.encode() not in frames and not any(CANARY in block for block in outcome.judged)


def _stream_checked(case: Case, data: bytes) -> str:
    """Return what reached the client of a stream, whole too."""
    client = case.client
    if wrong := illegal_stream(client, data, backend=case.backend):
        raise ValueError(wrong)
    said = [_strict_json(event.data.encode()) for event in sse_events(data) if event.data != "[DONE]"]
    if client == "responses":
        _responses_events(data, said)
        return data.decode() + _unsealed(said[-1].get("response", {}))
    if client == "openai":
        _openai_events(said)
        return data.decode() + json.dumps(accumulate_openai(data).body)
    # A model may write arguments that are no JSON, and be cut off in them: that is not the stream's fault.
    for event in said:
        if event["type"] == "content_block_delta" and event["delta"].get("type") == "input_json_delta":
            event["delta"]["partial_json"] = _written(event["delta"].get("partial_json"))
    _anthropic_events(said)
    rewritten = [b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in said]
    return data.decode() + json.dumps(accumulate_anthropic(b"".join(rewritten)).body)


def _written(fragment: Any) -> str:
    _require(isinstance(fragment, str), f"partial_json is {fragment!r:.80}")
    return ""


def _require(holds: object, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _strict_json(data: bytes) -> Any:
    """Parse as the strictest client does: no NaN, nothing that is no number in a double."""
    value = json.loads(data, parse_constant=_no_constant)
    _require(_finite(value), "a number that is none")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


# --- types -----------------------------------------------------------------------------------------------------------------


def _typed(holder: Any, where: str, **types: Any) -> None:
    _require(isinstance(holder, dict), f"{where} is no object: {holder!r:.80}")
    for name, expected in types.items():
        optional = isinstance(expected, tuple) and None in expected
        wanted = tuple(one for one in expected if one is not None) if isinstance(expected, tuple) else (expected,)
        value = holder.get(name)
        fits = (value is None and optional) or (isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool)))
        _require(fits, f"{where}.{name} is {value!r:.80}")


_OPTIONAL: Final = (str, None)
_LITELLMS: Final = frozenset({"thinking_blocks", "provider_specific_fields", "reasoning_items"})


def _openai_events(events: list[dict[str, Any]]) -> None:
    state: Any = ChatCompletionStreamState()
    for event in events:
        if "error" in event:
            _error_body(event)
            return
        _typed(event, "chunk", id=str, object=str, created=int, model=str, choices=list)
        for choice in event["choices"]:
            _typed(choice, "choice", index=int, delta=dict, finish_reason=_OPTIONAL)
            _message(choice["delta"], "delta")
            _require(_LITELLMS.isdisjoint(choice["delta"]), f"a field of LiteLLM's in {choice['delta']!r:.80}")
            _logprobs(choice.get("logprobs"))
        _openai_usage(event.get("usage"))
        state.handle_chunk(construct_type(type_=ChatCompletionChunk, value=event))


def _message(message: dict[str, Any], where: str) -> None:
    _typed(message, where, content=_OPTIONAL, refusal=_OPTIONAL, reasoning_content=_OPTIONAL, tool_calls=(list, None))
    _typed(message, where, role=_OPTIONAL, annotations=(list, None), audio=(dict, None))
    for call in message.get("tool_calls") or ():
        _typed(call, "call", id=_OPTIONAL, type=_OPTIONAL, function=(dict, None), custom=(dict, None))
        body = call.get("function") or call.get("custom")
        _typed(body, "call's body", name=_OPTIONAL, arguments=_OPTIONAL, input=_OPTIONAL)
    for annotation in message.get("annotations") or ():
        _typed(annotation, "annotation", type=_OPTIONAL)


def _logprobs(logprobs: Any) -> None:
    if logprobs is None:
        return
    _typed(logprobs, "logprobs", content=(list, None), refusal=(list, None))
    for token in [*(logprobs.get("content") or ()), *(logprobs.get("refusal") or ())]:
        _typed(token, "logprob", token=_OPTIONAL, bytes=(list, None), top_logprobs=(list, None))


def _openai_usage(usage: Any) -> None:
    if usage is not None:
        _typed(usage, "usage", prompt_tokens=int, completion_tokens=int, total_tokens=int)
        _typed(usage, "usage", prompt_tokens_details=(dict, None), completion_tokens_details=(dict, None))


def _openai_body(body: dict[str, Any]) -> None:
    _typed(body, "completion", id=str, object=str, created=int, model=str, choices=list)
    _require(body["choices"], "no choices")
    for choice in body["choices"]:
        _typed(choice, "choice", index=int, message=dict, finish_reason=str)
        _message(choice["message"], "message")
        _require(choice["message"].get("role") == "assistant", "a message without its role")
        for call in choice["message"].get("tool_calls") or ():
            _typed(call, "call", id=str, type=str)
        _logprobs(choice.get("logprobs"))
    _openai_usage(body.get("usage"))


_BLOCK_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "text": {"text": str, "citations": (list, None)},
    "thinking": {"thinking": str, "signature": str},
    "redacted_thinking": {"data": str},
    "tool_use": {"id": str, "name": str, "input": dict},
    "server_tool_use": {"id": str, "name": str, "input": (dict, None)},
    "mcp_tool_use": {"id": str, "name": str, "input": (dict, None)},
}
_DELTA_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "text_delta": {"text": str},
    "thinking_delta": {"thinking": str},
    "signature_delta": {"signature": str},
    "input_json_delta": {"partial_json": str},
    "citations_delta": {"citation": dict},
}


def _anthropic_events(events: list[dict[str, Any]]) -> None:
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        kind = event["type"]
        if kind == "error":
            _error_body(event)
            return
        if kind == "message_start":
            _typed(event["message"], "message", id=str, model=str, role=str, type=str, content=list, usage=dict)
            _typed(event["message"]["usage"], "usage", input_tokens=(int, None), output_tokens=(int, None))
        elif kind == "content_block_start":
            block = event["content_block"]
            _typed(block, "block", type=str, **_BLOCK_FIELDS.get(block["type"], {}))
        elif kind == "content_block_delta":
            _typed(event["delta"], "delta", type=str, **_DELTA_FIELDS.get(event["delta"]["type"], {}))
        elif kind == "message_delta":
            _typed(event["delta"], "delta", stop_reason=str, stop_sequence=_OPTIONAL)
            _typed(event["usage"], "usage", output_tokens=int, input_tokens=(int, None))
        if kind in _ACCUMULATED:
            snapshot = accumulate_event(
                event=event,
                current_snapshot=snapshot,
                json_bufs=buffers,
                request_headers={},  # type: ignore[arg-type]
            )


_ACCUMULATED: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"}
)


def _anthropic_body(body: dict[str, Any]) -> None:
    _typed(
        body, "message", id=str, type=str, role=str, model=str, content=list, stop_reason=str, stop_sequence=_OPTIONAL, usage=dict
    )
    _typed(body["usage"], "usage", input_tokens=(int, None), output_tokens=int)
    for block in body["content"]:
        _typed(block, "block", type=str, **_BLOCK_FIELDS.get(block["type"], {}))


def _responses_events(data: bytes, events: list[dict[str, Any]]) -> None:
    # Halves of a pair are one character for whoever adds up the text, which the events that repeat it show.
    if b"\\ud" not in data:
        _legal(validate_stream("responses", data))
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        if event["type"] == "error":
            _error_body(event)
            _require(event is events[-2], "an error that is not followed by the failed response alone")
            return
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))  # type: ignore[arg-type]


def _responses_body(body: dict[str, Any]) -> None:
    _legal(validate_body("responses", body))
    response: Any = construct_type(type_=Response, value=body)
    _typed({"text": response.output_text}, "response", text=str)


def _legal(found: list[Violation]) -> None:
    errors = [str(violation) for violation in found if violation.severity == "error"]
    _require(not errors, "; ".join(errors))


def _unsealed(response: Mapping[str, Any]) -> str:
    """Return what a client carries for the provider, as one text."""
    items = response.get("output") or ()
    return "".join(repr(decode(item.get("encrypted_content"))) for item in items if isinstance(item, dict))


def _error_body(body: dict[str, Any]) -> None:
    _typed(body, "error body", error=dict)
    _typed(body["error"], "error", type=_OPTIONAL, message=str)


_BODIES: Final[Mapping[str, Callable[[dict[str, Any]], None]]] = {
    "openai": _openai_body,
    "anthropic": _anthropic_body,
    "responses": _responses_body,
}
