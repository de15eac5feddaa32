"""The documents and the code agree: what a document lists is what there is.

The tables of `docs/conversion.md` and the layers of `ARCHITECTURE.md` are written from the code: `python tests/test_docs.py`
writes them anew.
"""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

import luthien_asgi
from luthien_asgi import Policy, docstrings, listing
from luthien_asgi.errors import TYPE_OF_STATUS, ApiError
from luthien_asgi.testing import (
    Redacted,
    Refusal,
    ScriptedBackend,
    Text,
    Thinking,
    ToolCall,
    build_chunk,
    chunks,
    finish,
    role,
    run_policy,
    text_chunk,
)
from luthien_asgi.wire.answers_anthropic import ANTHROPIC_ANSWERS, ANTHROPIC_ERRORS
from luthien_asgi.wire.answers_openai import OPENAI_ANSWERS, OPENAI_ERRORS
from luthien_asgi.wire.error_bodies import anthropic_error, openai_error
from luthien_asgi.wire.fates import Row, Table
from luthien_asgi.wire.parameters import ANTHROPIC, OPENAI, RESPONSES, Parameter
from luthien_asgi.wire.parts_anthropic import ANTHROPIC_PARTS
from luthien_asgi.wire.parts_openai import OPENAI_PARTS
from luthien_asgi.wire.thinking import BUDGETS, EFFORT_IN_ADAPTIVE
from luthien_asgi.wire.usage import FINISH_REASON_OF_STOP_REASON, STOP_REASON_OF_FINISH_REASON

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "luthien_asgi"
DOCUMENTS: Final = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/conversion.md",
    "docs/faults.md",
)
ARCHITECTURE: Final = ROOT / "ARCHITECTURE.md"
README: Final = ROOT / "README.md"
CONVERSION: Final = ROOT / "docs" / "conversion.md"
WIDTH: Final = 120


# --- what is written from the code -----------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def parameters(rows: Mapping[str, Parameter]) -> str:
    """Return the table of one client format's parameters."""
    return table(["parameter", "fate", "what becomes of it, or why not", "nothing is lost with"], map(parameter, rows.values()))


def parameter(row: Parameter) -> Sequence[str]:
    fate = str(row.fate) if row.accepted else "refused everywhere"
    neutral = ", ".join(f"`{json.dumps(value)}`" for value in row.neutral)
    return [f"`{row.name}`", fate, row.note, neutral]


def fates(rows: Table) -> str:
    """Return the table of one format's parts in one direction."""
    return table(["part", "fate", "what it becomes", "how, or why not", "nothing is lost with"], map(part, rows.rows.values()))


def part(row: Row) -> Sequence[str]:
    neutral = ", ".join(f"`{json.dumps(value)}`" for value in row.neutral)
    return [f"`{row.path}`", str(row.fate), f"`{row.to}`" if row.to else "", row.note, neutral]


def efforts() -> str:
    head = ["`reasoning_effort`", "`thinking.budget_tokens`", "`output_config.effort` with `thinking: adaptive`"]
    return table(head, ([f"`{name}`", str(budget), f"`{EFFORT_IN_ADAPTIVE[name]}`"] for name, budget in BUDGETS.items()))


def reasons(words: Mapping[str, str], head: Sequence[str]) -> str:
    return table(head, ([f"`{ours}`", f"`{theirs}`"] for ours, theirs in words.items()))


def errors() -> str:
    head = ["status", "Anthropic client: `error.type`", "OpenAI client: `error.type`", "OpenAI client: `error.code`"]
    return table(head, map(error_row, TYPE_OF_STATUS))


def error_row(status: int) -> Sequence[str]:
    error = ApiError("", status=status)
    said = openai_error(error)
    code = f"`{said['code']}`" if said["code"] else ""
    return [str(status), f"`{anthropic_error(error)['type']}`", f"`{said['type']}`", code]


