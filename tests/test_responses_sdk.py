"""The official SDK's Responses client against a real uvicorn, a real LiteLLM and the scripted provider, over both backends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx
import openai
import pydantic
import pytest

from luthien_asgi import (
    Block,
    BlockKind,
    ChatRequest,
    Deny,
    Hold,
    LiteLLMBackend,
    LuthienMiddleware,
    Policy,
    PolicyContext,
    StreamContext,
)
from luthien_asgi.policies import ReplaceText
from luthien_asgi.policy import Verdict
from luthien_asgi.testing import (
    Answer,
    Failure,
    RawStream,
    Redacted,
    ScriptedProvider,
    Text,
    Thinking,
    ToolCall,
    Usage,
    check_history,
    tool_loop_script,
)

pytestmark = pytest.mark.litellm

MODELS = ["gpt", "claude"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Applies a patch."}
SPACE = {
    "type": "namespace",
    "name": "agents",
    "description": "Others.",
    "tools": [{**WEATHER, "name": name} for name in ("ask", "stop")],
}
QUESTION = {"role": "user", "content": "Weather in Paris?"}


class Guard(Policy):
    """Lets no bash call through and no secret out."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    async def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest | Deny:
        blocks = request.blocks()
        if any("forbidden" in block.text for block in blocks):
            return Deny("Not here.")
        return request.with_texts([(block, block.text.replace("secret", "****")) for block in blocks if "secret" in block.text])

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("The shell is off limits.") if block.name in {"bash", "agents__stop"} else None


class Stage:
    def __init__(self, provider: ScriptedProvider, serve: Any, policy: Policy) -> None:
        self.provider = provider
        base = {"gpt": ("openai/gpt-4o", provider.url + "/v1"), "claude": ("anthropic/claude-x", provider.url)}
        models = [
            {"model_name": name, "litellm_params": {"model": model, "api_base": url, "api_key": "sk-server"}}
            for name, (model, url) in base.items()
        ]
        backend = LiteLLMBackend(model_list=models)
        app = LuthienMiddleware(nothing, backend=backend, policy=policy, auth=None)
        self.url = serve(app, lifespan="on")

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key="sk-client", max_retries=0)

    def ask(self, model: str, given: Any, *, stream: bool, **more: Any) -> Any:
        with self.client() as client:
            if not stream:
                return client.responses.create(model=model, input=given, store=False, **more)
            with client.responses.stream(model=model, input=given, store=False, **more) as events:
                numbers = [event.sequence_number for event in events]
                assert numbers == list(range(len(numbers)))
                return events.get_final_response()

    def sent(self) -> dict[str, Any]:
        """The body of the last request at the provider."""
        return dict(self.provider.requests[-1].body)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app with a lifespan and nothing else."""
    assert scope["type"] == "lifespan", scope["path"]
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


@pytest.fixture(scope="module")
def stage(serve: Any) -> Iterator[Stage]:
    with ScriptedProvider([]) as provider:
        yield Stage(provider, serve, Guard())


def output(call: Any, text: str, kind: str = "function_call_output") -> dict[str, Any]:
    return {"type": kind, "call_id": call.call_id, "output": text}


def calls(response: Any) -> list[Any]:
    return [item for item in response.output if item.type.endswith("_call")]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_two_turn_tool_loop(stage: Stage, model: str, stream: bool) -> None:
    """The call arrives whole, what the SDK stored is accepted by a strict provider, the second turn goes on."""
    stage.provider.script = tool_loop_script()
    history: list[Any] = [QUESTION]
    first = stage.ask(model, history, stream=stream, tools=[WEATHER], instructions="Be brief.")
    [call] = calls(first)
    assert (first.status, first.output_text, call.name) == ("completed", "Let me look.", "get_weather")
    assert json.loads(call.arguments) == {"city": "Paris"}
    assert "Be brief." in json.dumps(stage.sent())
    second = stage.ask(model, [*history, *first.output, output(call, "sunny")], stream=stream, tools=[WEATHER])
    assert second.output_text == "The tool said: sunny"
    assert (second.usage.input_tokens, second.usage.output_tokens) == (11, 7)
    assert second.store is False


@pytest.mark.parametrize("stream", [True, False])
def test_signed_thinking_comes_back_to_its_provider_bit_by_bit(stage: Stage, stream: bool) -> None:
    """Two tool turns with thinking: a strict provider would refuse the second without the first one's thinking."""
    thinking = Thinking("Hm", "m.", signature="c2ln")
    script = [
        Answer(thinking, Redacted("cmVk"), Text("Let me."), ToolCall("call_1", "get_weather", {"city": "Paris"})),
        Answer(Text("Sunny.")),
    ]
    stage.provider.script = lambda request: checked(request, script[len(results(request.body))])
    more: dict[str, Any] = {"tools": [WEATHER], "reasoning": {"effort": "high", "summary": "auto"}}
    first = stage.ask("claude", [QUESTION], stream=stream, **more)
    assert [item.type for item in first.output] == ["reasoning", "reasoning", "message", "function_call"]
    assert first.output[0].summary[0].text == "Hmm."
    second = stage.ask("claude", [QUESTION, *first.output, output(calls(first)[0], "sunny")], stream=stream, **more)
    assert second.output_text == "Sunny."
    body = stage.sent()
    assert body["messages"][1]["content"][:2] == [
        {"type": "thinking", "thinking": "Hmm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "cmVk"},
    ]
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 4096}


