"""pydantic-ai's own tool loop, for each case that comes as a line of JSON on standard input; a line of JSON answers it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


def model_of(case: dict[str, Any]) -> Model:
    if case["api"] == "anthropic":
        # With its own limit, the model's longest answer, the client streams whatever it is asked.
        settings = AnthropicModelSettings(max_tokens=4096)
        provider = AnthropicProvider(base_url=case["url"], api_key=case["key"])
        return AnthropicModel(case["model"], provider=provider, settings=settings)
    kind = OpenAIChatModel if case["api"] == "openai-chat" else OpenAIResponsesModel
    return kind(case["model"], provider=OpenAIProvider(base_url=case["url"] + "/v1", api_key=case["key"]))


async def run(case: dict[str, Any]) -> str:
    agent = Agent(model_of(case))

    @agent.tool_plain
    def run_command(command: str) -> str:
        """Run a shell command and return its output."""
        return subprocess.run(command, shell=True, cwd=case["folder"], capture_output=True, text=True, check=True).stdout  # noqa: S602

    if not case["stream"]:
        return (await agent.run(case["prompt"])).output
    async with agent.run_stream_events(case["prompt"]) as events:
        async for event in events:
            if event.event_kind == "agent_run_result":
                return str(event.result.output)
    return "the run had no result"


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        try:
            answer = {"text": asyncio.run(run(case))}
        except Exception as error:
            answer = {"error": repr(error)}
        sys.stdout.write(json.dumps({"name": case["name"], **answer}) + "\n")
        sys.stdout.flush()


main()
