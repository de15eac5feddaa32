"""Lines of the log and of the terminal are ours: nobody else's words begin one, colour one or hide one."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hostile_stage import FORMATS, Stage, gateway, question
from hostile_texts import ENDS_A_FRAME, EVIL

import luthien_asgi
from luthien_asgi import Block, BlockKind, Hold, Policy, StreamContext
from luthien_asgi.cli import main
from luthien_asgi.logs import logger_of, one_line, printable
from luthien_asgi.testing import Answer, RawStream, ScriptedProvider, ToolCall

PACKAGE = Path(str(luthien_asgi.__file__)).parent
KEY = "sk-planted-0123456789abcdef"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """What the loggers of the package wrote, formatted as a handler does."""
    caplog.set_level(logging.DEBUG)
    formatter = logging.Formatter("%(levelname)s %(name)s %(message)s")
    return lambda: [formatter.format(record) for record in caplog.records if record.name.startswith("luthien_asgi")]


def harmless(written: list[str]) -> None:
    for text in written:
        assert not {letter for letter in text if not letter.isprintable() and letter != "\n"}, text
        for line in text.split("\n"):
            assert not line.lstrip().startswith(("data:", "event:", "forged", "id:")), text


def test_every_logger_of_the_package_is_made_by_the_one_function() -> None:
    """A module that made its own would have no filter."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger" and path.name != "logs.py":
                named = ast.unparse(node.args[0]) if node.args else ""
                assert "__name__" not in named, path.name
                assert "luthien" not in named, path.name


def test_a_message_is_one_line_whatever_is_in_it(lines: Any) -> None:
    """Arguments and messages, of any type; a number stays a number, and what is plain is not touched."""
    log = logger_of("luthien_asgi.hostile")
    for evil in EVIL:
        log.warning("the model %s said %r", evil, evil)
        log.warning(evil)  # noqa: G010, RUF100 - no template
        log.error("it failed: %s", ValueError(evil))
    log.info("%d of %s in %.1f s", 3, "three", 0.5)
    written = lines()
    assert written[-1] == "INFO luthien_asgi.hostile 3 of three in 0.5 s"
    assert not any("\n" in text for text in written)
    harmless(written)


def test_a_traceback_keeps_its_lines_and_nobody_elses(lines: Any) -> None:
    """Of a chain and of a group of exceptions each one's words are one line, with no key in it."""
    log = logger_of("luthien_asgi.hostile")
    group = ExceptionGroup("group\nforged", [OSError(f"no {KEY}\rforged")])
    try:
        _fail(group)
    except ExceptionGroup:
        log.exception("it failed")
    (text,) = lines()
    harmless([text])
    assert KEY not in text
    assert [line for line in text.split("\n") if "rror" in line and "forged" in line] == [
        one_line(f"ValueError: {ENDS_A_FRAME}"),
        "OSError: no [redacted]\\rforged",
    ]
    assert text.count("Traceback (most recent call last):") == 3
    assert "in _fail" in text


def _fail(group: ExceptionGroup[OSError]) -> None:
    try:
        raise ValueError(ENDS_A_FRAME)  # noqa: TRY301 - it has to have a context
    except ValueError as inner:
        raise group from inner


def test_plain_text_costs_nothing_and_stays() -> None:
    """Letters of every script are letters."""
    for text in ("plain", "Grüße, 世界 🎉", ""):
        assert printable(text) == one_line(text) == text
    assert (printable("a\nb\tc"), one_line("a\nb\tc")) == ("a\nb\\tc", "a\\nb\\tc")


class Raises(Policy):
    """Fails with what the model said."""

    handles = {BlockKind.TEXT: Hold(), BlockKind.TOOL_CALL: Hold()}  # noqa: RUF012

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        raise ValueError(block.text + block.name)


@pytest.mark.litellm
@pytest.mark.parametrize("wire", FORMATS)
def test_no_text_from_outside_makes_a_line(serve: Any, canary: Any, lines: Any, wire: str) -> None:
    """Models, errors, what policies raise: nothing that came in begins a line of the log."""
    with ScriptedProvider(Answer("fine")) as provider:
        stage = Stage(provider, canary, serve(gateway(provider.url, policy=Raises()), lifespan="on"))
        for evil in EVIL:
            error = json.dumps({"error": {"message": evil, "type": evil, "code": evil}}).encode()
            for reply in (
                Answer(evil),
                Answer(ToolCall("call_1", f"f{evil}")),
                RawStream(error, content_type="application/json", status=400),
                RawStream(b"data: " + error + b"\n\n"),
            ):
                provider.script = reply
                stage.ask(wire, question(wire, "openai"))
            stage.ask(wire, question(wire, f"m{evil}"))
            stage.ask(wire, question(wire, "openai", **{evil: evil}))
        stage.close()
    written = lines()
    assert len(written) > len(EVIL)
    harmless(written)


# --- the terminal ----------------------------------------------------------------------------------------------------------


def plain(text: str) -> None:
    assert not {letter for letter in text if not letter.isprintable() and letter != "\n"}


@pytest.mark.parametrize("evil", EVIL)
def test_check_and_policies_print_no_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str], evil: str) -> None:
    """Of a configuration that somebody else wrote, good or bad."""
    text = evil.encode("utf-8", "replace").decode()
    models = [{"model_name": f"m{text}", "litellm_params": {"model": f"openai/{text}", "api_key": "x"}}]
    for config in (
        {"model_list": models, "auth": {"keys": [{"name": "n", "key": "k" * 40}, "j" * 40]}},
        {"model_list": models, "policy": {"class": text}},
        {"model_list": models, text: 1, "settings": {text: text}},
        {"model_list": [{"model_name": text, text: 1}]},
    ):
        file = tmp_path / "luthien.yaml"
        file.write_text(json.dumps(config))
        main(["check", "--config", str(file)])
        shown = capsys.readouterr()
        plain(shown.out)
        plain(shown.err)
        assert shown.out + shown.err
    assert main(["policies", text]) == 2
    plain(capsys.readouterr().err)


@pytest.mark.parametrize("evil", EVIL)
def test_validate_prints_no_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str], evil: str) -> None:
    """Of a stream that somebody recorded: names, types, texts and lines that are none."""
    chunk = {"id": evil, "object": evil, "choices": [{"index": 0, "delta": {evil: evil, "role": evil}, "finish_reason": evil}]}
    file = tmp_path / "stream.sse"
    for content in (
        b"data: " + json.dumps(chunk).encode() + b"\n\n",
        f"event: x\x1b]0;t\x07\ndata: {{\x1b[2J}}\n\n{evil!r}".encode(),
    ):
        file.write_bytes(content)
        main(["validate", str(file)])
        shown = capsys.readouterr()
        plain(shown.out)
        plain(shown.err)
