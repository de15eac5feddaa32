"""Asks a model of the configuration for a policy: the judge's call, on no policy's way, with a record of its own."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any, Final

from luthien_asgi.backend.protocol import Backend, BackendCall
from luthien_asgi.chunks import read_part, usage_of
from luthien_asgi.context import ModelAnswer
from luthien_asgi.errors import ApiError, PolicyError
from luthien_asgi.hooks import keepalive
from luthien_asgi.logs import logger_of
from luthien_asgi.plans import Owner
from luthien_asgi.recorder import ModelCall, Transaction
from luthien_asgi.request import ChatRequest

__all__ = ["ModelAsker"]

_log: Final = logger_of(__name__)
_ANSWER_CHARACTERS: Final = 1_000_000
"""A judge's answer is bounded like everything that a model writes."""


class ModelAsker:
    """Asks for one transaction's policies. With no `log` nothing is recorded (a request to count tokens has no record)."""

    def __init__(self, backend: Backend, log: Transaction | None) -> None:
        self._backend = backend
        self._log = log

    async def ask(
        self, model: str, prompt: str, *, owner: object, system: str, max_tokens: int, temperature: float | None
    ) -> ModelAnswer:
        """Return what the model says. Raises `PolicyError` when it does not answer."""
        name = owner.name if isinstance(owner, Owner) else ""
        began = time.monotonic()
        try:
            answer = await self._answer(_request(model, prompt, system, max_tokens, temperature))
        except ApiError as error:
            self._note(name, model, None, began, error.type)
            _log.warning("the model %r, asked by the policy %s, did not answer: %s %s", model, name, error.status, error.type)
            msg = f"The model that the policy {name} asks did not answer."
            raise PolicyError(msg) from error
        self._note(name, model, answer, began)
        return answer

    async def _answer(self, request: ChatRequest) -> ModelAnswer:
        target = self._backend.target(request.model)
        if target.passthrough:
            msg = f"The model {request.model} needs a credential of the client's own."
            raise PolicyError(msg)
        await self._backend.start()
        stream = await self._backend.open(BackendCall(request=request))
        fragments: list[str] = []
        usage: dict[str, Any] = {}
        size = 0
        async with aclosing(stream):
            async for chunk in stream:
                keepalive()
                usage |= usage_of(chunk) or {}
                part = read_part(chunk)
                if part.kind == "text":
                    fragments.append(part.text)
                    size += len(part.text)
                if size > _ANSWER_CHARACTERS:
                    msg = "The answer is longer than a policy's may be."
                    raise PolicyError(msg)
        return ModelAnswer(text="".join(fragments), model=request.model, usage=usage)

    def _note(self, policy: str, model: str, answer: ModelAnswer | None, began: float, error: str = "") -> None:
        if self._log is not None:
            usage = answer.usage if answer is not None else None
            seconds = round(time.monotonic() - began, 6)
            self._log.calls.append(ModelCall(policy=policy, model=model, usage=usage, seconds=seconds, error=error))


def _request(model: str, prompt: str, system: str, max_tokens: int, temperature: float | None) -> ChatRequest:
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {"model": model, "messages": [*messages, {"role": "user", "content": prompt}]}
    body |= {"stream": True, "max_completion_tokens": max_tokens}
    return ChatRequest(wire="openai", body=body if temperature is None else {**body, "temperature": temperature})
