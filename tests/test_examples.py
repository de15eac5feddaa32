"""Every example does what its docstring says: it is run against the scripted provider, through the real LiteLLM."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import httpx
import pytest

from luthien_asgi import BackendError, Chain, Escalate, Governed, JsonlRecorder, LuthienMiddleware
from luthien_asgi.config import load
from luthien_asgi.policies import DenyTools, ReplaceText
from luthien_asgi.server import create_app
from luthien_asgi.testing import (
    Answer,
    ASGIDriver,
    ScriptedBackend,
    ScriptedProvider,
    ToolCall,
    accumulate_anthropic,
    accumulate_openai,
    chunks,
    run_policy,
)

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
FILES: Final = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())
KEY: Final = {"authorization": "Bearer client-key"}
PYTHON: Final = sys.executable
START_SECONDS: Final = 60.0


def loaded(name: str) -> ModuleType:
    """Import an example as its own file."""
    spec = importlib.util.spec_from_file_location(name.replace(".", "_"), EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedProvider]:
    """A provider that the examples find in their environment."""
    async with ScriptedProvider(Answer("foo is ", "a word", ToolCall("c1", "bash", {"command": "rm -rf /"}))) as scripted:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{scripted.url}/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", scripted.url)
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            monkeypatch.setenv(name, "provider-key")
        monkeypatch.setenv("LUTHIEN_CLIENT_KEY", "client-key")
        yield scripted


async def asked(driver: ASGIDriver, model: str, *, path: str = "/v1/chat/completions") -> str:
    """Return the text that an OpenAI client gets, streamed."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "What is foo?"}]}
    fetched = await driver.fetch("POST", path, json=body, headers=KEY)
    assert fetched.status == 200, fetched.body
    return str(accumulate_openai(fetched.body).body["choices"][0]["message"]["content"])


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_short_and_says_what_it_needs_to(name: str) -> None:
    """At most 60 lines, with how to run it, how to call it, and the trap."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    for part in ("curl", "The trap"):
        assert part in text
    assert re.search("Run it:|Try it|Use it", text)


@pytest.mark.litellm
async def test_starlette_app(provider: ScriptedProvider) -> None:
    """The gateway's answer has the CORS header, and the app's own route answers."""
    driver = ASGIDriver(loaded("starlette_app").app, within=START_SECONDS)
    async with driver.lifespan():
        assert await asked(driver, "fast") == "bar is a word"
        assert (await driver.fetch("GET", "/")).body == b"This is the app."
        body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
        fetched = await driver.fetch("POST", "/v1/chat/completions", json=body, headers={**KEY, "origin": "https://a.example"})
    assert fetched.headers["access-control-allow-origin"] == "*"
    assert provider.requests[0].headers["authorization"] == "Bearer provider-key"


@pytest.mark.litellm
async def test_fastapi_app(provider: ScriptedProvider) -> None:
    """The denied call does not reach the Anthropic client, and the app's own route answers."""
    driver = ASGIDriver(loaded("fastapi_app").app, within=START_SECONDS)
    body = {"model": "claude", "max_tokens": 99, "stream": True, "messages": [{"role": "user", "content": "Clean up."}]}
    async with driver.lifespan():
        fetched = await driver.fetch("POST", "/v1/messages", json=body, headers={"x-api-key": "client-key"})
        assert (await driver.fetch("GET", "/hello")).json() == {"hello": "world"}
    message = accumulate_anthropic(fetched.body).body
    assert [block["type"] for block in message["content"]] == ["text"] * len(message["content"])
    assert "Not allowed: bash would delete files." in "".join(block["text"] for block in message["content"])
    assert message["stop_reason"] == "end_turn"


@pytest.mark.litellm
@pytest.mark.parametrize(("name", "own"), [("falcon_app", b'{"hello": "from Falcon"}'), ("bare_app", b"from nobody's framework")])
async def test_around_any_asgi_app(provider: ScriptedProvider, name: str, own: bytes) -> None:
    """Another framework, and none: both keep answering beside the gateway."""
    pytest.importorskip("falcon")
    app = getattr(loaded("around_any_asgi_app"), name)
    driver = ASGIDriver(app, within=START_SECONDS)
    try:
        assert await asked(driver, "openai/gpt-4o-mini") == "FOO IS A WORD"
        assert (await driver.fetch("GET", "/hello")).body == own
        assert provider.requests[0].body["model"] == "gpt-4o-mini"
    finally:
        await app.aclose()


