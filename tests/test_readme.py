"""Every code block of the README is run: Python and shell against a scripted provider, the configuration through its loader."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

import pytest
import yaml
from fastapi import FastAPI
from starlette.applications import Starlette

import luthien_asgi
from luthien_asgi import (
    Approval,
    Block,
    BlockKind,
    ClientKey,
    Escalate,
    Governed,
    Hold,
    JsonlRecorder,
    Limits,
    LuthienMiddleware,
    Paths,
    Policy,
    StreamContext,
    StreamSettings,
    cli,
    listing,
    policies,
    testing,
)
from luthien_asgi.config import Config, load
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policies import DenyTools
from luthien_asgi.server import create_app
from luthien_asgi.testing import (
    Answer,
    ASGIDriver,
    ScriptedBackend,
    ScriptedProvider,
    ToolCall,
    accumulate_openai,
    assert_policy_holds,
    chunks,
)
from luthien_asgi.verdicts import RANKS

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "README.md").read_text()
URL: Final = "http://127.0.0.1:4000"
KEYS: Final = {"OPENAI_API_KEY": "provider-key", "ANTHROPIC_API_KEY": "provider-key", "LUTHIEN_CLIENT_KEY": "a-key-you-make-up"}
KEYS["LUTHIEN_OPERATOR_KEY"] = "another-one"
DANGEROUS: Final = ToolCall("call_1", "bash", {"command": "rm -rf /"})
SECONDS: Final = 60.0


@dataclass(frozen=True)
class Code:
    """One code block."""

    language: str
    text: str

    @property
    def file(self) -> str:
        """The name of a file that the block says it is, in its first line."""
        found = re.match(r"# (\w+\.\w+)\n", self.text)
        return found[1] if found else ""


BLOCKS: Final = [Code(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]
FILES: Final = {block.file: block.text for block in BLOCKS if block.file}
SHELL: Final = [block.text for block in BLOCKS if block.language == "bash"]
JSON: Final = [block.text for block in BLOCKS if block.language == "json"]


def commands() -> list[str]:
    """Return the commands of all shell blocks, one each."""
    lines = "\n".join(SHELL).replace("\\\n", " ").splitlines()
    return [command.strip() for line in lines for command in line.split("&&") if command.strip()]


# --- all blocks ------------------------------------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_run() -> None:
    """A block of another language, or a Python file that no test below runs, does not get in."""
    assert {block.language for block in BLOCKS} == {"bash", "python", "yaml", "json", "text", "toml"}
    assert set(FILES) == {
        "app.py", "luthien.yaml", "ask_openai.py", "ask_anthropic.py", "no_shell.py", "test_no_shell.py", "composed.py",
        "composed.yaml", "shout.py", "keys.yaml",
    }  # fmt: skip
    assert all(block.file for block in BLOCKS if block.language in {"python", "yaml"})
    assert len(JSON) == 1
    assert len([block for block in BLOCKS if block.language == "text"]) == 2


def test_the_provider_for_codex_is_this_gateway() -> None:
    """It can be read, and names what Codex needs of a provider."""
    (codex,) = (tomllib.loads(block.text) for block in BLOCKS if block.language == "toml")
    provider = codex["model_providers"][codex["model_provider"]]
    assert (provider["base_url"], provider["wire_api"]) == ("http://127.0.0.1:4000/v1", "responses")
    assert provider["env_key"] == "LUTHIEN_CLIENT_KEY"


def test_the_two_commands_of_a_fresh_machine_are_there() -> None:
    """Word for word: they are what a newcomer types."""
    assert SHELL[0] == "pip install . && luthien-asgi demo\n"
    assert SHELL[1] == "pip install tox && tox\n"


def test_names_in_the_text_are_public() -> None:
    """A class or function that the text names can be imported from where people import."""
    public = {*luthien_asgi.__all__, *policies.__all__, *testing.__all__}
    others = {"FastAPI", "Middleware", "Mount", "ModelResponseStream", "Router", "NoShell", "MyState", "QueueFullError"}
    others |= {"Host", "Origin", "Retry", "After", "Forwarded", "For", "Content", "Type", "None", "The", "False", "True"}
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    named = {word for code in re.findall(r"`([^`\n]+)`", prose) for word in re.findall(r"\b[A-Z][a-z]\w*|\b[A-Z]{2}\w+", code)}
    assert {word for word in named if not word.isupper()} - public - others == set()


def test_extras_in_the_text_exist() -> None:
    """What `pip install '.[…]'` names is in the project's metadata."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"'\.\[(\w+)\]'", TEXT)) <= set(extras)