def checked(request: Any, answer: Answer) -> Answer | Failure:
    complaint = check_history(request.wire, request.body)
    return Failure(400, None, complaint) if complaint else answer


def results(body: Any) -> list[Any]:
    blocks = [block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]]
    return [block for block in blocks if block["type"] == "tool_result"]


def custom_stream() -> RawStream:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    call = {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "apply_patch", "input": ""}}
    more = [{"index": 0, "custom": {"input": text}} for text in ("*** Begin", ' "x"')]
    deltas = [{"role": "assistant", "content": None}, *({"tool_calls": [said]} for said in (call, *more)), {}]
    chunks = [{"index": 0, "delta": delta, "finish_reason": None if delta else "tool_calls"} for delta in deltas]
    events = [json.dumps({**head, "choices": [choice]}) for choice in chunks]
    return RawStream([f"data: {event}\n\n".encode() for event in (*events, "[DONE]")])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_two_turn_loop_with_a_custom_tool(stage: Stage, model: str, stream: bool) -> None:
    """Free text on both sides; a model that has no custom tools is offered a function, and the client never sees it."""
    free = '*** Begin "x"'
    called: Any = custom_stream() if model == "gpt" else Answer(ToolCall("call_1", "apply_patch", {"input": free}, cuts=(4, 15)))
    stage.provider.script = lambda _: called
    first = stage.ask(model, "Patch it.", stream=stream, tools=[PATCH])
    offered = stage.sent()["tools"]
    assert [tool.get("type", "function") for tool in offered] == (["custom"] if model == "gpt" else ["function"])
    [call] = calls(first)
    assert (call.type, call.name, call.input) == ("custom_tool_call", "apply_patch", free)
    stage.provider.script = lambda request: checked(request, Answer(Text("Done.")))
    history = [{"role": "user", "content": "Patch it."}, *first.output, output(call, "ok", "custom_tool_call_output")]
    assert stage.ask(model, history, stream=stream, tools=[PATCH]).output_text == "Done."
    assert free in json.dumps(stage.sent(), ensure_ascii=False).replace("\\\\", "\\").replace('\\"', '"')


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_in_a_namespace_is_called_by_its_own_name(stage: Stage, model: str, stream: bool) -> None:
    """The model and the policies know one name, the client two."""
    stage.provider.script = Answer(ToolCall("call_0", "agents__stop"), ToolCall("call_1", "agents__ask", {"city": "Paris"}))
    first = stage.ask(model, [QUESTION], stream=stream, tools=[SPACE])
    [call] = calls(first)
    assert (call.name, call.namespace) == ("ask", "agents")
    stage.provider.script = lambda request: checked(request, Answer(Text("Done.")))
    assert stage.ask(model, [QUESTION, *first.output, output(call, "ok")], stream=stream, tools=[SPACE]).output_text == "Done."


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_denied_call_leaves_its_message_and_the_call_that_survives(stage: Stage, model: str, stream: bool) -> None:
    """No trace of the denied one, usage real, and the conversation goes on."""
    bad, good = ToolCall("call_1", "bash", {"command": "rm -rf /"}), ToolCall("call_2", "get_weather", {"city": "Paris"})
    stage.provider.script = Answer(Text("Cleaning."), bad, good, usage=Usage(input=12, output=34))
    first = stage.ask(model, [QUESTION], stream=stream, tools=[WEATHER])
    assert "off limits" in first.output_text
    assert [call.name for call in calls(first)] == ["get_weather"]
    assert "rm -rf" not in first.model_dump_json()
    assert (first.usage.input_tokens, first.usage.output_tokens, first.status) == (12, 34, "completed")
    stage.provider.script = lambda request: checked(request, Answer(Text("Well.")))
    history = [QUESTION, *first.output, output(calls(first)[0], "sunny")]
    assert stage.ask(model, history, stream=stream, tools=[WEATHER]).output_text == "Well."