@pytest.mark.litellm
async def test_mounted(provider: ScriptedProvider) -> None:
    """Under its path, opened and closed by the outer app's lifespan."""
    driver = ASGIDriver(loaded("mounted").app, within=START_SECONDS)
    async with driver.lifespan():
        assert await asked(driver, "fast", path="/llm/v1/chat/completions") == "bar is a word"
        assert (await driver.fetch("POST", "/v1/chat/completions", json={})).status == 404


@pytest.mark.litellm
async def test_own_policy() -> None:
    """A key that is cut in two is masked, and counted."""
    policy = loaded("own_policy").MaskKeys()
    run = await run_policy(policy, chunks("your key is sk-", "abcdefgh12345678"))
    assert run.text == "your key is [key]"
    assert [verdict.reason for verdict in run.verdicts] == ["1 masked, 1 in this answer"]
    assert (await run_policy(policy, chunks("nothing to mask"))).text == "nothing to mask"


RUN_RF: Final = ToolCall("c1", "bash", {"command": "rm -rf /"})


@pytest.mark.litellm
@pytest.mark.parametrize(("said", "text", "calls"), [
    ("harmful: it deletes everything", "One moment.\n\n[bash was denied. harmful: it deletes everything]", 0),
    ("It is fine", "One moment.\n\n[bash was denied. It is fine]", 0),
    (" Fine\n", "One moment.", 1),
])  # fmt: skip
async def test_judge_calls(said: str, text: str, calls: int) -> None:
    """Only the clear word allows; the judge's call is in the record."""
    script = [chunks("One moment.", RUN_RF), chunks(said)]
    run = await run_policy(loaded("judge_calls").JudgeCalls(model="judge"), script)
    assert (run.text, len(run.tool_calls)) == (text, calls)
    assert run.record is not None
    assert [(call.policy, call.model) for call in run.record.calls] == [("JudgeCalls", "judge")]


@pytest.mark.litellm
async def test_judge_calls_denies_where_the_judge_does_not_answer() -> None:
    """It fails closed, and the conversation goes on."""
    script = [chunks("One moment.", RUN_RF), BackendError("busy", status=529)]
    run = await run_policy(loaded("judge_calls").JudgeCalls(model="judge"), script)
    assert (run.status, run.error, run.tool_calls) == (200, None, [])


@pytest.mark.litellm
async def test_resample() -> None:
    """What the docstring shows, and what happens when the new answers are no better."""
    good, broken = ToolCall("c2", "pay", '{"amount": 5}'), ToolCall("c1", "pay", '{"amount": ')
    policy = loaded("resample").WholeArguments()
    run = await run_policy(policy, [chunks("First.", broken), chunks("Then.", good)])
    assert run.record is not None
    assert (run.text, run.tool_calls[0].arguments, len(run.record.samples)) == ("Then.", {"amount": 5}, 1)
    run = await run_policy(policy, [chunks(f"Try {number}.", broken) for number in (1, 2, 3)])
    assert (run.text, run.tool_calls, len(run.backend.calls)) == ("Try 3.\n\n[pay could not be called.]", [], 3)


