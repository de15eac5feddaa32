"""The command line: its words, its exit status, and what goes to which stream."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest

from luthien_asgi import __version__, policies
from luthien_asgi.cli import main
from luthien_asgi.demo.play import scene_of
from luthien_asgi.demo.scenes import JUDGE, TRUSTED
from luthien_asgi.errors import ConfigError
from luthien_asgi.serving import ServeError, bind, is_loopback, url_of
from luthien_asgi.testing import Answer, ScriptedProvider, Stall, accumulate_openai

COMMAND: Final = [sys.executable, "-m", "luthien_asgi"]
MODELS: Final = "model_list: [{model_name: fast, litellm_params: {model: openai/gpt-4o-mini, api_key: provider-key}}]\n"
START_SECONDS: Final = 60.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "luthien.yaml"
    path.write_text(MODELS)
    return path


def ran(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=START_SECONDS, check=False)
    assert done.returncode == expect, done.stderr
    return done


@contextlib.asynccontextmanager
async def running(*arguments: str, cwd: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command line while the block runs; it does not outlive it."""
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(stream: asyncio.StreamReader | None, text: str) -> str:
    """Return the first line that holds a text, read within the time that a start may take."""
    assert stream is not None
    async with asyncio.timeout(START_SECONDS):
        while line := (await stream.readline()).decode():
            if text in line:
                return line.rstrip("\n")
    pytest.fail(f"no line with {text!r}")


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(START_SECONDS):
        await process.communicate()
    assert process.returncode is not None
    return process.returncode


