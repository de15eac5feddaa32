"""A backend without a network: it gives the chunks that it was told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Self, cast

from luthien_asgi.backend.protocol import BackendCall, Target
from luthien_asgi.chunks import Chunk, ChunkFactory
from luthien_asgi.errors import BackendError, RequestError
from luthien_asgi.request import WireName
from luthien_asgi.testing.chunk_builders import build_chunk

__all__ = ["Script", "ScriptedAnswer", "ScriptedBackend", "ScriptedStream", "Step"]

Step = Chunk | Exception | asyncio.Event
"""A chunk is given, an exception is raised at its place, an event is waited for."""

ScriptedAnswer = Sequence[Step] | Exception | Callable[[BackendCall], Sequence[Step] | Exception]
"""The steps of an answer, the exception with which the call is refused, or a function of the call that returns one of them."""
ModelScript = ScriptedAnswer | Sequence[ScriptedAnswer]
"""One answer for every call, or a list of answers."""
Script = ModelScript | Mapping[str, ModelScript]
"""What the backend says, or what each of its models says, by the name that a call asks for."""


_ANY: Final = ""
"""Where the answers of a backend are kept whose models all say the same."""


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
    refused; a function there is called with the `BackendCall` and returns the answer. `calls` and `streams` are what happened.

    Where policies ask models of their own, calls come in no fixed order. Then each model has its answers by its name, and there
    is no other model:

        ScriptedBackend({"scripted": chunks("Hello"), "judge": [judge_says(score=0.9), judge_says(score=0.1)]})
    """

    make_chunk: ChunkFactory = staticmethod(build_chunk)

    def __init__(
        self,
        answers: Script,
        *,
        wire: WireName = "openai",
        names: Sequence[str] | None = None,
        tokens: int = 11,
    ) -> None:
        self.calls: list[BackendCall] = []
        self.streams: list[ScriptedStream] = []
        self._by_name = isinstance(answers, Mapping)
        scripts = answers if isinstance(answers, Mapping) else {_ANY: answers}
        self._answers = {name: _answers(script) for name, script in scripts.items()}
        self._given: Counter[str] = Counter()
        self._wire: WireName = wire
        self._names = names if names is not None else tuple(scripts) if self._by_name else ("scripted",)
        self._tokens = tokens

    async def start(self) -> None:
        """Do nothing."""

    def models(self) -> Sequence[str]:
        """Return the names it was given."""
        return self._names

    def target(self, model: str) -> Target:
        """Return a target that spends no key. Raises `RequestError` with status 404 where models have answers of their own."""
        if self._by_name and model not in self._answers:
            raise RequestError(f"the script has no model {model!r}", status=404)
        return Target(name=model, provider=str(self._wire), wire=self._wire, spends_key=False)

    def calls_of(self, model: str) -> list[BackendCall]:
        """Return the calls that asked for a model."""
        return [call for call in self.calls if call.request.model == model]

    async def open(self, call: BackendCall) -> ScriptedStream:
        """Return the next answer, or raise it. Raises `BackendError` when there is none left."""
        self.calls.append(call)
        answer = self._answer(call)
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

    def _answer(self, call: BackendCall) -> Sequence[Step] | Exception:
        script = self.target(call.request.model).name if self._by_name else _ANY
        answers = self._answers[script]
        place = self._given[script]
        self._given[script] += 1
        if isinstance(answers, _Always):
            answer = answers.answer
        elif place < len(answers):
            answer = answers[place]
        else:
            whose = f" for {script!r}" if script else ""
            return BackendError(f"the script has {len(answers)} answers{whose}, this is call {place + 1}")
        return answer(call) if callable(answer) else answer


class _Always(NamedTuple):
    answer: ScriptedAnswer


def _answers(script: ModelScript) -> list[ScriptedAnswer] | _Always:
    """Tell one answer from a list of answers, which has nothing but lists, exceptions and functions in it."""
    if isinstance(script, Exception) or callable(script):
        return _Always(script)
    if script and all(isinstance(item, Exception | list | tuple) or callable(item) for item in script):
        return list(cast("Sequence[ScriptedAnswer]", script))
    return _Always(cast("Sequence[Step]", script))
