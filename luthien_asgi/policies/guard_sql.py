"""A policy that keeps SQL in tool arguments to what it may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import StreamContext
from luthien_asgi.names import shown_name
from luthien_asgi.policies.checks import checked_choice, checked_message, checked_names, first_match
from luthien_asgi.policies.json_path import leaves
from luthien_asgi.policies.sql_reading import KINDS, SqlError, Statement, dialect_of, read_sql
from luthien_asgi.policies.tool_arguments import ArgumentsError, read_arguments
from luthien_asgi.policy import Allow, Deny, Handling, Hold, Policy, blocking

__all__ = ["GuardSql"]

_MESSAGE: Final = "The SQL was denied by a policy: {why}."
_TOOLS: Final = (
    "*sql*", "query", "*run_query*", "*execute_query*", "*read_query*", "*write_query*", "*db_query*", "*database_query*",
    "*query_database*", "*postgres*query*", "*bigquery*", "*snowflake*query*", "*duckdb*query*",
)  # fmt: skip
_FIELDS: Final = ("sql", "query", "queries", "statement", "statements", "sql_query", "command", "input")
_DANGEROUS: Final = (
    # files of the server
    "pg_read_*", "pg_ls_*", "pg_stat_file", "pg_file_*", "lo_*", "load_file", "readfile", "writefile", "edit", "fts3_tokenizer",
    "read_csv*", "readcsv", "read_parquet", "readparquet", "read_json*", "read_text", "read_blob", "glob", "sniff_csv", "file",
    "openrowset", "external_query", "opendatasource", "openquery", "bulk", "utl_file*",
    # programs and code
    "load_extension", "xp_*", "sp_oa*", "sp_executesql", "sp_configure", "sys_eval", "sys_exec", "dbms_scheduler*", "executable",
    "dbms_java*", "query_to_xml*", "cursor_to_xml*", "table_to_xml*", "schema_to_xml*", "database_to_xml*", "exec",
    # other servers
    "dblink*", "postgres_query", "mysql_query", "postgres_scan*", "mysql_scan*", "sqlite_scan*", "url", "s3", "remote", "http_*",
    "utl_http*", "httpuritype", "postgresql", "mysql",
    # the server itself
    "pg_terminate_backend", "pg_cancel_backend", "pg_reload_conf", "pg_rotate_logfile", "pg_switch_wal", "pg_promote",
    "pg_create_*", "pg_drop_*", "pg_replication_*", "pg_logical_*", "pg_advisory_*", "pg_try_advisory_*", "pg_sleep*", "sleep",
    "benchmark", "waitfor", "set_config", "setval", "nextval", "txid_current", "pg_notify", "get_lock", "release_lock",
    "master_pos_wait",
)  # fmt: skip


class GuardSql(Policy):
    """Deny calls of database tools whose SQL does what it may not. Needs `pip install 'luthien-asgi[sql]'`.

    `dialect` is the server's (`postgres`, `mysql`, `sqlite`, `tsql`, `bigquery`, `snowflake`, `duckdb`, …): it decides what is a
    comment and what is text, so there is no default.

    - `statements`: what may be done: of `select`, `insert`, `update`, `delete`, `merge`, `create`, `alter`, `drop`, `truncate`,
      `describe`, `show`, `transaction`, `set`, `use`. As it is: reading. All parts count: a DELETE in a WITH is a `delete`,
      `SELECT … INTO` a `create`, an EXPLAIN what it explains. What is none of them (COPY, CALL, DO, GRANT, PRAGMA, ATTACH, LOAD
      DATA, INTO OUTFILE, …) is denied whatever is listed.
    - `deny_tables`: tables that may not be named, as `name` or `schema.name`. `deny_functions`: functions that may not be
      called, beside those that read or write the server's files, load and run code, reach other servers or hold up the server
      (`pg_read_file`, `load_extension`, `xp_cmdshell`, `dblink`, `pg_sleep`, …). `allow_functions`: when it is given, functions
      that are not SQL's own may be called only if they are in it; without it one of your own that writes is not noticed. Names
      may hold `*`, `?` and `[…]`; upper and lower case do not count.
    - `require_where` (true): an UPDATE or DELETE without a WHERE that looks at a column is denied.
    - `multiple` (false): several statements in one text.
    - `tools` and `fields`: names of database tools and of their arguments with SQL, upper and lower case alike.
    - `message` is what the client sees in place of the call; `{why}` in it becomes the reason.

    SQL that does not parse is denied, and so is what servers read in different ways: a comment that MySQL runs (`/*! … */`), one
    within another, an escape in a quoted text (`\\'`, `U&'…'`). A view, trigger or function of the database can do more than its
    name says: the account that the tool uses is what bounds that.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Allow, Deny)

    def __init__(
        self,
        *,
        dialect: str,
        statements: Sequence[str] = ("select", "describe", "show"),
        deny_tables: Sequence[str] = (),
        deny_functions: Sequence[str] = (),
        allow_functions: Sequence[str] | None = None,
        require_where: bool = True,
        multiple: bool = False,
        tools: Sequence[str] = _TOOLS,
        fields: Sequence[str] = _FIELDS,
        message: str = _MESSAGE,
    ) -> None:
        self._dialect = dialect_of(dialect)
        self.dialect = dialect
        self.statements = frozenset(
            checked_choice(kind, "a statement", KINDS) for kind in checked_names(statements, "statements", "kinds of statements")
        )
        self.deny_tables = _folded(checked_names(deny_tables, "deny_tables", "names of tables"))
        self.deny_functions = (*_DANGEROUS, *_folded(checked_names(deny_functions, "deny_functions", "names of functions")))
        allowed = checked_names(allow_functions, "allow_functions", "names of functions") if allow_functions is not None else None
        self.allow_functions = _folded(allowed) if allowed is not None else None
        self.require_where = _checked_flag(require_where, "require_where")
        self.multiple = _checked_flag(multiple, "multiple")
        self.tools = _folded(checked_names(tools, "tools"))
        self.fields = frozenset(_folded(checked_names(fields, "fields", "names of arguments")))
        self.message = checked_message(message)

    @blocking
    def on_block_complete(self, block: Block, ctx: StreamContext) -> Deny | None:
        """Deny the call if its SQL does what it may not, or cannot be read."""
        del ctx
        if first_match([block.name.casefold()], self.tools) is None:
            return None
        try:
            reason = self._objection(read_arguments(block))
        except (ArgumentsError, SqlError) as error:
            reason = str(error)
        return Deny(self.message.replace("{why}", reason), reason=reason) if reason else None

    def _objection(self, arguments: Any) -> str:  # noqa: ANN401 - any JSON value
        texts = list(self._texts(arguments))
        if not texts and any(isinstance(leaf, str) and leaf.strip() for leaf in leaves(arguments)):
            return "no argument is known to hold SQL"
        for text in texts:
            statements = read_sql(text, self._dialect, self.dialect)
            if len(statements) > 1 and not self.multiple:
                return "it is more than one statement"
            for statement in statements:
                if said := self._against(statement):
                    return said
        return ""

    def _texts(self, arguments: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
        if isinstance(arguments, str):
            yield arguments
        pending = [arguments]
        while pending:
            at = pending.pop()
            if isinstance(at, list):
                pending += at
            elif isinstance(at, Mapping):
                named = [value for key, value in at.items() if key.casefold() in self.fields]
                yield from (leaf for value in named for leaf in leaves(value) if isinstance(leaf, str) and leaf.strip())
                pending += at.values()

    def _against(self, statement: Statement) -> str:
        denied = sorted(statement.kinds - self.statements)
        if denied:
            return "a part of it is no statement that can be allowed" if "other" in denied else f"{denied[0]} is not allowed"
        if "(a file)" in statement.tables:
            return "it reads a file as a table"
        for table in sorted(statement.tables):
            if first_match([table], self.deny_tables):
                return f"the table {shown_name(table)} may not be used"
        for function in sorted(statement.functions):
            if first_match([function], self.deny_functions):
                return f"the function {shown_name(function)} may not be called"
        for function in sorted(statement.unknown_functions) if self.allow_functions is not None else ():
            if first_match([function], self.allow_functions or ()) is None:
                return f"the function {shown_name(function)} is not among those allowed"
        return "it changes rows without a WHERE" if self.require_where and statement.has_free_change else ""


def _folded(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.casefold() for name in names)


def _checked_flag(value: object, what: str) -> bool:
    if isinstance(value, bool):
        return value
    msg = f"{what} must be true or false, not {value!r}"
    raise ValueError(msg)
