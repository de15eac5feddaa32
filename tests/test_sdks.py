"""The official SDKs against a real uvicorn, a real LiteLLM and the scripted provider: all four pairs of client and backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import anthropic
import openai
import pytest

from luthien_asgi import Block, BlockKind, Deny, Hold, JsonlRecorder, LiteLLMBackend, LuthienMiddleware, Policy, StreamContext
from luthien_asgi.policy import Verdict
from luthien_asgi.testing import Answer, Redacted, ScriptedProvider, Text, Thinking, ToolCall, Usage, tool_loop_script

pytestmark = pytest.mark.litellm

MODELS = ["gpt", "claude"]
TOOL = {"name": "get_weather", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
OPENAI_TOOL = {"type": "function", "function": {"name": TOOL["name"], "parameters": TOOL["schema"]}}
ANTHROPIC_TOOL = {"name": TOOL["name"], "input_schema": TOOL["schema"]}


class DenyBash(Policy):
    """Lets no bash call through."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("The shell is off limits.") if block.name == "bash" else None


class Stage:
    def __init__(self, provider: ScriptedProvider, serve: Any, records: Path) -> None:
        self.provider = provider
        models = [
            {
                "model_name": "gpt",
                "litellm_params": {"model": "openai/gpt-4o", "api_base": provider.url + "/v1", "api_key": "sk-server-o"},
            },
            {
                "model_name": "claude",
                "litellm_params": {"model": "anthropic/claude-x", "api_base": provider.url, "api_key": "sk-server-a"},
            },
        ]
        app = LuthienMiddleware(
            nothing, backend=LiteLLMBackend(model_list=models), policy=DenyBash(), recorder=JsonlRecorder(str(records)), auth=None
        )
        self.url = serve(app, lifespan="on")

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key="sk-client", max_retries=0)

    def anthropic(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url, api_key="sk-client", max_retries=0)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app with a lifespan and nothing else."""
    assert scope["type"] == "lifespan", scope["path"]
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


@pytest.fixture(scope="module")
def stage(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ScriptedProvider([]) as provider:
        yield Stage(provider, serve, tmp_path_factory.mktemp("records") / "transactions.jsonl")


def ask_openai(stage: Stage, model: str, messages: list[Any], *, stream: bool, **more: Any) -> Any:
    with stage.openai() as client:
        if not stream:
            return client.chat.completions.create(model=model, messages=messages, **more)
        with client.chat.completions.stream(
            model=model, messages=messages, stream_options={"include_usage": True}, **more
        ) as events:
            for _ in events:
                pass
            return events.get_final_completion()


def ask_anthropic(stage: Stage, model: str, messages: list[Any], *, stream: bool, **more: Any) -> Any:
    with stage.anthropic() as client:
        if not stream:
            return client.messages.create(model=model, messages=messages, max_tokens=500, **more)
        with client.messages.stream(model=model, messages=messages, max_tokens=500, **more) as events:
            return events.get_final_message()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_openai_completes_a_two_turn_tool_loop(stage: Stage, model: str, stream: bool) -> None:
    """The call arrives whole, the history that the SDK stored is accepted by a strict provider, the second turn goes on."""
    stage.provider.script = tool_loop_script()
    messages: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    first = ask_openai(stage, model, messages, stream=stream, tools=[OPENAI_TOOL]).choices[0]
    [call] = first.message.tool_calls
    assert (first.finish_reason, call.function.name, json.loads(call.function.arguments)) == (
        "tool_calls",
        "get_weather",
        {"city": "Paris"},
    )
    messages += [first.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = ask_openai(stage, model, messages, stream=stream, tools=[OPENAI_TOOL])
    assert "sunny" in second.choices[0].message.content
    assert second.choices[0].finish_reason == "stop"
    assert second.usage.completion_tokens > 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_anthropic_completes_a_two_turn_tool_loop(stage: Stage, model: str, stream: bool) -> None:
    """The same for an Anthropic client: text, then tool_use, then the result is quoted."""
    stage.provider.script = tool_loop_script()
    messages: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    first = ask_anthropic(stage, model, messages, stream=stream, tools=[ANTHROPIC_TOOL])
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["text", "tool_use"]
    call = first.content[1]
    assert (call.name, call.input) == ("get_weather", {"city": "Paris"})
    messages += [{"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]}]
    messages += [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}]
    second = ask_anthropic(stage, model, messages, stream=stream, tools=[ANTHROPIC_TOOL])
    assert "sunny" in second.content[0].text
    assert second.stop_reason == "end_turn"
    assert second.usage.output_tokens > 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_denied_call_leaves_its_message_and_the_call_that_survives(stage: Stage, model: str, stream: bool) -> None:
    """Both clients, both backends: message before the surviving call, no trace of the denied one, usage real."""
    stage.provider.script = Answer(
        Text("Cleaning."),
        ToolCall("call_1", "bash", {"command": "rm -rf /"}),
        ToolCall("call_2", "ls", {"path": "."}),
        usage=Usage(input=12, output=34),
    )
    messages: list[Any] = [{"role": "user", "content": "Clean up."}]
    completion = ask_openai(stage, model, messages, stream=stream)
    message = completion.choices[0].message
    assert "off limits" in message.content
    assert [call.function.name for call in message.tool_calls] == ["ls"]
    assert completion.choices[0].finish_reason == "tool_calls"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (12, 34)
    answer = ask_anthropic(stage, model, messages, stream=stream)
    assert [block.type for block in answer.content] == ["text", "text", "tool_use"]
    assert "off limits" in answer.content[1].text
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 34)
    assert "rm -rf" not in answer.model_dump_json() + completion.model_dump_json()


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_arrives_bit_exact_on_its_own_wire(stage: Stage, stream: bool) -> None:
    """Thinking, its signature and redacted thinking are what the provider wrote."""
    stage.provider.script = Answer(Thinking("Hm", "m.", signature="c2ln"), Redacted("cmVk"), Text("Hi"))
    answer = ask_anthropic(stage, "claude", [{"role": "user", "content": "x"}], stream=stream)
    kept = [block.model_dump(exclude_none=True) for block in answer.content]
    assert kept[0] == {"type": "thinking", "thinking": "Hmm.", "signature": "c2ln"}
    assert kept[1] == {"type": "redacted_thinking", "data": "cmVk"}
    assert kept[2]["text"] == "Hi"


@pytest.mark.parametrize("stream", [True, False])
def test_an_openai_client_gets_thinking_as_reasoning_content(stage: Stage, stream: bool) -> None:
    """Thinking of an Anthropic backend is reasoning_content, once."""
    stage.provider.script = Answer(Thinking("Hm", "m.", signature="c2ln"), Text("Hi"))
    message = ask_openai(stage, "claude", [{"role": "user", "content": "x"}], stream=stream).choices[0].message
    assert message.content == "Hi"
    assert message.model_extra["reasoning_content"] == "Hmm."


def test_the_record_holds_the_whole_transaction(serve: Any, tmp_path: Path) -> None:
    """Request, sent body, backend and final blocks, verdicts, usage, timings and ending, and no credential."""
    records = tmp_path / "transactions.jsonl"
    answer = Answer(Text("Hi"), ToolCall("c", "bash", {"command": "ls"}), usage=Usage(input=3, output=4))
    servers = type(serve)()
    with ScriptedProvider(answer) as provider:
        ask_anthropic(Stage(provider, servers, records), "gpt", [{"role": "user", "content": "remember me"}], stream=True)
        servers.close()  # its shutdown writes what is not written yet
    begin, end = map(json.loads, records.read_text().splitlines())
    assert begin["id"] == end["id"]
    assert begin["request"]["messages"][0]["content"] == "remember me"
    assert "remember me" in json.dumps(end["sent"])
    assert [block["kind"] for block in end["backend_blocks"]] == ["text", "tool_call"]
    assert [block["kind"] for block in end["final_blocks"]] == ["text", "text"]
    assert [verdict["verdict"] for verdict in end["verdicts"]] == ["deny"]
    assert end["usage"]["prompt_tokens"] == 3
    assert end["ending"] == "completed"
    assert end["timings"]["end"] >= end["timings"]["first_byte"] > 0
    text = records.read_text()
    assert "sk-server" not in text
    assert "sk-client" not in text


@pytest.mark.parametrize("model", MODELS)
def test_two_streams_reuse_no_answer_of_each_other(stage: Stage, model: str) -> None:
    """Concurrent requests get the answer to their own question."""
    from concurrent.futures import ThreadPoolExecutor

    stage.provider.script = lambda request: Answer(Text("echo ", json.dumps(request.body["messages"][-1]["content"])))

    def ask(number: int) -> bool:
        answer = ask_anthropic(stage, model, [{"role": "user", "content": f"number-{number}-"}], stream=bool(number % 2))
        return f"number-{number}-" in answer.content[0].text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(24)))
