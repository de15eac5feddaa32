"""Asks a judge, again where its reply cannot be read, and fails when there is no verdict: `on_error` decides then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from luthien_asgi.blocks import Block
from luthien_asgi.context import PolicyContext
from luthien_asgi.errors import PolicyError
from luthien_asgi.policies.checks import checked_model, checked_number, checked_whole
from luthien_asgi.policies.judge_prompts import Data, Question, block_data, latest
from luthien_asgi.policies.judge_replies import verdict_in

__all__ = ["JudgeModel", "View"]

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeModel:
    """A model of the configuration as a judge."""

    model: str
    temperature: float | None
    max_tokens: int
    attempts: int

    @classmethod
    def of(cls, name: str, model: object, *, temperature: object, max_tokens: object, attempts: object) -> Self:
        """Return a judge; `name` is the setting that has the model. Raises `ValueError`."""
        warmth = None if temperature is None else checked_number(temperature, "temperature", low=0, high=2)
        return cls(
            model=checked_model(model, name),
            temperature=warmth,
            max_tokens=checked_whole(max_tokens, "max_tokens", low=1),
            attempts=checked_whole(attempts, "attempts", low=1),
        )

    async def ask(self, ctx: PolicyContext, question: Question, read: Callable[[Mapping[str, Any]], _Read]) -> _Read:
        """Return a judge's verdict, as `read` understands it. Raises `PolicyError` when the judge gives none."""
        problem = ""
        for _ in range(self.attempts):
            prompt = question.put()
            answer = await ctx.ask(
                self.model, prompt.text, system=prompt.system, max_tokens=self.max_tokens, temperature=self.temperature
            )
            try:
                return read(verdict_in(answer.text, prompt.nonce))
            except ValueError as error:
                problem = str(error)
        msg = f"The judge gave no verdict that can be read: {problem}."
        raise PolicyError(msg)


@dataclass(slots=True)
class _Conversation:
    """The end of one transaction's conversation, rendered once for all calls of its answers."""

    data: Data | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a judge sees of a transaction."""

    context_blocks: int
    context_characters: int
    max_characters: int

    @classmethod
    def of(cls, *, context_blocks: object, context_characters: object, max_characters: object) -> Self:
        """Return a view. Raises `ValueError`."""
        return cls(
            context_blocks=checked_whole(context_blocks, "context_blocks", low=0),
            context_characters=checked_whole(context_characters, "context_characters", low=1),
            max_characters=checked_whole(max_characters, "max_characters", low=1),
        )

    def conversation(self, ctx: PolicyContext) -> Data:
        """Return the end of the conversation."""
        kept = ctx.state(_Conversation)
        if kept.data is None:
            kept.data = latest(ctx.request, blocks=self.context_blocks, characters=self.context_characters)
        return kept.data

    def block(self, block: Block) -> Data:
        """Return the block that is judged. Raises `PolicyError` for one that is too long to be judged as a whole."""
        try:
            return block_data(block, self.max_characters)
        except ValueError as error:
            raise PolicyError(f"Nothing was judged: {error}.") from None
