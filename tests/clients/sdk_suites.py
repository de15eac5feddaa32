"""Run the official Python SDKs' own tests of the routes that the gateway answers, against the gateway.

    python tests/clients/sdk_suites.py [openai|anthropic|all]

The SDKs' source distributions have their tests: they are downloaded, run where they are, and never copied. Behind the gateway is
the scripted provider, in the SDK's own wire. What fails has to be in `sdk_suites_known.toml`, with a reason.

Exit status 0: nothing fails that is not known, and what is known still fails; 1: something else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from acceptance.cases import ANSWERED
from acceptance.gateway import PROVIDER_KEY, serving
from acceptance.installs import PACKAGES, install, source
from rich.console import Console
from rich.table import Table

from luthien_asgi.testing import Answer, ScriptedProvider

_HERE: Final = Path(__file__).parent
_SUITE_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """An SDK's tests: which files, and how they reach the gateway."""

    files: Sequence[str]
    key: str
    """The API key in the suite's own configuration."""
    base: str
    """What the SDK wants behind the gateway's URL."""


_RESPONSES: Final = ("test_responses.py",) if "openai-responses" in ANSWERED else ()
SUITES: Final[Mapping[str, Suite]] = {
    "openai": Suite(files=("chat/test_completions.py", "test_models.py", *_RESPONSES), key="My API Key", base="/v1"),
    "anthropic": Suite(
        files=("test_messages.py", "test_models.py", "beta/test_messages.py", "beta/test_models.py"),
        key="my-anthropic-api-key",
        base="",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One test of a suite: `outcome` is `passed`, `failed` or `skipped`."""

    file: str
    test: str
    outcome: str
    message: str = ""


def run_suite(name: str, folder: Path) -> list[Result]:
    """Run a suite against a gateway of its own; logs and the suite's output stay in the folder."""
    suite = SUITES[name]
    python = install(f"sdk-{name}") / "bin" / "python"
    sources = source(PACKAGES[f"sdk-{name}"][0].replace("[aiohttp]", ""))
    with ScriptedProvider(Answer("Hello")) as provider, serving(name, _config(name, provider.url), folder) as url:
        report = folder / f"{name}.xml"
        files = [f"tests/api_resources/{file}" for file in suite.files]
        command = [str(python), "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TEST_API_BASE_URL": url + suite.base}
        done = subprocess.run(
            command, cwd=sources, env=environment, capture_output=True, text=True, timeout=_SUITE_SECONDS, check=False
        )
        (folder / f"{name}.out").write_text(done.stdout + done.stderr)
    if not report.is_file():
        msg = f"the suite did not run:\n{(done.stdout + done.stderr)[-3000:]}"
        raise RuntimeError(msg)
    return results_in(report)


def _config(name: str, provider_url: str) -> dict[str, Any]:
    base = provider_url if name == "anthropic" else f"{provider_url}/v1"
    parameters = {"model": f"{name}/*", "api_base": base, "api_key": PROVIDER_KEY}
    return {
        "model_list": [{"model_name": "*", "litellm_params": parameters}],
        "auth": {"keys": {"suite": SUITES[name].key}},
    }


def results_in(report: Path) -> list[Result]:
    """Read the results of a run from pytest's report."""
    found = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written by pytest
        problem = next((child for child in case if child.tag in {"failure", "error", "skipped"}), None)
        outcome = "passed" if problem is None else "skipped" if problem.tag == "skipped" else "failed"
        *module, last = case.get("classname", "").removeprefix("tests.api_resources.").split(".")
        holder, module = (f"{last}::", module) if last.startswith("Test") else ("", [*module, last])
        message = "" if problem is None else problem.get("message", "")
        found.append(Result(file=".".join(module), test=f"{holder}{case.get('name')}", outcome=outcome, message=message))
    return found


def known_of(name: str) -> list[Mapping[str, str]]:
    """Return the failures of a suite that are known not to be the gateway's, with a `reason` each."""
    return list(tomllib.loads((_HERE / "sdk_suites_known.toml").read_text()).get(name, []))


def reason_for(result: Result, known: Sequence[Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the entry that a failure is known by."""
    said = {"test": result.test, "says": result.message}
    of_file = (entry for entry in known if entry["file"] == result.file)
    matching = (entry for entry in of_file if all(fnmatchcase(text, entry[name]) for name, text in said.items()))
    return next(matching, None)


def judge(name: str, results: Sequence[Result], console: Console) -> bool:
    """Print a suite's table and what is wrong; tell whether all is well."""
    known = known_of(name)
    failed = {result: reason_for(result, known) for result in results if result.outcome == "failed"}
    console.print(_table(name, results, failed))
    for entry in known:
        if count := sum(reason is entry for reason in failed.values()):
            console.print(f"  {count:4} not ours: {entry['reason']}", highlight=False, markup=False, soft_wrap=True)
    unknown = [result for result, reason in failed.items() if reason is None]
    for message, count in Counter(result.message for result in unknown).most_common():
        tests = sorted({f"{result.file} {result.test.partition('[')[0]}" for result in unknown if result.message == message})
        console.print(
            f"  {count:4} FAILED: {message[:500]}\n       {', '.join(tests)}", highlight=False, markup=False, soft_wrap=True
        )
    files = {result.file for result in results}
    stale = [entry for entry in known if entry["file"] in files and not any(reason is entry for reason in failed.values())]
    for entry in stale:
        console.print(f"  known, and fails no longer: {entry['file']} {entry['test']}", highlight=False, markup=False)
    return not unknown and not stale


def _table(name: str, results: Sequence[Result], failed: Mapping[Result, Mapping[str, str] | None]) -> Table:
    table = Table("file", "passed", "failed, not ours", "failed", "skipped", title=f"{name}'s own tests")
    for file in dict.fromkeys(result.file for result in results):
        counts = Counter(result.outcome for result in results if result.file == file)
        ours = sum(result.file == file and reason is None for result, reason in failed.items())
        cells = (counts["passed"], counts["failed"] - ours, ours, counts["skipped"])
        table.add_row(file, *map(str, cells))
    return table


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", nargs="?", choices=[*SUITES, "all"], default="all")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a folder for logs, records and the suites' output")
    given = parser.parse_args()
    console = Console()
    names = [*SUITES] if given.suite == "all" else [given.suite]
    with tempfile.TemporaryDirectory(prefix="luthien-sdk-") as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        good = [judge(name, run_suite(name, folder), console) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