@pytest.mark.parametrize("model", MODELS)
def test_a_policy_sees_and_edits_every_place_of_the_request(stage: Stage, model: str) -> None:
    """Instructions, messages, arguments, free text and results: none of the secret reaches the provider."""
    stage.provider.script = Answer(Text("ok"))
    items = [
        {"role": "developer", "content": "secret 1"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "secret 2"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "secret 3", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":"secret 4"}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "secret 5"},
        {"type": "function_call_output", "call_id": "c1", "output": "secret 6"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "secret 7"}]},
    ]
    assert stage.ask(model, items, stream=False, instructions="secret 0").output_text == "ok"
    sent = json.dumps(stage.sent())
    assert "secret" not in sent
    assert [f"**** {number}" in sent for number in range(8)] == [True] * 8


@pytest.mark.parametrize("stream", [True, False])
def test_text_is_replaced_wherever_it_was_cut(serve: Any, stream: bool) -> None:
    """A policy for text does on this route what it does on the others."""
    with ScriptedProvider(Answer(Text("hel", "lo wor", "ld"))) as provider:
        replacing = Stage(provider, serve, ReplaceText(replacements=[("hello", "bye")]))
        for model in MODELS:
            assert replacing.ask(model, "x", stream=stream).output_text == "bye world"


class Weather(pydantic.BaseModel):
    city: str


@pytest.mark.parametrize("model", MODELS)
def test_a_structured_answer_is_parsed(stage: Stage, model: str) -> None:
    """`responses.parse` sends a schema, which either provider gets in its own words."""
    stage.provider.script = Answer(Text('{"city":', '"Paris"}'))
    with stage.client() as client:
        parsed = client.responses.parse(model=model, input="Where?", text_format=Weather)
    assert parsed.output_parsed == Weather(city="Paris")
    sent = stage.sent()
    schema = sent["response_format"]["json_schema"] if model == "gpt" else sent["output_config"]["format"]
    assert schema["schema"]["properties"] == {"city": {"title": "City", "type": "string"}}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_is_too_long_is_incomplete(stage: Stage, model: str, stream: bool) -> None:
    """The reason is in the response, as the API has it."""
    stage.provider.script = Answer(Text("long"), finish="max_tokens" if model == "claude" else "length")
    with stage.client() as client:
        response: Any = client.responses.create(model=model, input="x", max_output_tokens=20, stream=stream)
        if stream:
            *_, last = response
            assert last.type == "response.incomplete"
            response = last.response
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("model", MODELS)
def test_what_is_not_served_is_an_error_that_the_sdk_understands(stage: Stage, model: str) -> None:
    """400, 403 and the provider's 429 with its delay, each with the fields of OpenAI's errors."""
    stage.provider.script = Failure(429, None, "slow down", headers={"retry-after": "7"})
    with stage.client() as client:
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model=model, input="x", previous_response_id="resp_1")
        assert (refused.value.param, refused.value.type) == ("previous_response_id", "invalid_request_error")
        assert refused.value.request_id
        with pytest.raises(openai.PermissionDeniedError, match="Not here"):
            client.responses.create(model=model, input="forbidden")
        with pytest.raises(openai.RateLimitError) as limited:
            client.responses.create(model=model, input="x")
        assert limited.value.response.headers["retry-after"] == "7"
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="nobody", input="x")


def test_what_was_left_out_is_in_a_header(stage: Stage) -> None:
    """Names of ours, as on the other routes."""
    stage.provider.script = Answer(Text("ok"))
    reasoning = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "gAAAA"}
    body = {"model": "gpt", "input": [reasoning, QUESTION], "tools": [{"type": "web_search"}], "client_metadata": {"a": "b"}}
    response = httpx.post(stage.url + "/v1/responses", json=body, trust_env=False)
    assert response.status_code == 200
    assert response.headers["x-luthien-ignored"] == "client_metadata, input[].reasoning, tools[].web_search"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b'{"model":"gpt","input":' + b"[" * 5_000,
        b'{"model":"gpt","input":[' + b'{"role":"user","content":[' * 500 + b"]}" * 500 + b"]}",
        json.dumps({"model": "gpt", "input": [QUESTION] * 100_000}).encode(),
        json.dumps({"model": "gpt", "input": "x", "tools": [WEATHER] * 10_000}).encode(),
        json.dumps({"model": "gpt", "input": [{"type": "reasoning", "summary": [{}] * 10}]}).encode(),
        json.dumps({"model": "gpt", "input": [{"type": "function_call"}]}).encode(),
        json.dumps({"model": "gpt", "input": "x", "api_base": "http://elsewhere"}).encode(),
        json.dumps({"model": "gpt", "input": "x", "text": {"format": {"type": "json_schema"}}}).encode(),
    ],
    ids=range(10),
)
def test_hostile_bodies_are_refused_in_the_shape_of_the_api(stage: Stage, content: bytes) -> None:
    """Always a 400, never a 500, and nothing is called."""
    asked = len(stage.provider.requests)
    response = httpx.post(
        stage.url + "/v1/responses", content=content, headers={"content-type": "application/json"}, trust_env=False
    )
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(stage.provider.requests) == asked
