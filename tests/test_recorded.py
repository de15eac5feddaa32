"""Every recorded provider stream, through a real LiteLLM, the middleware and a real server, to the official SDKs.

The oracle is the SDK itself: what it accumulates when it reads the recording from the provider directly.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest

from luthien_asgi import LiteLLMBackend, LuthienMiddleware, MemoryRecorder
from luthien_asgi.testing import ScriptedProvider, recording

pytestmark = pytest.mark.litellm

DEFAULT = Path(__file__).parents[2] / "shared" / "recorded"

ENDS_BETWEEN_FINISH_AND_ERROR: Final = {
    "openrouter/pai-stream-error.sse": "an error follows the finish reason: the error event comes instead of the finish",
}


def names(*folders: str) -> list[str]:
    root = Path(os.environ.get("LUTHIEN_RECORDED") or DEFAULT)
    found = [str(path.relative_to(root)) for folder in folders for path in sorted((root / folder).glob("*.*"))]
    return found or ["none"]


ANTHROPIC_NAMES = names("anthropic")
OPENAI_NAMES = names(
    "openai", "azure", "deepseek", "groq", "mistral", "openai-compat", "openrouter", "alibaba", "zai", "perplexity"
)
CORPUS: Final = Path(__file__).parent / "corpus" / "openai"
OPENAI_NAMES += [str(path) for path in [*sorted(CORPUS.glob("provider_*.sse")), CORPUS / "choices_tools_logprobs.sse"]]

STANDARD: Final = {
    "chunk": {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"},
    "choice": {"index", "delta", "finish_reason", "logprobs"},
    "delta": {"role", "content", "refusal", "tool_calls", "function_call", "reasoning_content"},
}


class Stage:
    """A provider that replays what it is told, and the middleware in front of it."""

    def __init__(self, provider: ScriptedProvider, serve: Any) -> None:
        self.provider = provider
        self.recorder = MemoryRecorder()
        models = [
            {"model_name": "o", "litellm_params": {"model": "openai/o", "api_base": provider.url + "/v1", "api_key": "k"}},
            {"model_name": "a", "litellm_params": {"model": "anthropic/a", "api_base": provider.url, "api_key": "k"}},
        ]
        backend = LiteLLMBackend(model_list=models)
        self.url = serve(LuthienMiddleware(nothing, backend=backend, recorder=self.recorder, auth=None), lifespan="on")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app with a lifespan, in which the middleware closes its connections, and nothing else."""
    assert scope["type"] == "lifespan", scope["path"]
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


@pytest.fixture(scope="module")
def stage(recorded: Path, serve: Any) -> Iterator[Stage]:
    provider = ScriptedProvider([])
    provider.start_in_thread()
    try:
        yield Stage(provider, serve)
    finally:
        provider.stop()


def replay(stage: Stage, recorded: Path, name: str) -> None:
    stage.provider.script = recording(recorded / name)


@pytest.mark.lets_pass("empty-text")
@pytest.mark.parametrize("name", ANTHROPIC_NAMES)
@pytest.mark.parametrize("stream", [True, False])
def test_an_anthropic_client_gets_the_anthropic_recording(name: str, stream: bool, stage: Stage, recorded: Path) -> None:
    """Block for block, with usage, stop_reason and id, streamed and not."""
    replay(stage, recorded, name)
    expected = accumulate_anthropic(stage.provider.url)
    got = accumulate_anthropic(stage.url) if stream else create_anthropic(stage.url)
    assert got == expected


def anthropic_request() -> dict[str, Any]:
    return {"model": "a", "max_tokens": 64, "messages": [{"role": "user", "content": "x"}]}


def accumulate_anthropic(url: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0)
        with client, client.beta.messages.stream(**anthropic_request()) as stream:
            return cleaned(stream.get_final_message().model_dump(mode="json", exclude_unset=True, warnings=False))


def create_anthropic(url: str) -> dict[str, Any]:
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
        message = client.beta.messages.create(**anthropic_request())
        return cleaned(message.model_dump(mode="json", exclude_unset=True, warnings=False))


