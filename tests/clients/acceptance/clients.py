"""The clients: how each is started for a case, and what it said in the end.

Strategy: a client that is a program of its own (Claude Code, Codex) runs once a case. A library runs in a small program of ours,
`programs/`, which takes its cases as lines of JSON and answers each with a line, so that its imports are paid once.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from acceptance.cases import ANSWERED, JUDGED, SCENARIOS, Case, cases
from acceptance.gateway import CLIENT_KEY, Gateway
from acceptance.installs import install

__all__ = ["CLIENTS", "Client", "Outcome"]

_CASE_SECONDS: Final = 90.0
_PROGRAMS: Final = Path(__file__).parents[1] / "programs"
Gateways = Mapping[str, Gateway]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a client made of a case."""

    case: Case
    folder: Path
    text: str
    """The final text."""
    error: str = ""
    """Why it is not at peace, as the client says it."""
    stderr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client: its cases, and how they are run."""

    cases: Sequence[Case]
    run: Callable[[Path, Sequence[Case], Gateways, Path], Iterator[Outcome]]
    """Called with the folder of the installation, the cases, the gateways and the folder for the cases' own folders."""

    def outcomes(self, name: str, wanted: Sequence[Case], gateways: Gateways, folder: Path, *, latest: bool) -> Iterator[Outcome]:
        """Install the client and run the cases, one after the other."""
        return self.run(install(name, latest=latest), wanted, gateways, folder)


def _workdir(folder: Path, case: Case) -> Path:
    """Return a case's folder: the client's working directory, in which its tools run, is `work` in it."""
    work = folder / case.name / "work"
    work.mkdir(parents=True)
    return work


def _run(
    command: Sequence[str], work: Path, environment: Mapping[str, str]
) -> tuple[subprocess.CompletedProcess[str] | None, str]:
    """Run a client in an empty home; None when it did not end in time. What it wrote is kept beside its working directory."""
    home = work.parent / "home"
    home.mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "LANG": "C.UTF-8", **environment}
    try:
        done = subprocess.run(
            command,
            cwd=work,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CASE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return None, f"did not end within {_CASE_SECONDS:.0f} s: {error.stderr!r}"
    (work.parent / "stdout").write_text(done.stdout)
    (work.parent / "stderr").write_text(done.stderr)
    return done, "" if done.returncode == 0 else f"exit status {done.returncode}: {done.stderr[-500:]}{done.stdout[-500:]}"


def _claude_code(installed: Path, wanted: Sequence[Case], gateways: Gateways, folder: Path) -> Iterator[Outcome]:
    binary = next((installed / "node_modules" / "@anthropic-ai").glob("claude-code-*/claude"))
    for case in wanted:
        work = _workdir(folder, case)
        environment = {
            "ANTHROPIC_BASE_URL": gateways[case.scenario.gateway].url,
            "ANTHROPIC_API_KEY": CLIENT_KEY,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": case.model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        options = ["--model", case.model, "--allowedTools", "Bash", "--output-format", "stream-json", "--verbose"]
        done, error = _run([str(binary), "-p", case.prompt, *options], work, environment)
        result = _last_line(done.stdout if done else "")
        if not error and (result.get("subtype") != "success" or result.get("is_error")):
            error = f"the result is {result}"
        yield Outcome(case=case, folder=work, text=str(result.get("result")), error=error, stderr=done.stderr if done else "")


_CODEX_CONFIG: Final = """\
model = {model}
model_provider = "luthien"
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.luthien]
name = "luthien"
base_url = {base}
env_key = "LUTHIEN_CLIENT_KEY"
wire_api = "responses"
"""


def _codex(installed: Path, wanted: Sequence[Case], gateways: Gateways, folder: Path) -> Iterator[Outcome]:
    for case in wanted:
        work = _workdir(folder, case)
        settings = work.parent / "home" / ".codex"
        settings.mkdir(parents=True)
        base = f"{gateways[case.scenario.gateway].url}/v1"
        (settings / "config.toml").write_text(_CODEX_CONFIG.format(model=json.dumps(case.model), base=json.dumps(base)))
        said = work.parent / "last-message"
        binary = str(installed / "node_modules" / ".bin" / "codex")
        command = [binary, "exec", "--skip-git-repo-check", "--json", "--output-last-message", str(said), case.prompt]
        done, error = _run(command, work, {"LUTHIEN_CLIENT_KEY": CLIENT_KEY})
        text = said.read_text() if said.is_file() else ""
        yield Outcome(case=case, folder=work, text=text, error=error, stderr=done.stderr if done else "")


def _last_line(output: str) -> dict[str, Any]:
    """Return the last line of a transcript of JSON lines; empty when there is none."""
    try:
        value = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return value if isinstance(value, dict) else {}


def _program(command: Callable[[Path], Sequence[str]]) -> Callable[[Path, Sequence[Case], Gateways, Path], Iterator[Outcome]]:
    """Return a runner for one of the programs: all cases in one process, a line of JSON to and from it for each."""

    def run(installed: Path, wanted: Sequence[Case], gateways: Gateways, folder: Path) -> Iterator[Outcome]:
        works = [_workdir(folder, case) for case in wanted]
        lines = [_question(case, gateways, work) for case, work in zip(wanted, works, strict=True)]
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "LANGSMITH_TRACING": "false"}
        done = subprocess.run(
            command(installed),
            input="".join(lines), env=env, cwd=folder, capture_output=True, text=True, timeout=_CASE_SECONDS * 2, check=False,
        )  # fmt: skip
        answers = {answer["name"]: answer for answer in map(json.loads, done.stdout.splitlines())}
        for case, work in zip(wanted, works, strict=True):
            answer = answers.get(case.name, {"error": f"exit status {done.returncode}: {done.stderr[-1000:]}"})
            text, error = answer.get("text", ""), answer.get("error", "")
            yield Outcome(case=case, folder=work, text=text, error=error, stderr=done.stderr)

    return run


def _question(case: Case, gateways: Gateways, work: Path) -> str:
    fields = {
        "name": case.name,
        "api": case.api,
        "url": gateways[case.scenario.gateway].url,
        "key": CLIENT_KEY,
        "model": case.model,
        "prompt": case.prompt,
        "stream": case.stream,
        "folder": str(work),
    }
    return json.dumps(fields) + "\n"


def _python(program: str) -> Callable[[Path], Sequence[str]]:
    return lambda installed: [str(installed / "bin" / "python"), str(_PROGRAMS / program)]


def _node(program: str) -> Callable[[Path], Sequence[str]]:
    return lambda installed: ["node", str(_PROGRAMS / program), str(installed)]


CLIENTS: Final[Mapping[str, Client]] = {
    "claude-code": Client(
        cases=cases("claude-code", ("anthropic",), streams=(True,), scenarios=SCENARIOS + JUDGED), run=_claude_code
    ),
    "codex": Client(cases=cases("codex", tuple(api for api in ANSWERED if "responses" in api), streams=(True,)), run=_codex),
    "pydantic-ai": Client(cases=cases("pydantic-ai", ANSWERED), run=_program(_python("pydantic_ai_loop.py"))),
    "langchain": Client(cases=cases("langchain", ANSWERED), run=_program(_python("langchain_loop.py"))),
    "vercel": Client(cases=cases("vercel", ANSWERED), run=_program(_node("vercel_loop.mjs"))),
}
