"""Between the workers of one machine: each listens on a Unix socket, and any of them asks the one that an approval belongs to.

Strategy: bytes in, bytes out; what they mean is the desk's business (`approvals.py`). One connection, one line, one line back.
The folder is this user's alone (`private_folder.py`), and both ends check whose process is at the other. A socket is bound under
another name and renamed once it listens: so a socket in the folder that refuses is one whose worker died, and is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from luthien_asgi.approval_values import is_worker
from luthien_asgi.errors import ConfigError
from luthien_asgi.logs import logger_of
from luthien_asgi.private_folder import make_private

__all__ = ["GoneError", "Relay", "check_folder", "is_possible"]

_log: Final = logger_of(__name__)

PEER_TIMEOUT: Final = 2.0
"""One exchange with another worker, in seconds: it reads a dictionary, so only one that hangs takes as long."""
LINE_BYTES: Final = 32 * 1024 * 1024
"""A list of all that waits at one worker: a hundred approvals of some 12 000 characters, each six bytes at worst."""
_BACKLOG: Final = 100
_PATH_BYTES: Final = 103
"""`sun_path` holds 104 bytes on macOS and the BSDs and 108 on Linux, the last of them a zero; one configuration serves both."""
_SUFFIX: Final = ".sock"
_UNFINISHED: Final = ".new"
_NAME_BYTES: Final = 1 + 16 + len(_SUFFIX)


class GoneError(Exception):
    """There is no such worker (any more)."""


def is_possible() -> bool:
    """Tell whether this system has what a relay needs."""
    return sys.platform != "win32" and hasattr(socket, "AF_UNIX")


def check_folder(folder: Path) -> None:
    """Raise `ConfigError` where the path is too long for a socket in it. Nothing is looked at or made."""
    length = len(os.fsencode(folder.absolute())) + _NAME_BYTES
    if length > _PATH_BYTES:
        msg = f"the folder {folder} is too long for sockets: theirs would have {length} bytes, of {_PATH_BYTES} at most"
        raise ConfigError(msg)


class Relay:
    """One worker's end. `serve` takes a line that another worker sent and returns the line that it gets."""

    def __init__(self, folder: Path, worker: str, serve: Callable[[bytes], bytes]) -> None:
        self._folder = folder.absolute()
        self._worker = worker
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def open(self) -> None:
        """Listen. Raises `ConfigError` for a folder that is not this user's alone, and `OSError` where no socket can be made."""
        check_folder(self._folder)
        make_private(self._folder)
        listening = self._listening()
        try:
            self._server = await asyncio.start_unix_server(self._talk, sock=listening, limit=LINE_BYTES)
        except BaseException:
            listening.close()
            self._path(self._worker).unlink(missing_ok=True)
            raise
        await self._remove_dead()

    async def _remove_dead(self) -> None:
        """Remove the sockets of workers that died before they could: one that lives is connected to, and says nothing."""
        async with asyncio.TaskGroup() as tasks:
            for worker in self.others():
                tasks.create_task(self._said(worker, b""))

    def _listening(self) -> socket.socket:
        path, unfinished = self._path(self._worker), self._folder / f"{self._worker}{_UNFINISHED}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(os.fspath(unfinished))
            unfinished.chmod(0o600)
            sock.listen(_BACKLOG)
            unfinished.rename(path)
        except BaseException:
            sock.close()
            unfinished.unlink(missing_ok=True)
            raise
        return sock

    async def aclose(self) -> None:
        """Stop listening, end what is being said, and remove the socket. Twice is once."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._path(self._worker).unlink(missing_ok=True)
        server.close()
        # Not cancelled: in Python 3.11 the streams' own callback takes a cancelled handler for a failed one.
        for writer in self._talks.values():
            writer.transport.abort()
        if self._talks:
            await asyncio.wait(tuple(self._talks), timeout=PEER_TIMEOUT)

    def others(self) -> list[str]:
        """Return the names of the other workers, dead ones among them."""
        found = (path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}"))
        return [name for name in found if is_worker(name) and name != self._worker]

    async def ask_all(self, line: bytes) -> Mapping[str, bytes | None]:
        """Return what each other worker says, all at once; None for one that did not answer. Dead ones are left out."""
        async with asyncio.TaskGroup() as tasks:
            asked = {worker: tasks.create_task(self._said(worker, line)) for worker in self.others()}
        said = {worker: task.result() for worker, task in asked.items()}
        return {worker: answer for worker, answer in said.items() if answer != b""}

    async def _said(self, worker: str, line: bytes) -> bytes | None:
        """Return what a worker says; None where it did not answer, nothing where there is no such worker."""
        try:
            return await self.ask(worker, line)
        except GoneError:
            return b""
        except OSError as error:
            _log.warning("another worker did not answer: %s", type(error).__name__)
            return None

    async def ask(self, worker: str, line: bytes) -> bytes:
        """Return what another worker says to one line; nothing is asked with an empty one.

        Raises `GoneError` where there is no such worker, and `OSError` (`TimeoutError` is one) where it did not answer: what was
        asked of it may have been done.
        """
        if not is_worker(worker):
            raise GoneError
        path = self._path(worker)
        async with asyncio.timeout(PEER_TIMEOUT):
            try:
                reader, writer = await asyncio.open_unix_connection(os.fspath(path), limit=LINE_BYTES)
            except FileNotFoundError:
                raise GoneError from None
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                raise GoneError from None
            with contextlib.closing(writer):
                return await _exchange(reader, writer, line)

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}{_SUFFIX}"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in a task of its own
        self._talks[task] = writer
        try:
            with contextlib.closing(writer):
                async with asyncio.timeout(PEER_TIMEOUT):
                    await self._answer(reader, writer)
        except (OSError, ValueError, EOFError) as error:
            _log.warning("another worker's question was not answered: %s", type(error).__name__)
        finally:
            del self._talks[task]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _check_peer(writer)
        if line := await reader.readline():
            writer.write(self._serve(line) + b"\n")
            await writer.drain()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    _check_peer(writer)
    if not line:
        return b""
    writer.write(line + b"\n")
    await writer.drain()
    try:
        answer = await reader.readline()
    except ValueError as error:  # what `readline` says of a line that is too long
        raise OSError from error
    if not answer.endswith(b"\n"):
        raise ConnectionResetError
    return answer[:-1]


def _check_peer(writer: asyncio.StreamWriter) -> None:
    """Raise `PermissionError` unless the process at the other end is this user's, where the system tells whose it is."""
    if not hasattr(socket, "SO_PEERCRED"):
        return  # the folder is this user's alone
    # uvloop's socket objects have no `getsockopt`.
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user != os.geteuid():
        msg = "the process at the other end is another user's"
        raise PermissionError(msg)