def test_the_module_runs_as_a_program() -> None:
    """`python -m luthien_asgi` is `luthien-asgi`."""
    assert ran("--version").stdout == f"luthien-asgi {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["check"],
        ["dance"],
        ["serve", "--config", "x", "--port", "70000"],
        ["demo", "--port", "-1"],
        ["demo", "--serve", "--policy", "UpperCase"],
        ["demo", "--port", "²"],
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With usage on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: luthien-asgi" in capsys.readouterr().err


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever types the bare name wants to know what there is."""
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "see a policy at work" in shown.err


def test_check_sums_a_good_file_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the gateway would do, without a credential; what is ignored is named."""
    path = tmp_path / "luthien.yaml"
    path.write_text(
        "model_list:\n"
        "  - {model_name: fast, litellm_params: {model: openai/gpt-4o-mini, api_key: provider-key}}\n"
        "  - {model_name: local, litellm_params: {model: hosted_vllm/x, api_base: 'http://localhost:1'}}\n"
        "  - {model_name: own, litellm_params: {model: openai/y}, passthrough: true}\n"
        "policy: {class: luthien_asgi.policies.UpperCase}\n"
        "auth: {keys: [client-key-1, client-key-2]}\n"
        "record: {sink: luthien_asgi.recorder.MemoryRecorder}\n"
        "router_settings: {}\n"
    )
    assert main(["check", "--config", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}:8: router_settings: ignored: a section of the LiteLLM proxy (warning)",
        f"{path}: good",
        "  model    fast is openai/gpt-4o-mini with a server key",
        "  model    local is hosted_vllm/x with no key",
        "  model    own is openai/y with the client's key",
        "  policy   UpperCase",
        "  auth     2 keys",
        "  record   MemoryRecorder",
        "  address  127.0.0.1, port 4000",
    ]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("", "  auth     none: callers on this machine only"),
        ("auth: {keys: [client-key]}", "  auth     1 key"),
    ],
)
def test_check_says_who_may_ask(file: Path, more: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And what happens without a policy or a recorder."""
    file.write_text(MODELS + more)
    assert main(["check", "--config", str(file)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert line in out
    assert {"  policy   none: everything passes", "  record   none"} < set(out)


def test_check_says_when_no_server_key_is_spent(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients bring their own: then the address does not matter."""
    file.write_text(
        "model_list: [{model_name: own, litellm_params: {model: openai/y}, passthrough: true}]\nserver: {host: 0.0.0.0}"
    )
    assert main(["check", "--config", str(file)]) == 0
    assert "  auth     none: no server key is spent" in capsys.readouterr().out


def test_check_tells_every_problem_and_its_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, as linters do, with status 2."""
    file.write_text(MODELS + "polcy: 1\nlimits: {streams: 0}\n")
    assert main(["check", "--config", str(file)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{file}:2: polcy: unknown key; did you mean 'policy'?",
        f"{file}:3: limits.streams: streams must be a positive whole number, not 0",
    ]


def test_check_makes_the_gateway(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Good means that it starts: what only the gateway itself refuses is refused here too."""
    more = "operators: {keys: [operator-key-1]}\nrecord: {config: {path: " + str(file.with_name("t.jsonl")) + "}}\n"
    file.write_text(MODELS + more + "paths: {records: /luthien/records}\n")
    assert main(["check", "--config", str(file)]) == 0
    assert f"{file}: good" in capsys.readouterr().out

    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("it does not fit")

    monkeypatch.setattr("luthien_asgi.middleware.check_needs", refuse)
    assert main(["check", "--config", str(file)]) == 2
    assert capsys.readouterr().out == f"{file}: it does not fit\n"


def test_check_warns_of_names_that_lead_nowhere(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A provider that LiteLLM does not know, and a key's model that is not configured; wildcards may meet."""
    file.write_text(
        "model_list:\n"
        "  - {model_name: fast, litellm_params: {model: opnai/gpt-4o, api_key: k}}\n"
        '  - {model_name: "claude-*", litellm_params: {model: "anthropic/claude-*", api_key: k}}\n'
        "  - {model_name: bare, litellm_params: {model: gpt-4o, api_key: k}}\n"
        "auth:\n"
        "  keys:\n"
        "    all: client-key-1\n"
        '    some: {key: client-key-2, models: [fast, "*-opus", claude-x, "c*"]}\n'
        '    none: {key: client-key-3, models: [fasst, "gpt-*"]}\n'
    )
    assert main(["check", "--config", str(file)]) == 0
    model = "model_list[0].litellm_params.model"
    assert capsys.readouterr().out.splitlines()[:4] == [
        f"{file}:2: {model}: 'opnai' is no provider that is known here; did you mean 'openai'? (warning)",
        f"{file}:9: auth.keys.none.models: 'fasst' is no model of model_list; did you mean 'fast'? (warning)",
        f"{file}:9: auth.keys.none.models: 'gpt-*' is no model of model_list; known: bare, claude-*, fast (warning)",
        f"{file}: good",
    ]


def test_check_imports_neither_litellm_nor_a_server(file: Path) -> None:
    """Nothing starts."""
    code = f"import sys; from luthien_asgi.cli import main; main(['check', '--config', {str(file)!r}]); "
    code += "print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=START_SECONDS)
    assert done.stdout.splitlines()[-1] == "False"


def test_policies_of_one_s_own_are_found_where_one_works(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `python -m` and uvicorn."""
    (file.parent / "luthien_mine.py").write_text("from luthien_asgi import Policy\nclass Mine(Policy): ...")
    file.write_text(MODELS + "policy: {class: luthien_mine.Mine}")
    monkeypatch.chdir(file.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["check", "--config", str(file)]) == 0
    assert main(["check", "--config", str(file)]) == 0
    assert sys.path.count(str(file.parent)) == 1


@pytest.mark.parametrize("command", ["check", "serve"])
def test_server_keys_are_not_served_to_other_machines(file: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `auth` an address that others can reach is refused; the message says what to write."""
    file.write_text(MODELS + "server: {host: 0.0.0.0}")
    assert main([command, "--config", str(file)]) == 2
    output = capsys.readouterr()
    assert "0.0.0.0 can be reached from other machines" in output.out + output.err
    assert "add auth: {keys: [...]}" in output.out + output.err


def test_serve_tells_problems_on_stderr(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout is for results."""
    file.write_text(MODELS + "polcy: 1\n")
    assert main(["serve", "--config", str(file)]) == 2
    assert f"{file}:2: polcy: unknown key" in capsys.readouterr().err


def test_a_port_in_use_is_a_message(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The address, the reason and the way out; and what was ignored, first."""
    file.write_text(MODELS + "router_settings: {}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--config", str(file), "--port", str(port)]) == 1
    warning, message = capsys.readouterr().err.splitlines()
    assert warning == f"{file}:2: router_settings: ignored: a section of the LiteLLM proxy (warning)"
    assert message.startswith(f"luthien-asgi: cannot listen on 127.0.0.1, port {port}: ")
    assert message.endswith("; choose another with --port")


def test_an_unknown_address_is_a_message() -> None:
    """A name that does not resolve is no traceback."""
    with pytest.raises(ServeError, match=r"the address 'no such host' is unknown"):
        bind("no such host", 0)


def test_a_url_can_be_clicked_for_either_family() -> None:
    """IPv6 addresses need brackets."""
    with bind("127.0.0.1", 0) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
    if socket.has_ipv6:
        with contextlib.suppress(ServeError), bind("::1", 0) as sock:
            assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("my-laptop", False),
    ],
)
def test_what_counts_as_loopback(host: str, loopback: bool) -> None:
    """A name could be anything tomorrow."""
    assert is_loopback(host) is loopback


def test_policies_lists_what_ships_and_what_each_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """The docstrings are the documentation: here their first lines, and what is declared."""
    assert main(["policies"]) == 0
    out = capsys.readouterr().out
    upper = "\nUpperCase\n    Write the model's text in capitals.\n    hooks: on_chunk_added, on_run_added\n"
    assert upper + "    handles: text (transform)\n" in out
    assert "    config: none\n" in out
    assert "        names: list of string = []\n" in out
    assert out.endswith("luthien-asgi demo --policy NAME shows it at work.\n")
    assert [line for line in out.splitlines() if line and line[0] != " "][:-1] == sorted(policies.__all__)


def test_policies_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs, with a JSON Schema of each configuration."""
    assert main(["policies", "--json"]) == 0
    listed = {policy["name"]: policy for policy in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(policies.__all__)
    upper = listed["UpperCase"]
    assert (upper["handles"], upper["hooks"], upper["verdicts"]) == (
        {"text": "transform"},
        ["on_chunk_added", "on_run_added"],
        [],
    )
    assert upper["class"] == "luthien_asgi.policies.UpperCase"
    assert upper["schema"] == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "UpperCase",
        "description": "Write the model's text in capitals.",
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert listed["ReplaceText"]["schema"]["required"] == ["replacements"]


@pytest.mark.parametrize("name", policies.__all__)
def test_policies_says_all_about_one(name: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its whole docstring, and an example that `check` accepts."""
    scene_of(name)  # a missing extra is told elsewhere
    assert main(["policies", name]) == 0
    told, _, example = capsys.readouterr().out.partition("\nexample:\n")
    assert told.startswith(f"luthien_asgi.policies.{name}\n\n    ")
    for line in inspect.cleandoc(getattr(policies, name).__doc__).splitlines():
        assert f"    {line}".rstrip() in told.splitlines()
    models = "".join(f", {{model_name: {model}, litellm_params: {{model: openai/x}}}}" for model in (JUDGE, TRUSTED))
    operators = "approvals: {keys: {alice: a-key-of-alice}}\n"
    file.write_text(f"{MODELS.rstrip()[:-1]}{models}]\n{operators}{textwrap.dedent(example)}")
    assert main(["check", "--config", str(file)]) == 0
    assert f"policy   {name}\n" in capsys.readouterr().out


def test_policies_says_all_about_one_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its dotted path, where one works; the example has what is required."""
    (tmp_path / "luthien_own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["policies", "luthien_own.Own"]) == 0
    assert capsys.readouterr().out == OWN_SHOWN
    assert main(["policies", "luthien_own.Own", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["handles"] == {}


OWN: Final = '''
from collections.abc import Mapping
from typing import Literal
from luthien_asgi import Policy

class Own(Policy):
    """Do as one likes.

    Not much.
    """

    @property
    def handles(self):
        return {}

    @property
    def verdicts(self):
        return ()

    def __init__(self, *, words: list[str], mode: Literal["a", "b"], either: str | int,
                 limits: Mapping[str, int] | None = None): ...
    def on_request(self, request, ctx): ...
    def on_block_complete(self, block, ctx): ...
'''
OWN_SHOWN: Final = """\
luthien_own.Own

    Do as one likes.

    Not much.

hooks: on_request, on_block_complete
config:
    words: list of string (required)
    mode: a | b (required)
    either: string or integer (required)
    limits: mapping of integer

example:
    policy:
      class: luthien_own.Own
      config:
        words: []
        mode: a
        either: …
"""


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("UperCase", "no policy that ships is called 'UperCase' (one of yours is module.Class); did you mean 'UpperCase'?"),
        ("nowhere.Policy", "there is no module 'nowhere'"),
        ("pathlib.Path", "pathlib.Path is not a Policy: make it a subclass of luthien_asgi.Policy"),
    ],
)
def test_a_policy_that_is_none_is_status_2(name: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the name that may have been meant."""
    assert main(["policies", name]) == 2
    assert capsys.readouterr().err == f"luthien-asgi: {complaint}\n"


def test_check_shows_how_policies_are_composed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what is said of each."""
    entry = "{class: UpperCase}"
    file.write_text(f"{MODELS}policy: [{entry}, {{chain: [{entry}, {entry}], mode: shadow, on_error: pass, timeout: 5}}]\n")
    assert main(["check", "--config", str(file)]) == 0
    tree = "Chain[UpperCase, Chain[UpperCase, UpperCase] (mode: shadow, on_error: pass, timeout: 5)]"
    assert f"  policy   {tree}\n" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_traceback() -> None:
    """`luthien-asgi policies | head -0`: what a shell reports for SIGPIPE, and silence."""
    with subprocess.Popen([*COMMAND, "policies"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(START_SECONDS) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_terminal_that_knows_ascii_only_is_no_traceback() -> None:
    """What it cannot show is escaped."""
    done = subprocess.run(
        [*COMMAND, "policies", "DenyTools"],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii"},
        timeout=START_SECONDS,
        check=True,
    )
    assert b"\\u2026" in done.stdout


@pytest.mark.servers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serve_answers_and_lets_an_answer_end_when_asked_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    """Real process, real LiteLLM: half of an answer, the signal, the other half, status 0."""
    async with ScriptedProvider(Answer("Hel", "lo", faults=[Stall(after=2)])) as provider:
        file = tmp_path / "luthien.yaml"
        file.write_text(MODELS.replace("api_key", f"api_base: '{provider.url}/v1', api_key"))
        async with (
            running("serve", "--config", str(file), "--port", "0") as process,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            url = (await line_with(process.stderr, "Serving on")).removeprefix("Serving on ").partition(";")[0]
            body = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
            async with client.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=START_SECONDS) as response:
                parts = response.aiter_bytes()
                received = await anext(parts)
                process.send_signal(number)
                await line_with(process.stderr, "Shutting down")
                provider.release()
                received += b"".join([part async for part in parts])
            assert await ended(process) == 0
    got = accumulate_openai(received)
    assert got.done
    assert got.body["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.servers
async def test_ctrl_c_before_the_server_is_up_is_status_130(tmp_path: Path) -> None:
    """Without a traceback; it is at a policy's module, which takes its time."""
    file, waits = tmp_path / "luthien.yaml", tmp_path / "waits"
    os.mkfifo(waits)
    (tmp_path / "slow_module.py").write_text(f"print('importing', flush=True)\nopen({str(waits)!r}).read()")
    file.write_text(json.dumps({"model_list": [], "policy": [{"class": "slow_module.Slow"}]}))
    with os.fdopen(os.open(waits, os.O_RDWR)):
        async with running("serve", "--config", str(file), "--port", "0", cwd=tmp_path) as process:
            await line_with(process.stdout, "importing")
            async with asyncio.timeout(START_SECONDS), asyncio.TaskGroup() as tasks:
                output = tasks.create_task(process.communicate())
                while not output.done():
                    # Once more if need be: Python drops an interrupt that comes while it finalises an object.
                    process.send_signal(signal.SIGINT)
                    await asyncio.wait({output}, timeout=5)
        _, rest = output.result()
        assert process.returncode == 130
        assert b"Traceback" not in rest