def cleaned(value: Any) -> Any:
    """Drop what the SDK itself adds while it streams."""
    if isinstance(value, dict):
        return {k: cleaned(v) for k, v in value.items() if not k.startswith("__") and k != "parsed_output" and v is not None}
    return [cleaned(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", OPENAI_NAMES, ids=lambda name: "/".join(Path(name).parts[-2:]))
@pytest.mark.parametrize("stream", [True, False])
def test_an_openai_client_gets_the_openai_recording(name: str, stream: bool, stage: Stage, recorded: Path) -> None:
    """Text, tool calls, reasoning, refusal, finish reasons and usage; nothing raised that the recording does not raise."""
    replay(stage, recorded, name)
    expected = read_openai(stage.provider.url + "/v1")
    if not stream:
        got = create_openai(stage.url + "/v1")
        if "error" in expected:
            assert "error" in got
            return
    else:
        got = read_openai(stage.url + "/v1")
    if name in ENDS_BETWEEN_FINISH_AND_ERROR:
        expected["choices"][0]["finish"] = None
    assert got == expected
    if stream:
        if name not in ENDS_BETWEEN_FINISH_AND_ERROR:
            assert own_fields(stage.url + "/v1") == own_fields(stage.provider.url + "/v1")
        assert sdk_accepts(stage.url + "/v1") or "error" in expected


def openai_request() -> dict[str, Any]:
    return {"model": "o", "messages": [{"role": "user", "content": "x"}]}


def read_openai(url: str) -> dict[str, Any]:
    """Read a stream with the SDK, chunk by chunk, and add up what it says."""
    answer: dict[str, Any] = {"choices": {}, "usage": None}
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        try:
            for chunk in client.chat.completions.create(**openai_request(), stream=True, stream_options={"include_usage": True}):
                add_chunk(answer, chunk.model_dump(mode="json", exclude_unset=True, warnings=False))
        except openai.APIError as error:
            answer["error"] = type(error).__name__
    return without_indices(answer)


def add_chunk(answer: dict[str, Any], chunk: dict[str, Any]) -> None:
    answer["usage"] = usage_of(chunk) or answer["usage"]
    for choice in chunk.get("choices") or []:
        delta = choice.get("delta") or {}
        kept = answer["choices"].setdefault(
            choice.get("index", 0), {"text": "", "reasoning": "", "details": "", "refusal": "", "calls": []}
        )
        kept["text"] += content_of(delta)
        kept["reasoning"] += delta.get("reasoning_content") or delta.get("reasoning") or ""
        kept["details"] += details_of(delta)
        kept["refusal"] += delta.get("refusal") or ""
        kept["finish"] = choice.get("finish_reason") or kept.get("finish")
        for call in delta.get("tool_calls") or []:
            add_call(kept["calls"], call)


def without_indices(answer: dict[str, Any]) -> dict[str, Any]:
    """Calls are compared by position: an index that does not begin at 0 breaks the SDK's accumulator, and is counted anew."""
    for choice in answer["choices"].values():
        details = choice.pop("details")
        choice["reasoning"] = choice["reasoning"] or details
        choice["calls"] = [{k: v for k, v in call.items() if k != "said"} for call in choice["calls"]]
    return answer


def content_of(delta: dict[str, Any]) -> str:
    content = delta.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def details_of(delta: dict[str, Any]) -> str:
    return "".join(entry.get("text") or "" for entry in delta.get("reasoning_details") or [])


def add_call(calls: list[dict[str, Any]], call: dict[str, Any]) -> None:
    known = next((c for c in calls if c["said"] == call["index"] and call.get("id") in {None, "", c["id"]}), None)
    if known is None:
        known = {"said": call["index"], "id": call["id"], "name": "", "arguments": ""}
        calls.append(known)
    known["name"] = known["name"] or call["function"].get("name") or ""
    known["arguments"] += call["function"].get("arguments") or ""


def usage_of(chunk: dict[str, Any]) -> dict[str, Any] | None:
    in_choice = next((choice["usage"] for choice in chunk.get("choices") or [] if choice.get("usage")), None)
    usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or in_choice  # Groq's place, and Moonshot's
    return {k: usage[k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")} if usage else None


def own_fields(url: str) -> dict[str, list[Any]]:
    """Read a stream with the SDK, and return the values of each field that is not one of every provider's, in their order."""
    found: dict[str, list[Any]] = {}

    def add(level: str, fields: dict[str, Any]) -> None:
        for name in fields.keys() - STANDARD[level]:
            value = fields[name]
            # Lists without an index come at once: the SDK could not add them up.
            found.setdefault(f"{level}.{name}", []).extend(value if isinstance(value, list) else [value])

    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client, suppress(openai.APIError):
        for chunk in client.chat.completions.create(**openai_request(), stream=True, stream_options={"include_usage": True}):
            said = chunk.model_dump(mode="json", exclude_unset=True, exclude_none=True, warnings=False)
            add("chunk", said)
            for choice in said["choices"]:
                add("choice", choice)
                add("delta", choice.get("delta") or {})
    return found


def create_openai(url: str) -> dict[str, Any]:
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        try:
            completion = client.chat.completions.create(**openai_request()).model_dump(mode="json", exclude_unset=True)
        except openai.APIError as error:
            return {"error": type(error).__name__}
    answer: dict[str, Any] = {"choices": {}, "usage": None}
    for choice in completion["choices"]:
        calls = [{**call, "index": place} for place, call in enumerate(choice["message"].get("tool_calls") or [])]
        choice["delta"] = {**choice["message"], "tool_calls": calls}
    add_chunk(answer, completion)
    return without_indices(answer)


def sdk_accepts(url: str) -> bool:
    """Tell whether the SDK's accumulator takes the stream."""
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        try:
            with client.chat.completions.stream(**openai_request()) as stream:
                for _ in stream:
                    pass
        except Exception:  # whatever the accumulator raises
            return False
    return True


@pytest.fixture(autouse=True)
def renumbered(request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["name"] == "none":
        pytest.skip("no recorded streams: set LUTHIEN_RECORDED to their folder")
