"""Reads SQL in tool arguments: its statements, what each does, and what it calls and touches.

Why sqlglot: it is kept, under the MIT licence, needs nothing else and knows the dialects; it comes with the extra `sql`. It is
given little rope: what it reads otherwise than a server might (comments, escaped quotes) is refused before it is asked, what it
only skips over (its `Command`) is no statement that is understood, and its size is bounded.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlglot import Dialect

__all__ = ["KINDS", "SqlError", "Statement", "dialect_of", "read_sql"]

LONGEST: Final = 50_000
_MOST_TOKENS: Final = 5000
_DEEPEST: Final = 25
"""Nesting of parentheses: the parser's time doubles with some of them."""
_STATEMENTS: Final = {
    "select": ("Select", "SetOperation", "Values", "Subquery"),
    "insert": ("Insert",),
    "update": ("Update",),
    "delete": ("Delete",),
    "merge": ("Merge",),
    "create": ("Create", "Into"),
    "alter": ("Alter",),
    "drop": ("Drop",),
    "truncate": ("TruncateTable",),
    "describe": ("Describe",),
    "show": ("Show",),
    "transaction": ("Transaction", "Commit", "Rollback"),
    "set": ("Set",),
    "use": ("Use",),
}
KINDS: Final = tuple(_STATEMENTS)
"""What a statement may do, by name."""
_NEVER: Final = (
    "Command", "Copy", "LoadData", "Execute", "Kill", "Pragma", "Attach", "Detach", "Install", "Analyze", "Grant", "Revoke",
    "Export", "Cache", "Uncache", "Refresh", "AlterSession", "Comment", "Block", "IfBlock", "WhileBlock", "Declare", "Put", "Get",
    "Summarize",
)  # fmt: skip
"""What is part of no allowed statement, wherever it stands."""
_NESTING: Final = {
    **dict.fromkeys(("L_PAREN", "L_BRACKET", "L_BRACE", "CASE"), 1),
    **dict.fromkeys(("R_PAREN", "R_BRACKET", "R_BRACE", "END"), -1),
}
_DASHES_WANT_SPACE: Final = frozenset({"mysql", "doris", "starrocks", "singlestore"})
_RUN_COMMENT: Final = re.compile(r"/\*M?!", re.IGNORECASE)
_TIGHT_DASHES: Final = re.compile(r"--(?![\s-])")
_FILE: Final = re.compile(r"[/\\:*]|\.(csv|tsv|parquet|jsonl?|ndjson|xlsx|gz|zst|db|duckdb|sqlite\d?)$", re.IGNORECASE)


class SqlError(ValueError):
    """SQL that is not read; the message says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, as far as rules look at it."""

    kinds: frozenset[str]
    """All that it does: a `WITH` may hold a DELETE. `other` is what no rule can allow."""
    functions: frozenset[str]
    """Functions that it calls, in lower case."""
    unknown_functions: frozenset[str]
    """Those of them that the parser does not know: the database's own, or a user's."""
    tables: frozenset[str]
    """Tables that it names, in lower case: each by its own name and with its schema and catalogue."""
    has_free_change: bool
    """Whether an UPDATE or DELETE in it has no WHERE that looks at a column."""


def dialect_of(name: object) -> Dialect:
    """Return a dialect by its name. Raises `ValueError`, also where the parser is not installed."""
    try:
        from sqlglot import Dialect, Dialects
    except ImportError as error:
        msg = f"GuardSql needs a parser of SQL, pip install 'luthien-asgi[sql]': {error}"
        raise ValueError(msg) from None
    known = sorted(dialect.value for dialect in Dialects if dialect.value)
    if name not in known:
        msg = f"dialect must be one of {', '.join(known)}, not {name!r}: dialects differ in what is a comment and what is text"
        raise ValueError(msg)
    _silence()
    return Dialect.get_or_raise(str(name))


_judging: ContextVar[bool] = ContextVar("luthien_asgi_reads_sql", default=False)


@cache
def _silence() -> None:
    """Keep the parser from logging what it cannot read: that is content, and a host's own use of it is left alone."""
    logging.getLogger("sqlglot").addFilter(lambda _: not _judging.get())


def read_sql(text: str, dialect: Dialect, name: str) -> list[Statement]:
    """Return the statements of a text. Raises `SqlError` for what cannot be read, or may be read in two ways."""
    from sqlglot.errors import SqlglotError

    _check_text(text, name)
    token = _judging.set(True)
    try:
        tokens = list(dialect.tokenize(text))
        _check_tokens(tokens, text)
        return [_statement(text, part, dialect) for part in _parts(tokens)]
    except SqlglotError:
        msg = "the SQL cannot be parsed"
        raise SqlError(msg) from None
    except RecursionError:
        msg = "the SQL is nested too deeply"
        raise SqlError(msg) from None
    finally:
        _judging.reset(token)


