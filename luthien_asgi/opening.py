"""Opens the backend's answer, as a task that the client's leaving and the commit deadline are raced against."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal, Self

from luthien_asgi.backend.protocol import Backend, BackendCall, BackendStream, run_stream
from luthien_asgi.chunks import Chunk, openai_fields, provider_fields, usage_of
from luthien_asgi.errors import ApiError, BackendError, BackendTimeout, PolicyError
from luthien_asgi.executor import as_failure
from luthien_asgi.flag import Flag
from luthien_asgi.recorder import Transaction
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wait_limit import limited

__all__ = ["BackendOpening"]


class BackendOpening:
    """One call of the backend, up to its first event. `run` is the task; everything else may be used beside it."""

    def __init__(
        self,
        backend: Backend,
        call: BackendCall,
        *,
        settings: StreamSettings,
        log: Transaction,
        call_for: Callable[[ChatRequest], BackendCall] | None = None,
        verdict: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Make a call that has not begun.

        `call_for` returns the call that another request becomes; `verdict` is what is waited for beside this one: nothing comes
        out before it has ended, and what it raises takes the answer's place.
        """
        self._call_for = call_for
        self._verdict = verdict
        self._refusal: ApiError | None = None
        self._cleared = Flag()
        self._tasks: asyncio.TaskGroup | None = None
        self._backend = backend
        self._call = call
        self._settings = settings
        self._log = log
        self._ready = Flag()
        self._task: asyncio.Task[None] | None = None
        self._judging: asyncio.Task[None] | None = None
        self._stream: BackendStream | None = None
        self._opened: _Opened | None = None
        self.error: ApiError | None = None
        """What the call failed with before its first event."""
        self.headers: Mapping[str, str] = {}
        """The provider's response headers, also after the stream was closed; none while there is no response."""

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin the call."""
        self._tasks = tasks
        self._task = tasks.create_task(self._run())
        if self._verdict is None:
            self._cleared.set()
        else:
            self._judging = tasks.create_task(self._wait_for(self._verdict()))

    def again(self, request: ChatRequest) -> BackendOpening:
        """Begin another call in the place of this one. Raises `ApiError` for a request that cannot be sent."""
        if self._tasks is None or self._call_for is None:
            msg = "a call that has not begun has no other in its place"
            raise RuntimeError(msg)
        other = BackendOpening(
            self._backend, self._call_for(request), settings=self._settings, log=self._log, call_for=self._call_for
        )
        other.start(self._tasks)
        return other

    async def _wait_for(self, verdict: Awaitable[None]) -> None:
        try:
            await verdict
        except Exception as error:
            self._refuse(as_failure(error))
        except asyncio.CancelledError:
            self._refuse(PolicyError("What the policies say to the request was cancelled."))  # nobody has let it pass
            raise
        finally:
            self._cleared.set()

    def _refuse(self, refusal: ApiError) -> None:
        self._refusal = refusal
        if self._task is not None:
            self._task.cancel()

    async def wait(self, limit: float) -> bool:
        """Wait for the first event or the error, at most `limit` seconds; tell whether one of them is there."""
        try:
            async with asyncio.timeout(limit):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def stream(self) -> BackendStream:
        """Wait for the first event and return the stream, that event included. Raises `ApiError`."""
        await self._ready.wait()
        if self._opened is None:
            raise self.error or BackendError("The call of the provider was given up.")
        return self._opened

    async def aclose(self) -> None:
        """Give the call up, or close the stream's connection. Bounded by `close_timeout`, twice is once."""
        at_work = {task for task in (self._task, self._judging) if task is not None and not task.done()}
        for task in at_work:
            task.cancel()
        if at_work:
            await asyncio.wait(at_work, timeout=self._settings.close_timeout)
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def _run(self) -> None:
        try:
            await self._answered()
            await self._cleared.wait()
        except asyncio.CancelledError:
            if self._refusal is None:
                raise
        finally:
            self.error = self._refusal or self.error
            if self.error is not None:
                self._opened = None
            self._ready.set()

    async def _answered(self) -> None:
        try:
            await self._open()
        except TimeoutError:
            self.error = BackendTimeout("The provider did not begin its answer in time.")
        except StopAsyncIteration:
            self.error = BackendError("The provider's answer was empty.")
        except Exception as error:
            self.error = as_failure(error)
            # An error that is the first event of a 200 is sent as a status, with the headers that came before it.
            self.error.headers = {**self.headers, **self.error.headers}

    async def _open(self) -> None:
        await self._backend.start()  # that is not the provider's time
        self._log.mark("backend_called")
        with limited(self._settings.first_chunk_timeout):
            stream = self._stream = await self._backend.open(self._call)
            self.headers = stream.headers
            self._log.sent, self._log.decoder = stream.sent, stream.decoder
            self._log.ignored += stream.ignored
            for note in stream.notes:
                self._log.note(note)
            first = deque([await anext(stream)], maxlen=_EARLY)
            while not _says_something(first[-1]):
                if not openai_fields(first[-1]):
                    first.pop()
                first.append(await anext(stream))
        self._log.mark("first_chunk")
        self._opened = _Opened(stream, first)


_EARLY: Final = 16
"""Events without an answer in them (Azure's filter of the prompt) that are kept from before the first event."""


def _says_something(chunk: Chunk) -> bool:
    """A provider's ping is no first event: an error may still come with its own status."""
    return bool(chunk.choices) or usage_of(chunk) is not None or bool(provider_fields(chunk).keys() - {"openai"})


class _Opened:
    """A stream whose first chunks were read already."""

    def __init__(self, stream: BackendStream, first: deque[Chunk]) -> None:
        self._stream = stream
        self._first = first
        self._runs = run_stream(stream)
        self.wire: WireName = stream.wire
        self.decoder: Literal["openai", "anthropic", "litellm", "body"] = stream.decoder
        self.headers: Mapping[str, str] = stream.headers
        self.sent = stream.sent
        self.ignored: Sequence[str] = stream.ignored
        self.notes: Sequence[str] = stream.notes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._first:
            return self._first.popleft()
        return await anext(self._stream)

    async def next_run(self) -> Chunk | Run:
        """Return the next chunk or run. Raises like the iterator."""
        if self._first or self._runs is None:
            return await anext(self)
        return await self._runs.next_run()

    def take_ready(self) -> Chunk | Run | None:
        """Return the next chunk or run if it need not be waited for."""
        if self._first:
            return self._first.popleft()
        return self._runs.take_ready() if self._runs is not None else None

    async def aclose(self) -> None:
        await self._stream.aclose()