@pytest.fixture
def where_examples_are(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A configuration file finds the examples' modules."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


PAY: Final = re.search(r"\n    (policy: .*)\n    (approvals: .*)\n", (EXAMPLES / "ask_person.py").read_text())


@pytest.mark.litellm
@pytest.mark.usefixtures("where_examples_are")
@pytest.mark.parametrize(("amount", "decision"), [("5", None), ("500", "allow"), ("500", "deny"), ('"a lot"', "deny")])
async def test_ask_person(amount: str, decision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback decides about small payments; an operator about the others, while the client waits."""
    monkeypatch.setenv("LUTHIEN_OPERATOR_KEY", "operator-key")
    assert PAY is not None
    async with ScriptedProvider(Answer("Paying.", ToolCall("c1", "pay", f'{{"amount":{amount}}}'))) as scripted:
        params = f"{{model: openai/x, api_base: '{scripted.url}/v1', api_key: provider-key}}"
        file = tmp_path / "luthien.yaml"
        file.write_text(
            f"model_list: [{{model_name: fast, litellm_params: {params}}}]\nauth: {{keys: {{laptop: client-key}}}}\n"
            f"{PAY[1]}\n{PAY[2].removesuffix('}')}, directory: {tmp_path / 'desk'}}}\n"
        )
        app = create_app(load(file))
        await app.start()
        try:
            body = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "Pay Ada."}]}
            driver = ASGIDriver(app, within=START_SECONDS)
            async with asyncio.TaskGroup() as tasks:
                operator = tasks.create_task(operated(driver, decision)) if decision else None
                fetched = await driver.fetch("POST", "/v1/chat/completions", json=body, headers=KEY)
        finally:
            await app.aclose()
    waited = operator.result() if operator is not None else None
    message = accumulate_openai(fetched.body).body["choices"][0]["message"]
    assert message["content"] == "Paying." + (f"\n\n{Escalate('').message}" if decision == "deny" else "")
    assert len(message.get("tool_calls", ())) == (decision != "deny")
    assert waited is None or (waited["question"], waited["tool"]) == ("Pay this for laptop?", "pay")


async def operated(driver: ASGIDriver, decision: str) -> Any:
    """Answer the first approval that waits, as the docstring's curl does, and return it."""
    headers = {"authorization": "Bearer operator-key"}
    listed: list[Any] = []
    async with asyncio.timeout(START_SECONDS):
        while not listed:
            listed = (await driver.fetch("GET", "/luthien/approvals", headers=headers)).json()
    (approval,) = listed
    path = f"/luthien/approvals/{approval['id']}"
    assert (await driver.fetch("POST", path, json={"decision": decision}, headers=headers)).status == 200
    return approval


@pytest.mark.litellm
async def test_shadow_rollout(
    provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dangerous call passes, and the report says that it would have been denied."""
    params = f"{{ model: openai/gpt-4o-mini, api_base: {provider.url}/v1,"
    text = (EXAMPLES / "shadow_rollout.yaml").read_text().replace("{ model: openai/gpt-4o-mini,", params)
    (tmp_path / "luthien.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    app = create_app(load("luthien.yaml"))
    await app.start()
    try:
        body = {"model": "fast", "messages": [{"role": "user", "content": "Tidy up."}]}
        fetched = await ASGIDriver(app, within=START_SECONDS).fetch("POST", "/v1/chat/completions", json=body, headers=KEY)
        assert fetched.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "bash"
        refused = await ASGIDriver(app).fetch("POST", "/v1/chat/completions", json={**body, "model": "slow"}, headers=KEY)
        assert refused.status == 404
    finally:
        await app.aclose()
    loaded("shadow_rollout").main("transactions.jsonl")
    first, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"DenyTools would deny the call of bash: the arguments match the pattern of '\*' \(me, [\w-]+\)", first)
    assert last == "1 of 1 transactions would have gone otherwise."


def test_testing_a_policy() -> None:
    """All tests of the example pass."""
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLES), "-c", os.devnull]
    done = subprocess.run(
        [*command, str(EXAMPLES / "testing_a_policy.py")], capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "28 passed" in done.stdout


@pytest.mark.litellm
async def test_own_recorder(tmp_path: Path) -> None:
    """One row a transaction: who, what, how it ended."""
    path = tmp_path / "transactions.db"
    recorder = loaded("own_recorder").SqliteRecorder(path=str(path))
    backend = ScriptedBackend(chunks(ToolCall("c1", "bash", "{}")))
    app = LuthienMiddleware(
        _nothing, backend=backend, recorder=recorder, policy=DenyTools(names=["bash"]), auth=lambda headers: "me"
    )
    await app.start()
    try:
        await asked(ASGIDriver(app), "scripted")
    finally:
        await app.aclose()
    connection = sqlite3.connect(path)
    ((client, model, ending, verdicts),) = connection.execute(
        "SELECT client, model, ending, verdicts FROM transactions"
    ).fetchall()
    connection.close()
    assert (client, model, ending) == ("me", "scripted", "completed")
    assert [(verdict["hook"], verdict["verdict"]) for verdict in json.loads(verdicts)][-1] == ("on_block_complete", "deny")


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    pytest.fail("a request went past the gateway")


@pytest.fixture
def demo_gateway() -> Iterator[str]:
    """`luthien-asgi demo --serve`, at its URL."""
    command = [PYTHON, "-m", "luthien_asgi", "demo", "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(line for line in process.stdout if "curl" in line).partition("curl -N ")[2].partition("/v1")[0]
        finally:
            process.terminate()
            process.wait(START_SECONDS)


@pytest.mark.litellm
@pytest.mark.parametrize(
    ("name", "last"),
    [("openai_sdk", "finish: tool_calls, tools: ['list_files']"), ("anthropic_sdk", "stop: tool_use, tools: ['list_files']")],
)
def test_sdk_examples(demo_gateway: str, name: str, last: str) -> None:
    """The official SDKs stream the text, and get the call that was allowed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_", "LUTHIEN_"))}
    done = subprocess.run(
        [PYTHON, str(EXAMPLES / f"{name}.py")],
        env={**environ, "LUTHIEN_URL": demo_gateway},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "I will look at the files" in done.stdout
    assert done.stdout.splitlines()[-1] == last


def test_claude_code(tmp_path: Path) -> None:
    """Claude Code is started with the gateway's address and key, its arguments, and no key of the provider's."""
    fake = tmp_path / "claude"
    fake.write_text('#!/bin/sh\necho "$ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN ${ANTHROPIC_API_KEY-none} $*"\n')
    fake.chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "ANTHROPIC_API_KEY": "sk-ant",
        "LUTHIEN_CLIENT_KEY": "client-key",
    }
    done = subprocess.run(
        [str(EXAMPLES / "claude_code.sh"), "-p", "hi"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=True,
    )
    assert done.stdout == "http://127.0.0.1:4000 client-key none -p hi\n"


def test_luthien_yaml() -> None:
    """The configuration is good, and holds what it says."""
    environ = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2", "LUTHIEN_CLIENT_KEY": "client-key"}
    config = load(EXAMPLES / "luthien.yaml", environ=environ)
    assert [entry["model_name"] for entry in config.model_list] == ["fast", "claude-*"]
    assert isinstance(config.policy, Chain)
    deny, replace = config.policy.policies
    assert isinstance(deny, Governed)
    assert isinstance(replace, Governed)
    assert (type(deny.policy), deny.on_error, deny.timeout) == (DenyTools, "block", 30)
    assert isinstance(replace.policy, ReplaceText)
    assert replace.mode == "shadow"
    assert isinstance(config.recorder, JsonlRecorder)
    assert (config.auth, config.settings.stall_timeout) == ({"me": "client-key"}, 30)


@pytest.mark.servers
@pytest.mark.parametrize("worker", ["asgi", "uvicorn_worker.UvicornWorker"])
def test_gunicorn_conf(tmp_path: Path, worker: str) -> None:
    """Both workers serve the gateway with these settings."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with ScriptedProvider(Answer("Hello")) as scripted:
        config = tmp_path / "luthien.yaml"
        params = f"{{model: openai/x, api_base: '{scripted.url}/v1', api_key: provider-key}}"
        config.write_text(f"model_list: [{{model_name: fast, litellm_params: {params}}}]")
        command = [
            PYTHON,
            "-m",
            "gunicorn",
            "--config",
            str(EXAMPLES / "gunicorn.conf.py"),
            "-k",
            worker,
            "luthien_asgi.server:app",
        ]
        environ = {**os.environ, "LUTHIEN_CONFIG": str(config), "BIND": address, "WEB_CONCURRENCY": "1"}
        log = tmp_path / "log"
        with log.open("wb") as output, subprocess.Popen(command, env=environ, stdout=output, stderr=output) as process:
            try:
                answer = _eventually(f"http://{address}/v1/chat/completions", process, log)
            finally:
                process.terminate()
                process.wait(START_SECONDS)
    assert answer["choices"][0]["message"]["content"] == "Hello"


def _eventually(url: str, process: subprocess.Popen[bytes], log: Path) -> Any:
    """Ask until the server is up."""
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, transport=httpx.HTTPTransport(retries=8)) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                return client.post(url, json=body, timeout=START_SECONDS).json()
            except httpx.ConnectError:
                continue
    pytest.fail(f"the server did not start: {log.read_text()}")