def layers() -> str:
    """Return the layers of the import contract, as the tool that checks them reads them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found: list[str] = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return "\n".join(["```text", *found, "```"])


def shipped() -> str:
    """Return the table of the policies that ship."""
    rows = ((f"`{cls.__name__}`", docstrings.summary(docstrings.of(cls))) for cls in listing.shipped())
    return table(["policy", "what it does"], rows)


GENERATED: Final = {
    README: {"policies": shipped},
    CONVERSION: {
        "openai parameters": lambda: parameters(OPENAI),
        "anthropic parameters": lambda: parameters(ANTHROPIC),
        "openai parts": lambda: fates(OPENAI_PARTS),
        "anthropic parts": lambda: fates(ANTHROPIC_PARTS),
        "anthropic answers": lambda: fates(ANTHROPIC_ANSWERS),
        "openai answers": lambda: fates(OPENAI_ANSWERS),
        "anthropic errors": lambda: fates(ANTHROPIC_ERRORS),
        "openai errors": lambda: fates(OPENAI_ERRORS),
        "responses parameters": lambda: parameters(RESPONSES),
        "efforts": efforts,
        "finish reasons": lambda: reasons(STOP_REASON_OF_FINISH_REASON, ["`finish_reason` of the backend", "`stop_reason`"]),
        "stop reasons": lambda: reasons(FINISH_REASON_OF_STOP_REASON, ["`stop_reason` of the backend", "`finish_reason`"]),
        "errors": errors,
    },
    ARCHITECTURE: {"layers": layers},
}


def part_of(text: str, name: str) -> re.Match[str]:
    found = re.search(rf"<!-- from the code: {name} -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL)
    assert found is not None, f"no part {name!r}"
    return found


def write() -> None:
    """Write anew what is written from the code."""
    for path, parts in GENERATED.items():
        text = path.read_text()
        for name, make in parts.items():
            at = part_of(text, name)
            text = f"{text[: at.start(1)]}{make()}{text[at.end(1) :]}"
        path.write_text(text)


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, parts in GENERATED.items() for name in parts])
def test_a_part_that_is_written_from_the_code_is_up_to_date(path: Path, name: str) -> None:
    """If it is not: `python tests/test_docs.py`."""
    assert part_of(path.read_text(), name)[1] == GENERATED[path][name]()


# --- ARCHITECTURE.md -------------------------------------------------------------------------------------------------------


def section(path: Path, title: str) -> str:
    """Return one section of a document."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", path.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{path.name} has no section {title!r}"
    return found[1]


def test_the_module_map_has_every_module_once() -> None:
    """One line a module, each with a word about it; none that is not there."""
    rows = re.findall(r"^\| `([\w/]+\.py)` \| (\S.*) \|$", section(ARCHITECTURE, "The modules"), re.MULTILINE)
    modules = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
    assert sorted(name for name, _ in rows) == modules


def places(text: str) -> list[tuple[str, str]]:
    """Return the places in the code that a text names: `file.py::Class.method`."""
    return re.findall(r"`([\w./]+\.py)::([\w.]+)`", text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_place_that_a_document_names_is_there(document: str) -> None:
    """A function that was renamed or moved is noticed."""
    missing = [(file, name) for file, name in places((ROOT / document).read_text()) if not is_defined(file, name)]
    assert missing == []


def test_the_way_of_a_request_names_its_places() -> None:
    """Step by step, with files and functions."""
    assert len(places(section(ARCHITECTURE, "One request's way"))) >= 30


def is_defined(file: str, name: str) -> bool:
    path = next((base / file for base in (PACKAGE, ROOT) if (base / file).is_file()), None)
    scope: Any = ast.parse(path.read_text()) if path is not None else None
    for part in name.split("."):
        scope = next((node for node in getattr(scope, "body", ()) if part in names_of(node)), None)
    return scope is not None


def names_of(node: ast.stmt) -> Sequence[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case _:
            return []


def test_the_recorded_exceptions_are_listed(recorded: Path) -> None:
    """Each names recordings that are there; the ones that the test of the recordings makes an exception for are among them."""
    text = section(ARCHITECTURE, "Recorded streams that come out differently")
    listed = re.findall(r"`([\w-]+/[\w.-]+\.(?:sse|jsonl))`", text)
    assert [name for name in listed if not (recorded / name).is_file()] == []
    source = (ROOT / "tests" / "test_recorded.py").read_text()
    assert set(re.findall(r'^    "([\w-]+/[\w.-]+)": ', source, re.MULTILINE)) <= set(listed)


# --- docs/conversion.md ----------------------------------------------------------------------------------------------------

SEARCH: Final = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
CITATION: Final = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "citations_delta", "citation": {"cited_text": "x"}},
}


def chunk(delta: Mapping[str, Any], *, rider: Mapping[str, Any] | None = None, choice: int = 0) -> Any:
    said = {"index": choice, "delta": dict(delta), "finish_reason": None, "logprobs": None}
    data = {"id": "x", "created": 1, "model": "m", "choices": [said]}
    return build_chunk(data | {"provider_specific_fields": rider} if rider else data)


def ran_at_the_provider() -> list[Any]:
    start = {"type": "content_block_start", "index": 0, "content_block": SEARCH}
    rider = {"kind": "other", "index": 0}
    return [chunk({}, rider={**rider, "phase": "open", "anthropic": start}), chunk({}, rider={**rider, "phase": "close"})]


def calls_of(message: Mapping[str, Any]) -> list[Any]:
    return [call["function"] for call in message.get("tool_calls", ())]


