"""A backend without a network: it gives the chunks that it was told to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, cast

from luthien_asgi.backend.protocol import BackendCall, Target
from luthien_asgi.chunks import Chunk, ChunkFactory
from luthien_asgi.errors import BackendError
from luthien_asgi.request import WireName
from luthien_asgi.testing.chunk_builders import build_chunk

__all__ = ["Script", "ScriptedBackend", "ScriptedStream", "Step"]

Step = Chunk | Exception | asyncio.Event
"""A chunk is given, an exception is raised at its place, an event is waited for."""


Script = Sequence[Step] | Sequence[Sequence[Step] | Exception]
"""One answer for every call, or a list of answers."""


class ScriptedStream:
    """One answer on its way. `given` counts its chunks, `closed` tells whether its reader closed it."""

    wire: WireName = "openai"
    decoder: Literal["openai", "anthropic", "litellm", "body"] = "openai"
    ignored: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __init__(self, steps: Sequence[Step], *, sent: Mapping[str, Any]) -> None:
        self.headers: Mapping[str, str] = {}
        self.sent = sent
        self.given = 0
        self.closed = asyncio.Event()
        self._steps = iter(steps)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            if not isinstance(step, asyncio.Event):
                self.given += 1
                return step
            await step.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Note that the reader closed the stream."""
        self._steps = iter(())
        self.closed.set()


class ScriptedBackend:
    """Answers each call with the next of its answers, without a network.

    It is given one answer, which answers every call, or a list of answers. An answer is a list of chunks; an exception in it is
    raised at its place, an `asyncio.Event` is waited for. In a list of answers an exception is raised by `open`: the provider
    refused. `calls` and `streams` are what happened.
    """

    make_chunk: ChunkFactory = staticmethod(build_chunk)

    def __init__(
        self,
        answers: Script,
        *,
        wire: WireName = "openai",
        names: Sequence[str] = ("scripted",),
        tokens: int = 11,
    ) -> None:
        self.calls: list[BackendCall] = []
        self.streams: list[ScriptedStream] = []
        self._answers = _answers(answers)
        self._wire: WireName = wire
        self._names = names
        self._tokens = tokens

    async def start(self) -> None:
        """Do nothing."""

    def models(self) -> Sequence[str]:
        """Return the names it was given."""
        return self._names

    def target(self, model: str) -> Target:
        """Return a target that spends no key, for any name."""
        return Target(name=model, provider=str(self._wire), wire=self._wire, spends_key=False)

    async def open(self, call: BackendCall) -> ScriptedStream:
        """Return the next answer, or raise it. Raises `BackendError` when there is none left."""
        self.calls.append(call)
        answer = self._answer(len(self.calls) - 1)
        if isinstance(answer, Exception):
            raise answer
        stream = ScriptedStream(answer, sent=dict(call.request.body))
        self.streams.append(stream)
        return stream

    async def count_tokens(self, call: BackendCall) -> int:
        """Return the number it was given."""
        self.calls.append(call)
        return self._tokens

    async def aclose(self) -> None:
        """Do nothing."""

    def _answer(self, place: int) -> Sequence[Step] | Exception:
        if not isinstance(self._answers, list):
            return self._answers.steps
        if place < len(self._answers):
            return self._answers[place]
        return BackendError(f"the script has {len(self._answers)} answers, this is call {place + 1}")


class _Always(NamedTuple):
    steps: Sequence[Step]


def _answers(script: Script) -> list[Sequence[Step] | Exception] | _Always:
    """Tell one answer from a list of answers, which has nothing but lists and exceptions in it."""
    if script and all(isinstance(item, Exception | list | tuple) for item in script):
        return list(cast("Sequence[Sequence[Step] | Exception]", script))
    return _Always(cast("Sequence[Step]", script))