# --- files -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with every file that the README shows, in which one works."""
    path = tmp_path_factory.mktemp("readme")
    for name, text in FILES.items():
        (path / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.syspath_prepend(path)
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        yield path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture(scope="module")
def provider(folder: Path, serve: Any) -> Iterator[ScriptedProvider]:
    """A provider in the place of OpenAI and Anthropic: says hello, and wants to delete files.

    It ends before the servers do, and LiteLLM's connections to it with it: uvloop does not close with connections open.
    """
    with ScriptedProvider(Answer("Hel", "lo", DANGEROUS)) as scripted, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", f"{scripted.url}/v1")
        patch.setenv("ANTHROPIC_BASE_URL", scripted.url)
        yield scripted


@pytest.fixture(scope="module")
def gateway(folder: Path, provider: ScriptedProvider, serve: Any) -> str:
    """The URL of a server with the README's configuration."""
    url: str = serve(create_app(load(folder / "luthien.yaml")), lifespan="on")
    return url


# --- what is shown ----------------------------------------------------------------------------------------------------------


def test_the_validator_says_what_the_document_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line by line, for a provider that names a call in every fragment."""
    shown = next(block.text for block in BLOCKS if block.text.startswith("$ luthien-asgi validate")).splitlines()
    opening = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":'}}
    again = {"index": 0, "id": "call_1", "type": "function", "function": {"arguments": '"Oslo"}'}}
    deltas = [{"role": "assistant", "content": None}, {"tool_calls": [opening]}, {"tool_calls": [again]}, {}]
    sent = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "some-model", "choices": [choice], "usage": None}
        for choice in ({"index": 0, "delta": d, "finish_reason": None if d else "tool_calls"} for d in deltas)
    ]
    sent += [sent[0] | {"choices": [], "usage": {"prompt_tokens": 75, "completion_tokens": 51, "total_tokens": 126}}]
    (tmp_path / "answer.sse").write_text("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in sent) + "data: [DONE]\n\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(shown[0])[2:]) == 1
    assert capsys.readouterr().out.splitlines() == shown[1:]


def imported(name: str) -> ModuleType:
    return importlib.import_module(name)


def run_file(name: str, url: str) -> None:
    """Run a file of the README as a program, its server being at another URL."""
    exec(compile(FILES[name].replace(URL, url), name, "exec"), {"__name__": "__main__"})  # noqa: S102 - the README's own code


# --- an app of one's own ---------------------------------------------------------------------------------------------------


@pytest.mark.litellm
async def test_app(provider: ScriptedProvider) -> None:
    """The app answers its own route, and completions through the policy; nobody without a key is served."""
    driver = ASGIDriver(imported("app").app, within=SECONDS)
    body = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    key = {"authorization": f"Bearer {KEYS['LUTHIEN_CLIENT_KEY']}"}
    async with driver.lifespan():
        assert (await driver.fetch("GET", "/hello")).json() == {"hello": "world"}
        assert (await driver.fetch("POST", "/v1/chat/completions", json=body)).status == 401
        fetched = await driver.fetch("POST", "/v1/chat/completions", json=body, headers=key)
    message = accumulate_openai(fetched.body).body["choices"][0]["message"]
    assert message["content"] == "Hello\n\nThe call of bash was denied by a policy."
    assert "tool_calls" not in message
    assert provider.requests[-1].headers["authorization"] == "Bearer provider-key"


# --- a gateway of one's own ------------------------------------------------------------------------------------------------


def test_the_configuration_is_read_as_it_is_meant(folder: Path) -> None:
    """Every section, each with what stands in it."""
    config = load(folder / "luthien.yaml")
    assert [(each.name, each.model, each.passthrough) for each in config.deployments] == [
        ("fast", "openai/gpt-4o-mini", False),
        ("claude-*", "anthropic/claude-*", False),
        ("my-own-claude", "anthropic/claude-sonnet-5", True),
    ]
    assert isinstance(config.policy, Governed)
    assert (type(config.policy.policy), config.policy.mode, config.policy.on_error) == (DenyTools, "enforce", "block")
    assert config.policy.timeout == 30
    assert isinstance(config.recorder, JsonlRecorder)
    assert config.auth == {"my-laptop": KEYS["LUTHIEN_CLIENT_KEY"]}
    assert config.approvals is not None
    assert (repr(config.approvals.auth), config.approvals.timeout) == ("KeyAuth(clients=['alice'])", 300)
    assert (config.settings.first_chunk_timeout, config.settings.stall_timeout) == (60, 30)
    assert (config.limits.body_bytes, config.limits.streams) == (8 * 1024 * 1024, 200)
    assert (config.host, config.port, config.paths.models, config.warnings) == ("127.0.0.1", 4000, "/v1/models", ())


def test_the_keys_open_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as it is written; the file of a secret is another one here."""
    secret = folder / "nightly"
    secret.write_text("key-of-the-night\n")
    secret.chmod(0o600)
    text = FILES["keys.yaml"].replace("/run/secrets/nightly", str(secret))
    path = folder / "keys_too.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(FILES["luthien.yaml"]) | yaml.safe_load(text)))
    monkeypatch.setenv("LUTHIEN_AGENTS_KEY", "key-of-the-agents")
    assert load(path).auth == {
        "my-laptop": KEYS["LUTHIEN_CLIENT_KEY"],
        "agents": ClientKey(key="key-of-the-agents", models=["fast", "claude-*"], streams=20),
        "nightly": ClientKey(key="key-of-the-night", models=["fast"]),
    }


def test_the_configuration_shows_every_section(folder: Path) -> None:
    """It is the complete one: nobody has to look elsewhere for a section."""
    from luthien_asgi.config import _SECTIONS

    assert set(yaml.safe_load(FILES["luthien.yaml"])) == set(_SECTIONS)


def own(folder: Path) -> Config:
    """The configuration with the line that the text gives in the place of its policy."""
    found = re.search(r"`(policy: \{class: no_shell\.NoShell\})`", TEXT)
    assert found is not None
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(FILES["luthien.yaml"]) | yaml.safe_load(found[1])))
    return load(path)


