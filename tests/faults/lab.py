"""The laboratory: providers, servers, and the cells that run between them, each group with what it leaves behind."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lab_cell import Cell
from lab_http import polled
from lab_provider_rows import Redirect
from lab_rows import WIRES, Row, answer
from lab_servers import Server
from lab_verdict import judge

from luthien_asgi.testing import ProviderRequest, ScriptedProvider

AT_ONCE: Final = 4
"""Cells of one process that run beside each other."""
SETTLE_SECONDS: Final = 12.0
"""How long a process may take to put away what its transactions had."""
MARKER: Final = re.compile(rb"cell-\d+-")


@dataclass
class Lab:
    """Everything that is open while cells run."""

    folder: Path
    provider: ScriptedProvider
    elsewhere: ScriptedProvider
    bases: dict[str, str]
    cells: dict[bytes, Cell] = field(default_factory=dict)
    numbers: Any = field(default_factory=itertools.count)

    def reply(self, request: ProviderRequest) -> Any:
        """Say what the row wants said to a request of one of its cells."""
        found = MARKER.search(request.content)
        row = self.cells[found[0]].row if found else None
        if row is None:
            return answer()
        told = row.reply if request.streams or row.reply_whole is None else row.reply_whole
        return told.to(self.elsewhere.url) if isinstance(told, Redirect) else told

    def cells_of(self, server: Server, rows: Iterable[Row]) -> list[Cell]:
        """Return the cells of some rows at one server."""
        made = []
        for row in rows:
            for wire, stream in itertools.product(WIRES, (True, False)):
                if row.want(server.kind, stream=stream) is None or wire not in row.only:
                    continue
                cell = Cell(row, server, self.provider, wire, stream, "")
                self.mark(cell)
                made.append(cell)
        return made

    def mark(self, cell: Cell) -> None:
        """Give a cell a marker that no request has had before."""
        cell.marker = f"cell-{next(self.numbers)}-"
        self.cells[cell.marker.encode()] = cell


@asynccontextmanager
async def opened() -> AsyncIterator[Lab]:
    """Open the providers: the one that says what rows say, and those that nobody should reach."""
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="luthien-faults-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        provider = await stack.enter_async_context(ScriptedProvider(answer()))
        elsewhere = await stack.enter_async_context(ScriptedProvider(answer()))
        refusing = await stack.enter_async_context(ScriptedProvider(answer(), tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)))
        bases = {
            "main": provider.url,
            "plain": provider.url.replace("http:", "https:"),
            "refusing": refusing.url,
            "closed": "http://127.0.0.1:1",
            "nowhere": "http://nowhere.invalid",
        }
        if (tls := _self_signed(folder)) is not None:
            bases["selfsigned"] = (await stack.enter_async_context(ScriptedProvider(answer(), tls=tls))).url
        lab = Lab(folder, provider, elsewhere, bases)
        provider.script = lab.reply
        yield lab


def _self_signed(folder: Path) -> ssl.SSLContext | None:
    """Return TLS with a certificate that nobody vouches for; None where no openssl makes one."""
    if shutil.which("openssl") is None:
        return None
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *subject]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def run_server(
    lab: Lab, kind: str, rows: Sequence[Row], *, policied: bool, logs: Path | None = None
) -> tuple[list[Cell], list[str]]:
    """Start a server, run some rows at it and stop it; return their cells, and what its log complains about."""
    folder = lab.folder / f"{kind}-{'policies' if policied else 'plain'}"
    folder.mkdir()
    server = await asyncio.to_thread(Server, kind, folder, lab.bases, policied=policied)
    try:
        if not await server.ready():
            msg = f"{kind} did not start:\n{server.log}"
            raise RuntimeError(msg)
        cells = await run(lab, server, rows)
    finally:
        await asyncio.to_thread(server.stop)
        if logs is not None:
            _keep(server.log, logs / f"{folder.name}.log")
    complaints = [f"x {folder.name} logged: {complaint}" for complaint in server.complaints()]
    return cells, complaints + [f"x {folder.name} recorded: {complaint}" for complaint in server.records.complaints()]


def _keep(log: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(log)


async def run(lab: Lab, server: Server, rows: Sequence[Row]) -> list[Cell]:
    """Run some rows at one server, see what is left of them, and return their cells."""
    before = await _warm(server)
    cells = lab.cells_of(server, rows)
    await _all(lab, cells)
    if left := await leftovers(lab, server, before):
        await _blame(lab, server, cells, rows, left)
    return cells


async def _all(lab: Lab, cells: Sequence[Cell]) -> None:
    """Run cells beside each other; those that want the process to themselves, and those that were not right, alone after that."""
    await _beside_each_other([cell for cell in cells if not cell.row.alone])
    for cell in cells:
        if cell.row.alone:
            await judge(cell)
        if first := cell.wrong:
            lab.mark(cell)
            await judge(cell)
            cell.beside = [] if cell.wrong else first


async def _beside_each_other(cells: Sequence[Cell]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(cell: Cell) -> None:
        async with places:
            await judge(cell)

    async with asyncio.TaskGroup() as tasks:
        for cell in cells:
            tasks.create_task(one(cell))


async def _warm(server: Server) -> dict[str, Any]:
    """Ask once in every form, so that what a process makes once and keeps is there, and return its state."""
    for wire, stream in itertools.product(WIRES, (True, False)):
        if (status := await server.probe(wire, stream=stream)) != 200:
            msg = f"{server.kind} answers {status} where nothing is wrong ({wire}):\n{server.log}"
            raise RuntimeError(msg)
    return await server.state()


async def leftovers(lab: Lab, server: Server, before: dict[str, Any]) -> str:
    """Return what a process has more than before, once it had the time to put that away; nothing when all is well."""
    found = ""

    async def settled() -> bool:
        nonlocal found
        found = _more(before, await server.state(), lab.provider.port, lab.provider.connections)
        return not found

    await server.probe("openai")  # a pool looks at its connections when it is asked for one
    await polled(settled, SETTLE_SECONDS, every=0.5)
    return found


def _more(before: dict[str, Any], after: dict[str, Any], port: int, pooled: int) -> str:
    more = []
    if after["slots"]:
        more.append(f"{after['slots']} slots")
    for kind in ("tasks", "files"):
        for name, count in after[kind].items():
            allowed = pooled if name == f"socket to {port}" else before[kind].get(name, 0)
            if count > allowed:
                more.append(f"{kind}: {name} {allowed} -> {count}")
    for name, count in after["threads"].items():
        if count > before["threads"].get(name, 0) and name not in POOLS:
            more.append(f"threads: {name} {before['threads'].get(name, 0)} -> {count}")
    return "; ".join(more)


POOLS: Final = frozenset(
    {
        "asyncio", "uvloop", "luthien-policy", "luthien-jsonl-mask-begin", "luthien-jsonl-mask-end", "AnyIO worker thread",
        "ThreadPoolExecutor",
    }
)  # fmt: skip
"""Threads that are kept for the next one who needs them, up to a bound."""


async def _blame(lab: Lab, server: Server, cells: Sequence[Cell], rows: Sequence[Row], left: str) -> None:
    """Run the rows again by halves, to find whose leftovers these are; where none leaves any alone, it was all of them."""
    guilty = [left]
    if len(rows) > 1:
        guilty = []
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            before = await server.state()
            await _all(lab, lab.cells_of(server, half))
            if found := await leftovers(lab, server, before):
                guilty.append(found)
                await _blame(lab, server, cells, half, found)
    if len(rows) == 1 or not guilty:
        for cell in cells:
            if cell.row in rows:
                cell.red.append(f"left behind: {left}")
