"""Mutated streams: a slice of what `python tests/fuzz/run.py` runs at length, and every defect that it ever found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import pytest
from fuzz_cases import judged, make_case
from fuzz_drive import CLIENTS, Case, Driver
from fuzz_mutations import CANARY, plant
from fuzz_policies import POLICIES
from fuzz_streams import Event, load_streams

_SECONDS: Final = 30.0
"""After that no further case is begun: a slow machine runs fewer cases, and none fails for it."""
_COUNT: Final = 3_000
_SLICES: Final = 10


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver()
    yield made
    made.close()


@pytest.mark.parametrize("part", range(_SLICES))
def test_a_mutated_stream_is_answered_legally(part: int, driver: Driver) -> None:
    """No illegal frame, no exception but an `ApiError`, no hang, no leak; the same cases every time."""
    streams, until = load_streams(), time.monotonic() + _SECONDS / _SLICES
    for number in range(part, _COUNT, _SLICES):
        failure, _ = judged(driver, make_case(streams, 0, number))
        assert failure is None, f"case 0:{number}: {failure}"
        if time.monotonic() > until:
            break


def test_the_canary_is_planted_in_blocks_only() -> None:
    """What an event is says its data: a reason to stop is no content, whatever the event is named."""
    named = [Event("content_block_delta", STOP), Event("message_delta", delta(type="text_delta", text="a"))]
    for seed in range(20):
        stop, *texts = plant(named, Random(seed), [])
        assert stop == named[0]
        assert CANARY in "".join(event.data["delta"]["text"] for event in texts)


def test_a_case_is_its_seed_and_number() -> None:
    """The same numbers give the same bytes: a failure can be looked at again."""
    streams = load_streams()
    assert make_case(streams, 3, 14) == make_case(load_streams(), 3, 14)
    assert make_case(streams, 3, 14) != make_case(streams, 3, 15)


def chat(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": list(choices), **fields}


def says(index: int = 0, finish: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}


END = chat(says(finish="stop"))
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CALL = {"index": 0, "function": {"arguments": "{}"}}

OPENAI: Final[dict[str, list[Any]]] = {
    "logprobs that are no list": [chat(says(content="a", logprobs={"content": {"token": "a"}})), END],
    "a logprob that is no object": [chat(says(content="a", logprobs={"content": ["a"]})), END],
    "a token that is no text": [chat(says(content="a", logprobs={"content": [{"token": {"type": "text"}}]})), END],
    "bytes that are no list": [chat(says(content="a", logprobs={"content": [{"token": "a", "bytes": {}}]})), END],
    "a further list of logprobs that is none": [chat(says(content="a", logprobs={"text": 1})), END],
    "an annotation that is no object": [chat(says(content="a", annotations=[["x"]])), END],
    "only choice 2, which a policy ends": [chat(says(2, content="CANARY-7f3a91")), chat(says(2, finish="stop"))],
    "only choice 3": [chat(says(3, content="a")), chat(says(3, finish="stop"))],
    "a choice beyond those asked for": [chat(says(7, content="a")), chat(says(7, finish="stop")), END],
    "a choice beyond all bounds": [chat(says(2**30, content="a")), chat(says(2**30, finish="stop"))],
    "thinking after the finish": [chat(says(content="a")), END, chat(says(reasoning_content="late"))],
    "text after the finish": [chat(says(content="a")), END, chat(says(content="late"))],
    "a detail of the usage that is no number": [END, chat(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": "x"}})],
    "a detail of the usage that is an object": [
        END,
        chat(usage={**USAGE, "completion_tokens_details": {"reasoning_tokens": {}}}),
    ],
    "a call that is never named": [chat(says(tool_calls=[CALL])), chat(says(finish="tool_calls"))],
    "an error whose message is no text": [chat(says(content="a")), {"error": {"message": -1, "type": ["x"]}}],
    "a list of objects that goes on with a number": [
        chat(says(reasoning_details=[{"type": "reasoning.text", "text": "a", "index": 0}])),
        chat(says(reasoning_details=[1])),
        chat(says(content="a")),
        END,
    ],
    "a call's list of numbers that goes on with objects": [
        chat(says(tool_calls=[{**CALL, "id": "c", "function": {"name": "f", "arguments": "", "x": [1]}, "y": [1]}])),
        *[chat(says(tool_calls=[{**CALL, "function": {"x": [{"index": 0}]}, "y": [{"index": 0}]}]))] * 2,
        chat(says(finish="tool_calls")),
    ],
    "an error event with an answer in it": [("error", chat(says(content="CANARY-7f3a91")))],
}

START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 1}},
}
STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
DONE = [STOP, {"type": "message_stop"}]


def block(index: int = 0, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def over(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def message(**fields: Any) -> dict[str, Any]:
    return {**START, "message": {**START["message"], **fields}}


THINKING = block(type="thinking", thinking="", signature="")
SIGNED = delta(type="signature_delta", signature="c2ln")
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}

ANTHROPIC: Final[dict[str, list[Any]]] = {
    "a usage that is text": [message(usage="x"), *DONE],
    "a count that is a list": [message(usage={"input_tokens": []}), *DONE],
    "a type that is a list": [message(type=["x"], role={"x": 1}), *DONE],
    "a last usage that is text": [START, {**STOP, "usage": "x"}, DONE[1]],
    "a last count that is a list": [START, {**STOP, "usage": {"output_tokens": [9]}}, DONE[1]],
    "detailed counts that are null": [
        message(usage={"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": None}}),
        {**STOP, "usage": {"output_tokens": 2, "server_tool_use": {"web_search_requests": None}}},
        DONE[1],
    ],
    "a server tool's input that is null": [START, block(type="server_tool_use", id="s1", name="f", input=None), over(), *DONE],
    "an error in the end of a good answer": [START, {**STOP, "error": "x"}, DONE[1]],
    "a last usage without counts": [START, {**STOP, "usage": {"service_tier": "standard"}}, DONE[1]],
    "a stop sequence that is a number": [START, {**STOP, "delta": {"stop_reason": "end_turn", "stop_sequence": 1}}, DONE[1]],
    "a block without a type": [START, block(text="x"), over(), *DONE],
    "arguments that are a number": [START, block(**TOOL), delta(type="input_json_delta", partial_json=0), over(), *DONE],
    "a server tool's arguments that are an object": [
        START, block(type="server_tool_use", id="srvtoolu_1", name="f", input={}),
        delta(type="input_json_delta", partial_json={}), over(), *DONE,
    ],
    "a server tool without an id": [START, block(type="server_tool_use", name="f", input={}), over(), *DONE],
    "a fallback to nobody": [START, block(type="fallback", **{"from": {"model": "m"}}), over(), *DONE],
    "text in an MCP call": [
        START, block(type="mcp_tool_use", id="m1", name="f", input={}), delta(type="text_delta", text="x"), over(), *DONE,
    ],
    "thinking after its signature": [START, THINKING, SIGNED, delta(type="thinking_delta", thinking="x"), over(), *DONE],
    "two signatures": [START, THINKING, SIGNED, SIGNED, over(), *DONE],
    "a signature before the signature": [
        START, block(type="thinking", thinking="", signature="CANARY-7f3a91"), SIGNED, over(), *DONE,
    ],
    "a signature with more beside it": [START, THINKING, {**SIGNED, "further": []}, over(), *DONE],
    "a block that begins in another": [
        START, block(type="text", text=""), delta(type="text_delta", text="x"), block(1, **TOOL), over(0), over(1), *DONE,
    ],
    "a citation that is text": [START, block(type="text", text=""), delta(type="citations_delta", citation="x"), over(), *DONE],
    "a condensed history in a text": [
        START, block(type="text", text="a"), delta(type="compaction_delta", content="x"), over(), *DONE,
    ],
    "citations in thinking": [START, THINKING, delta(type="citations_delta", citation={"type": "x"}), SIGNED, over(), *DONE],
    "arguments in a result": [
        START, block(type="web_search_tool_result", tool_use_id="s1", content=[]),
        delta(type="input_json_delta", partial_json="{}"), over(), *DONE,
    ],
    "a delta of the future in redacted thinking": [
        START, block(type="redacted_thinking", data="x"), delta(type="newest_delta", n=1), over(), *DONE,
    ],
    "a delta of the future after the signature": [START, THINKING, SIGNED, delta(type="newest_delta", n=1), over(), *DONE],
    "a delta of the future with a text that is none": [
        START, block(type="text", text="a"), delta(type="text", text={"a": 1}, citations=5), over(), *DONE,
    ],
    "a delta of the future with a name and an id": [
        START, block(**TOOL), delta(type="newest_delta", id=5, name="g", input=[]), over(), *DONE,
    ],
    "an input of no tokens": [message(usage={"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}), *DONE],
    "a text delta with arguments": [
        START, block(type="text", text=""), delta(type="text_delta", text="x", partial_json=-1), over(), *DONE,
    ],
    "an estimate that is text": [
        START, THINKING, delta(type="thinking_delta", thinking="x", estimated_tokens="x"), SIGNED, over(), *DONE,
    ],
    "a server's name that is an object": [
        START, block(type="mcp_tool_use", id="m1", name="f", input={}, server_name={"a": 1}), over(), *DONE,
    ],
    "citations that are a number": [START, block(type="text", text="", citations=5), over(), *DONE],
    "an error whose message is an object": [START, {"type": "error", "error": {"type": "api_error", "message": {"a": 1}}}],
    "an error event with an answer in it": [("error", {"message": {"text": "CANARY-7f3a91"}})],
}  # fmt: skip


def framed(event: Any) -> bytes:
    name, data = event if isinstance(event, tuple) else (event.get("type", ""), event)
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


FOUND: Final = [("openai", what) for what in OPENAI] + [("anthropic", what) for what in ANTHROPIC]


@pytest.mark.parametrize(("backend", "what"), FOUND)
def test_what_was_found_stays_found(backend: str, what: str, driver: Driver) -> None:
    """Streams that once broke a client, the order of events or our own code, with every client and every policy."""
    events = (OPENAI if backend == "openai" else ANTHROPIC)[what]
    packets = [framed(event) for event in events] + ([b"data: [DONE]\n\n"] if backend == "openai" else [])
    for client in CLIENTS:
        for stream in (True, False):
            for policy in POLICIES:
                case = Case(backend=backend, client=client, stream=stream, policy=policy, packets=packets, trail=[what])
                failure, _ = judged(driver, case)
                assert failure is None, str(failure)