TO_OPENAI: Final = {
    "text": (chunks(Text("a"))[1:2], lambda message: message["content"] == "a"),
    "citations of a text": (
        [text_chunk("a"), chunk({}, rider={"kind": "text", "phase": "delta", "anthropic": CITATION})],
        lambda message: message == {"role": "assistant", "content": "a", "refusal": None},
    ),
    "thinking": (
        chunks(Thinking("a", signature="s"))[1:-2],
        lambda message: message["reasoning_content"] == "a" and "s" not in message.values(),
    ),
    "redacted thinking": (
        chunks(Redacted("a"), "b")[1:-2],
        lambda message: message == {"role": "assistant", "content": "b", "refusal": None},
    ),
    "tool_use": (
        chunks(ToolCall("c", "f", '{"a": 1}'))[1:-2],
        lambda message: calls_of(message) == [{"name": "f", "arguments": '{"a": 1}'}],
    ),
    "server tools, MCP, compaction, what is to come": (
        [*ran_at_the_provider(), text_chunk("b")],
        lambda message: message == {"role": "assistant", "content": "b", "refusal": None},
    ),
}
TO_ANTHROPIC: Final = {
    "content": (chunks(Text("a"))[1:2], lambda blocks: blocks == [{"type": "text", "text": "a"}]),
    "annotations, logprobs": (
        [chunk({"content": "a", "annotations": [{"type": "url_citation"}]})],
        lambda blocks: blocks == [{"type": "text", "text": "a"}],
    ),
    "reasoning_content": (
        [chunk({"reasoning_content": "a"}), text_chunk("b")],
        lambda blocks: blocks[0] == {"type": "thinking", "thinking": "a", "signature": ""},
    ),
    "refusal": (chunks(Refusal("a"))[1:-2], lambda blocks: blocks == [{"type": "text", "text": "a"}]),
    "tool_calls": (
        chunks(ToolCall("c", "f", '{"a": 1}'))[1:-2],
        lambda blocks: blocks == [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}],
    ),
    "custom tool calls": (
        [chunk({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "a"}}]})],
        lambda blocks: blocks == [{"type": "tool_use", "id": "c", "name": "f", "input": {"input": "a"}}],
    ),
    "audio, images": ([chunk({"audio": {"id": "a"}}), text_chunk("b")], lambda blocks: blocks == [{"type": "text", "text": "b"}]),
    "choices after the first": (
        [text_chunk("a"), role(choice=1), text_chunk("b", choice=1), finish(choice=1)],
        lambda blocks: blocks == [{"type": "text", "text": "a"}],
    ),
}


@pytest.mark.parametrize("name", TO_OPENAI)
async def test_what_an_openai_client_gets_of_an_anthropic_answer(name: str) -> None:
    """Row by row of the document's table."""
    parts, is_right = TO_OPENAI[name]
    backend = ScriptedBackend([role(), *parts, finish("stop")], wire="anthropic")
    run = await run_policy(Policy(), backend, stream=False)
    assert is_right(run.body["choices"][0]["message"]), run.body


@pytest.mark.parametrize("name", TO_ANTHROPIC)
async def test_what_an_anthropic_client_gets_of_an_openai_answer(name: str) -> None:
    """Row by row of the document's table."""
    parts, is_right = TO_ANTHROPIC[name]
    run = await run_policy(Policy(), [role(), *parts, finish("stop")], client="anthropic", stream=False)
    assert is_right(run.body["content"]), run.body


@pytest.mark.parametrize(
    ("title", "rows"), [("An OpenAI client, an answer", TO_OPENAI), ("An Anthropic client, an answer", TO_ANTHROPIC)]
)
def test_the_tables_of_blocks_have_the_rows_that_are_tested(title: str, rows: Mapping[str, Any]) -> None:
    """No row is a promise that nothing holds."""
    found = re.search(rf"^### {title}.*?\n\n(\|.*?)\n\n", CONVERSION.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    firsts = [line.split("|")[1].replace("`", "").strip() for line in found[1].splitlines()[2:]]
    assert firsts == list(rows)


# --- all of them -----------------------------------------------------------------------------------------------------------


def test_the_newest_entry_of_the_changelog_is_the_version_of_the_package() -> None:
    """As the package says it, and as its metadata does."""
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert versions[0] == luthien_asgi.__version__ == project["version"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_lines_of_a_document_are_short(document: str) -> None:
    """120 characters; rows of tables cannot be broken."""
    lines = (ROOT / document).read_text().splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("|")] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(document: str) -> None:
    """To a file of the repository, and to a heading that it has."""
    here = ROOT / document
    links = re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", here.read_text(), flags=re.DOTALL | re.MULTILINE))
    assert [link for link in links if not leads_somewhere(here, link)] == []


def leads_somewhere(here: Path, link: str) -> bool:
    if link.startswith("https://"):
        return True
    name, _, anchor = link.partition("#")
    target = here.parent / name if name else here
    return target.exists() and (not anchor or anchor in set(anchors(target)))


def anchors(path: Path) -> Iterator[str]:
    for title in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_no_place_of_this_machine(document: str) -> None:
    """It is read on others."""
    assert not re.search(r"(?:^|[\s`\"'(])(?:/home/|/root/|/work/|/tmp/|[A-Z]:\\)", (ROOT / document).read_text(), re.MULTILINE)


if __name__ == "__main__":
    os.chdir(ROOT)
    write()