def test_check_likes_the_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command as it is written, run."""
    (line,) = [command for command in commands() if command.startswith("luthien-asgi check")]
    assert cli.main(shlex.split(line)[1:]) == 0
    assert "luthien.yaml: good" in capsys.readouterr().out


@pytest.mark.litellm
@pytest.mark.parametrize("name", ["ask_openai.py", "ask_anthropic.py"])
def test_a_program_with_an_sdk_gets_its_answer(name: str, gateway: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The text, and in the place of the dangerous call what the policy says."""
    run_file(name, gateway)
    assert capsys.readouterr().out == "Hello\n\n[bash was denied: it would have deleted files.]"


# --- the shell -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", SHELL)
def test_a_shell_block_is_shell(block: str) -> None:
    """Its syntax is right."""
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_takes_what_the_text_says() -> None:
    """Every `luthien-asgi …`, in blocks and in the text."""
    inline = re.findall(r"`(luthien-asgi [a-z][^`]*)`", TEXT)
    written = [*inline, *(command for command in commands() if command.startswith("luthien-asgi"))]
    assert len(written) >= 5
    for command in written:
        cli._parser().parse_args(shlex.split(command)[1:])


def test_servers_are_pointed_at_apps_that_are_there(folder: Path) -> None:
    """Each `module:app` of a server's command line can be imported, and the worker classes too."""
    lines = [command for command in commands() if command.startswith(("uvicorn ", "gunicorn "))]
    for module, name in [re.findall(r" ([\w.]+):([a-z]\w*)\b", line)[0] for line in lines]:
        assert callable(getattr(imported(module), name))
    assert [line.split()[2] for line in lines if line.startswith("gunicorn")] == ["asgi", "uvicorn_worker.UvicornWorker"]
    assert len(lines) == 4


def in_bash(script: str, url: str, environment: Mapping[str, str]) -> str:
    """Run a shell block, its server being at another URL, and return what it prints."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["bash", "-euc", script.replace(URL, url)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LUTHIEN_CLIENT_KEY": KEYS["LUTHIEN_CLIENT_KEY"], "no_proxy": "127.0.0.1"}


@pytest.mark.litellm
def test_curl(gateway: str) -> None:
    """The block prints a stream that is complete."""
    (block,) = [block for block in SHELL if "curl -N" in block]
    got = accumulate_openai(in_bash(block, gateway, environment()).encode())
    assert got.done
    assert got.body["choices"][0]["message"]["content"].startswith("Hello")


class Asking(Policy):
    """Asks a person about each tool call."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Escalate,)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Escalate:
        return Escalate("May it?")


