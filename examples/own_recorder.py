r"""A recorder of your own: one row a transaction in SQLite.

Use it in a configuration file beside it,

    record: {sink: own_recorder.SqliteRecorder, config: {path: transactions.db}}

then

    luthien-asgi serve --config luthien.yaml
    curl localhost:4000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "fast", "messages": [{"role": "user", "content": "Say hello."}]}'
    sqlite3 transactions.db 'SELECT model, ending, verdicts FROM transactions'

The trap: a recorder runs on the event loop that carries every stream, so nothing in it may block; here a thread writes. What
`begin` raises stops the transaction before the provider is called: what cannot be recorded does not happen.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict

from anyio import to_thread

from luthien_asgi import Begin, End


class SqliteRecorder:
    """Keeps who asked for which model, how it ended, and what the policy said."""

    wants_blocks = False

    def __init__(self, *, path: str) -> None:
        self.path = path

    async def start(self) -> None:
        columns = "id TEXT PRIMARY KEY, client TEXT, model TEXT, ending TEXT, verdicts TEXT"
        await to_thread.run_sync(self._write, f"CREATE TABLE IF NOT EXISTS transactions ({columns})", ())

    async def begin(self, begin: Begin) -> None:
        values = (begin.id, begin.client, begin.model)
        await to_thread.run_sync(self._write, "INSERT INTO transactions (id, client, model) VALUES (?, ?, ?)", values)

    async def end(self, end: End) -> None:
        verdicts = json.dumps([asdict(verdict) for verdict in end.verdicts])
        values = (end.ending, verdicts, end.id)
        await to_thread.run_sync(self._write, "UPDATE transactions SET ending = ?, verdicts = ? WHERE id = ?", values)

    async def aclose(self) -> None:
        """Nothing stays open between two writes."""

    def _write(self, statement: str, values: tuple[str, ...]) -> None:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                connection.execute(statement, values)
        finally:
            connection.close()
