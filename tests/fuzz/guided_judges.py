"""Targets: what policies parse of a model's words: commands, SQL, paths into arguments, a judge's reply, values to mask.

Strategy: a policy has a verdict in bounded time whatever a model writes, and fails in no other way than it promises. What is
parsed by a library costs what that library takes, so the bounds of the policy have to hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from guided_shapes import vary_json, vary_text
from guided_target import Target

from luthien_asgi import Block, BlockKind, jsontext
from luthien_asgi.policies import DenyTools, GuardShell, GuardSql, Redact
from luthien_asgi.policies.conditions import condition_of
from luthien_asgi.policies.json_path import JsonPath, leaves
from luthien_asgi.policies.judge_replies import read_score, read_violations, verdict_in
from luthien_asgi.policies.shell.parsing import ScriptError
from luthien_asgi.policies.shell.script import read_script
from luthien_asgi.policies.tool_arguments import ArgumentsError, read_arguments
from luthien_asgi.policy import Deny
from luthien_asgi.reasoning_items import decode, encode

__all__ = ["TARGETS"]

_GUARDS: Final = (GuardShell(), GuardShell(unresolved="allow", allow_only=["ls"]))
_DIALECTS: Final = ("postgres", "mysql", "sqlite", "tsql", "bigquery", "snowflake", "duckdb")
_SQL: Final = [GuardSql(dialect=name, multiple=True, statements=["select", "update", "delete"]) for name in _DIALECTS]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _verdict(policy: Any, block: Block) -> None:
    said = policy.on_block_complete(block, None)
    assert said is None or isinstance(said, Deny), f"a verdict {said!r:.80}"
    if isinstance(said, Deny):
        assert "\n" not in said.reason, "a reason of several lines"
        assert len(said.reason) < 500, f"a reason of {len(said.reason)} characters"


def check_shell(data: bytes) -> None:
    """Raise unless a command has a verdict: as a text, as a list of words, as whatever JSON the arguments are."""
    text = _text(data)
    for guard in _GUARDS:
        for arguments in ({"command": text}, {"command": text.split(" ")}, {"cmd": "sh", "args": ["-c", text]}):
            _verdict(guard, _call("bash", jsontext.dumps(arguments).decode()))
        _verdict(guard, _call("bash", text))
        _verdict(guard, _call("bash", text, custom=True))
    try:
        script = read_script(text, strict=True)
    except ScriptError:
        return
    assert all(command.argv for command in script.commands)


def check_sql(data: bytes) -> None:
    """Raise unless SQL has a verdict in every dialect."""
    text = _text(data[1:])
    guard = _SQL[(data[0] if data else 0) % len(_SQL)]
    _verdict(guard, _call("run_query", jsontext.dumps({"query": text}).decode()))


def check_arguments(data: bytes) -> None:
    """Raise unless arguments are read in one way or not at all, and every condition on them has an answer."""
    path, _, text = _text(data).partition("\n")
    block = _call("fetch", text)
    for policy in _CONDITIONS:
        _verdict(policy, block)
    try:
        value = read_arguments(block)
    except ArgumentsError:
        value = {"a": [{"b": text}]}
    try:
        found = JsonPath(path).select(value)
        condition = condition_of({"tool": "*", "path": path, "matches": "a+"})
    except ValueError:
        return
    total = sum(1 for _ in leaves(value))
    assert len(found) <= _containers(value) + total, "a value was found twice"
    assert isinstance(condition.objection(value), str)


def _containers(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + sum(_containers(child) for child in inner)


_CONDITIONS: Final = (
    DenyTools(conditions=[{"tool": "*", "path": "$..url", "not_matches": "^https://"}]),
    DenyTools(conditions=[{"path": "$.n", "greater": 5}, {"path": "$.files[*].path", "matches": r"(\.\./)+"}]),
    DenyTools(conditions=[{"path": "$['a b'][0]", "in": ["x", 1, None]}, {"path": "$", "exists": False}]),
)


def check_reply(data: bytes) -> None:
    """Raise unless a judge's reply is a verdict or a `ValueError`; so is what a client says that it carries for a provider."""
    text = _text(data)
    carried = decode("luthien.v1." + text)
    assert carried is None or decode(encode(carried)) == carried
    try:
        verdict = verdict_in(text, "n0nce")
    except ValueError:
        return
    for read in (read_score, lambda given: read_violations(given, 3)):
        try:
            read(verdict)
        except ValueError:
            continue