def _check_text(text: str, name: str) -> None:
    if len(text) > LONGEST:
        msg = f"the SQL is longer than {LONGEST} characters"
        raise SqlError(msg)
    if "\0" in text or re.search(r"\r(?!\n)", text):
        msg = "the SQL has a control character in it"
        raise SqlError(msg)
    if _RUN_COMMENT.search(text):
        msg = "the SQL has a comment that is run"
        raise SqlError(msg)
    if re.search(r"\\['\"`]|\bU&['\"]", text, re.IGNORECASE):
        msg = "the SQL has an escape in a quoted text, which servers read in different ways"
        raise SqlError(msg)
    if name in _DASHES_WANT_SPACE and _TIGHT_DASHES.search(text):
        msg = "the SQL has two dashes without a space, which is no comment to every server"
        raise SqlError(msg)


def _check_tokens(tokens: Sequence[Any], text: str) -> None:
    if len(tokens) > _MOST_TOKENS:
        msg = f"the SQL has more than {_MOST_TOKENS} words"
        raise SqlError(msg)
    depth = 0
    for token in tokens:
        depth += _NESTING.get(token.token_type.name, 0)
        if depth > _DEEPEST:
            msg = f"the SQL is nested more than {_DEEPEST} deep"
            raise SqlError(msg)
        if any("/*" in comment or "*/" in comment for comment in token.comments):
            msg = "the SQL has a comment in a comment"
            raise SqlError(msg)
    if not tokens and text.strip():
        msg = "the SQL is nothing but comments"
        raise SqlError(msg)


def _parts(tokens: Sequence[Any]) -> Iterator[list[Any]]:
    """Part the tokens at semicolons, and take `EXPLAIN` from the front: what is explained may be run."""
    part: list[Any] = []
    for token in tokens:
        if token.token_type.name == "SEMICOLON":
            if part:
                yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part


_EXPLAIN: Final = re.compile(
    r"\s*EXPLAIN\s+(?:\([\w\s,]*\)\s*|(?:ANALYZE|VERBOSE|EXTENDED|QUERY\s+PLAN|FORMAT\s*=?\s*\w+)\s+)*", re.IGNORECASE
)


def _statement(text: str, part: Sequence[Any], dialect: Dialect) -> Statement:
    source = text[part[0].start : part[-1].end + 1]
    explained = _EXPLAIN.match(source)
    if explained:
        source = source[explained.end() :]
    if re.fullmatch(r"SHOW(\s+[\w.%']+)*", source, re.IGNORECASE):
        return Statement(frozenset({"show"}), frozenset(), frozenset(), frozenset(), has_free_change=False)
    found = [tree for tree in dialect.parse(source) if tree is not None]
    if len(found) != 1:
        msg = "the SQL cannot be parsed"
        raise SqlError(msg)
    return _read(found[0])


def _read(tree: Any) -> Statement:  # noqa: ANN401 - an expression
    from sqlglot import exp

    kinds = set()
    functions: set[str] = set()
    unknown: set[str] = set()
    tables: set[str] = set()
    free = False
    for node in tree.walk():
        kind = _kind(node)
        kinds |= {kind} if kind else {"other"} if node is tree else set()
        if isinstance(node, exp.Anonymous):
            unknown.add(node.name.casefold())
        elif isinstance(node, exp.Func):
            functions |= {str(name).casefold() for name in (node.key, *node.sql_names())}
        elif isinstance(node, exp.Table):
            tables |= _names(node)
        if isinstance(node, exp.Update | exp.Delete):
            where = node.args.get("where")
            free = free or where is None or not any(where.find_all(exp.Column))
    return Statement(
        frozenset(kinds), frozenset(functions | unknown), frozenset(unknown), frozenset(tables), has_free_change=free
    )


def _kind(node: Any) -> str | None:  # noqa: ANN401 - an expression
    ancestry = {cls.__name__ for cls in type(node).__mro__}
    if not ancestry.isdisjoint(_NEVER):
        return "other"
    return next((kind for kind, names in _STATEMENTS.items() if not ancestry.isdisjoint(names)), None)


def _names(table: Any) -> set[str]:  # noqa: ANN401 - an expression
    parts = [part.casefold() for part in (table.catalog, table.db, table.name) if part]
    names = {".".join(parts[place:]) for place in range(len(parts))}
    return names | ({"(a file)"} if parts and _FILE.search(parts[-1]) else set())