def test_a_person_is_asked_from_two_terminals(folder: Path, serve: Any) -> None:
    """The call waits in one; in the other it is listed and allowed, by the commands as they are written."""
    listing, answering = [block for block in SHELL if "/luthien/approvals" in block]
    desk, asked = load(folder / "luthien.yaml").approvals, threading.Event()
    assert desk is not None

    async def notify(approval: Approval) -> None:
        asked.set()

    desk._notify = notify
    backend = ScriptedBackend(chunks("Hel", DANGEROUS))
    paths = Paths(approvals="/luthien/approvals")
    app = LuthienMiddleware(Starlette(), backend=backend, policy=Asking(), approvals=desk, paths=paths)
    url = serve(app, lifespan="on")
    body = json.dumps({"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    ask = ["curl", "-sN", f"{url}/v1/chat/completions", "-H", "content-type: application/json", "-d", body]
    operator = environment() | {"LUTHIEN_OPERATOR_KEY": KEYS["LUTHIEN_OPERATOR_KEY"]}
    with subprocess.Popen(ask, env=environment(), stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert asked.wait(SECONDS)
        (waits,) = json.loads(in_bash(listing, url, operator))
        said = json.loads(in_bash(answering, url, operator | {"ID": waits["id"]}))
        got = accumulate_openai(client.stdout.read())
    assert (waits["tool"], waits["default"]) == ("bash", "deny")
    assert said == {"id": waits["id"], "decision": "allow", "by": "operator:alice", "reason": "I looked at it"}
    assert got.body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "bash"


@pytest.mark.litellm
def test_claude_code(gateway: str) -> None:
    """What the block sets is enough for a client that sends what Claude Code sends, also where there was a key before."""
    (block,) = [block for block in SHELL if "\nclaude\n" in block]
    body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    claude = f"""
    claude() {{
      curl -sS "$ANTHROPIC_BASE_URL/v1/messages?beta=true" -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" \\
        -H 'anthropic-version: 2023-06-01' ${{ANTHROPIC_API_KEY:+-H "x-api-key: $ANTHROPIC_API_KEY"}} \\
        -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}
    }}
    """
    said = json.loads(in_bash(claude + block, gateway, environment() | {"ANTHROPIC_API_KEY": "sk-ant-of-the-user"}))
    assert "".join(part["text"] for part in said["content"]).startswith("Hello")


# --- a policy and its test -------------------------------------------------------------------------------------------------


def test_the_policy_has_ten_lines_and_its_test_passes(folder: Path) -> None:
    """Each function of the README's test file, run: the policy in the kit."""
    assert len([line for line in FILES["no_shell.py"].splitlines()[1:] if line.strip()]) <= 10
    assert issubclass(imported("no_shell").NoShell, Policy)
    tests = {name: value for name, value in vars(imported("test_no_shell")).items() if name.startswith("test_")}
    assert tests
    for test in tests.values():
        test()


DENIED: Final = "Hello\n\nThe call of bash was denied."


async def completed(app: Any, model: str) -> Any:
    """Return the message that a client gets."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    key = {"authorization": f"Bearer {KEYS['LUTHIEN_CLIENT_KEY']}"}
    fetched = await ASGIDriver(app, within=SECONDS).fetch("POST", "/v1/chat/completions", json=body, headers=key)
    return accumulate_openai(fetched.body).body["choices"][0]["message"]


@pytest.mark.litellm
async def test_the_policy_works_in_the_gateway(folder: Path, provider: ScriptedProvider) -> None:
    """By the line that the section gives for the configuration."""
    app = create_app(own(folder))
    await app.start()
    try:
        message = await completed(app, "fast")
    finally:
        await app.aclose()
    assert (message["content"], "tool_calls" in message) == (DENIED, False)


@pytest.mark.litellm
async def test_the_policy_works_in_an_app(folder: Path) -> None:
    """By the line that the section gives for the middleware."""
    found = re.search(r"`(app\.add_middleware\(LuthienMiddleware, policy=NoShell\(\), .*?\))`", TEXT)
    assert found is not None
    app, backend = FastAPI(), ScriptedBackend(chunks("Hello", DANGEROUS))
    no_shell = imported("no_shell").NoShell
    exec(found[1], {"app": app, "backend": backend, "LuthienMiddleware": LuthienMiddleware, "NoShell": no_shell})  # noqa: S102
    message = await completed(app, "any")
    assert (message["content"], "tool_calls" in message) == (DENIED, False)


def test_a_policy_that_takes_runs_does_the_same_to_chunks(folder: Path) -> None:
    """Its two hooks are to the same effect, which the kit sees."""
    del folder
    assert_policy_holds(imported("shout").Shout(), answers=["It was said quietly, and twice.", "It was not."], cuts=2)


# --- several policies ------------------------------------------------------------------------------------------------------


def test_policies_are_composed_alike_in_python_and_in_the_configuration(folder: Path) -> None:
    """The two blocks say the same."""
    path = folder / "both.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(FILES["luthien.yaml"]) | yaml.safe_load(FILES["composed.yaml"])))
    config = load(path)
    assert config.policy is not None
    written = [text for word, text in listing.summary(config) if word == "policy"]
    assert written == ["Chain[ReplaceText, Together[NoShell, DenyTools (mode: shadow)]]"]
    in_python = dataclasses.replace(config, policy=imported("composed").policy)
    assert [text for word, text in listing.summary(in_python) if word == "policy"] == written
    assert Pipeline.of(in_python.policy).name == Pipeline.of(config.policy).name == "ReplaceText, NoShell"


# --- records ---------------------------------------------------------------------------------------------------------------


async def test_the_lines_of_a_record_have_the_fields_that_are_shown(folder: Path) -> None:
    """Neither more nor less, down to blocks and verdicts."""
    recorder = JsonlRecorder(folder / "shown.jsonl")
    backend = ScriptedBackend(chunks(DANGEROUS))
    app = LuthienMiddleware(None, backend=backend, policy=imported("no_shell").NoShell(), recorder=recorder, auth=None)  # type: ignore[arg-type]
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    await ASGIDriver(app).fetch("POST", "/v1/chat/completions", json=body)
    await app.aclose()
    written = [json.loads(line) for line in (folder / "shown.jsonl").read_text().splitlines()]
    assert [shape(line) for line in shown(JSON[0])] == [shape(line) for line in written]


def shown(text: str) -> list[Any]:
    """Return the JSON values of a block, one after the other."""
    values, at = [], 0
    while at < len(text):
        value, at = json.JSONDecoder().raw_decode(text, at)
        values.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return values


def shape(line: Mapping[str, Any]) -> Any:
    """Return the names of a line's fields, and of what is in its lists and timings."""
    inner = {name: sorted(value[0]) for name, value in line.items() if isinstance(value, list) and value}
    return sorted(line), line["type"], inner, sorted(line.get("timings", ()))


# --- tables ----------------------------------------------------------------------------------------------------------------


def rows(title: str) -> list[tuple[str, str]]:
    """Return the first two cells of the rows of the table whose head begins with a word."""
    found = re.search(rf"^\| {title} \|.*?\n\| ---.*?\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found is not None
    cells = [[cell.strip() for cell in line.split("|")] for line in found[1].splitlines()]
    return [(cell[1].strip("`"), cell[2].strip("`")) for cell in cells]


@pytest.mark.parametrize(("title", "cls"), [("setting", StreamSettings), ("limit", Limits)])
def test_the_tables_of_settings_have_every_setting_with_its_default(title: str, cls: Any) -> None:
    """In the order of the code."""
    assert rows(title) == [(field.name, str(field.default)) for field in dataclasses.fields(cls)]


def test_the_table_of_hooks_has_every_hook() -> None:
    """Nothing else on a policy is called."""
    hooks: Sequence[str] = [name for name in vars(Policy) if name.startswith("on_")]
    assert [name for name, _ in rows("hook")] == hooks


def test_the_table_of_verdicts_has_every_verdict() -> None:
    """From the mildest to the strictest, with the names of their fields."""
    listed = [re.match(r"(\w+)\((.*)\)", name) for name, _ in rows("verdict")]
    assert [found[1] for found in listed if found] == [verdict.__name__ for verdict in RANKS]
    for found, verdict in zip(listed, RANKS, strict=True):
        assert found is not None
        assert {*filter(None, found[2].split(", "))} <= {field.name for field in dataclasses.fields(verdict)}


def test_the_table_of_how_a_policy_is_in_charge_has_every_setting() -> None:
    """Those of `Governed`, in its order."""
    assert [name for name, _ in rows("in charge")] == [field.name for field in dataclasses.fields(Governed)][1:]