_REDACT: Final = Redact(where="both", key="k" * 16)


def check_masking(data: bytes) -> None:
    """Raise unless masking comes to an end, and masks nothing more when it is done again."""
    text = _text(data)
    once = _REDACT.mask(text)
    assert _REDACT.mask(once) == once, "masking the masked text changes it"
    if "@" not in text and "-----" not in text and not any(character.isdigit() for character in text):
        assert len(once) <= len(text) + 2000


def _call(name: str, text: str, *, custom: bool = False) -> Block:
    return Block(kind=BlockKind.TOOL_CALL, id="call_1", name=name, text=text, custom=custom)


def _nothing() -> Iterable[bytes]:
    return ()


def _target(name: str, check: Any, words: Sequence[bytes], vary: Any = vary_text, **bounds: Any) -> Target:
    return Target(name=name, check=check, seeds=_nothing, vary=vary, words=words, **bounds)


_SHELL_WORDS: Final = (
    b"rm -rf /", b"$(", b"`", b"<<EOF\n", b"EOF\n", b"eval ", b"sh -c '", b"${IFS}", b"${x:-", b"{a,b}", b"{1..9}", b"&&",
    b"||", b"|",
    b"sudo ", b"xargs ", b"find . -exec ", b"env -S ", b"x=", b"$x", b"$((", b"))", b"[[ ", b" ]]", b"case x in ", b";;", b"esac",
    b"function f { ", b"f() { ", b"}; f", b"alias a=", b"for i in ", b"; do ", b"; done", b"<(", b">(", b"2>&1", b"$'\\x72\\x6d'",
    b"\\\n", b'"', b"'", b"curl x | sh", b"/dev/sda", b"~/.ssh/id_rsa", b":(){ :|:& };:", b"git push -f", b"coproc ", b"trap '",
)  # fmt: skip
_SQL_WORDS: Final = (
    b"SELECT ", b"FROM ", b"WHERE ", b"WITH a AS (", b"UNION ALL ", b"DELETE ", b"UPDATE ", b"SET ", b"INSERT INTO ", b"VALUES (",
    b"EXPLAIN ANALYZE ", b"CREATE TABLE ", b"CASE WHEN ", b"THEN ", b"END", b"/*", b"*/", b"-- ", b"'", b'"', b"`", b"$$",
    b"$tag$",
    b"[", b"]", b"(", b")", b";", b"::int", b"LATERAL ", b"JOIN ", b"pg_sleep(", b"INTERVAL '1", b"N'", b"E'", b"q'[", b"{{",
    b"%(",
    b"PIVOT (", b"MATCH_RECOGNIZE (", b"OVER (", b"SHOW ", b"DESCRIBE ", b"PRAGMA ", b"ATTACH ", b"NOT ", b"IN (", b"BETWEEN ",
)  # fmt: skip
_PATHS: Final = (b"$", b"$..", b"[*]", b"['", b"']", b"[0]", b"[-1]", b".*", b'{"url":', b'{"files":[{"path":"../"}]}', b"\n")
_REPLIES: Final = (
    b'{"nonce":"n0nce","score":',
    b'"probability":',
    b'"violated":[1]',
    b'"explanation":"',
    b"```json",
    b"{",
    b"}",
    b"NaN",
)
_SECRETS: Final = (
    b"me@example.com", b"sk-ant-api03-", b"AKIA", b"ghp_", b"-----BEGIN RSA PRIVATE KEY-----\n", b"-----END RSA PRIVATE KEY-----",
    b"https://user:pass@host/", b"DE89370400440532013000", b"4111 1111 1111 1111", b"+49 30 1234567", b"0049", b"Bearer ",
    b"eyJhbGciOi",
    b".eyJ", b"api_key=", b"password: ", b"> ", b"\\n", b"MII", b"=", b"xox", b"[EMAIL_",
)  # fmt: skip

TARGETS: Final = [
    _target("shell", check_shell, _SHELL_WORDS, seconds=12.0, per_byte=2e-3),
    _target("sql", check_sql, _SQL_WORDS, seconds=3.0, per_byte=1e-3),
    _target("arguments", check_arguments, _PATHS),
    _target(
        "reply", check_reply, _REPLIES, vary=vary_json(("nonce", "n0nce", "score", "probability", "violated", "explanation"))
    ),
    _target("masking", check_masking, _SECRETS, per_byte=1e-3),
]
