"""A tool loop with langchain's chat models, for each case that comes as a line of JSON on standard input; a line answers it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


def model_of(case: dict[str, Any]) -> BaseChatModel:
    if case["api"] == "anthropic":
        return ChatAnthropic(model=case["model"], base_url=case["url"], api_key=case["key"], max_retries=0)
    responses = case["api"] == "openai-responses"
    return ChatOpenAI(
        model=case["model"], base_url=case["url"] + "/v1", api_key=case["key"], use_responses_api=responses, max_retries=0,
        **({"store": False, "include": ["reasoning.encrypted_content"]} if responses else {}),
    )  # fmt: skip


def run(case: dict[str, Any]) -> str:
    @tool
    def run_command(command: str) -> str:
        """Run a shell command and return its output."""
        return subprocess.run(command, shell=True, cwd=case["folder"], capture_output=True, text=True, check=True).stdout  # noqa: S602

    model = model_of(case).bind_tools([run_command])
    messages: list[Any] = [HumanMessage(case["prompt"])]
    while True:
        answer = _ask(model, messages, stream=case["stream"])
        messages.append(answer)
        if not answer.tool_calls:
            return answer.text
        messages += [run_command.invoke(call) for call in answer.tool_calls]


def _ask(model: Any, messages: list[Any], *, stream: bool) -> AIMessage:
    if not stream:
        return model.invoke(messages)
    whole = None
    for chunk in model.stream(messages):
        whole = chunk if whole is None else whole + chunk
    return whole


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        try:
            answer = {"text": run(case)}
        except Exception as error:
            answer = {"error": repr(error)}
        sys.stdout.write(json.dumps({"name": case["name"], **answer}) + "\n")
        sys.stdout.flush()


main()
