"""A policy whose rules are plain English, and whose judge is a language model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import PolicyContext, StreamContext
from luthien_asgi.errors import PolicyError
from luthien_asgi.policies.checks import checked_choice, checked_message, checked_texts
from luthien_asgi.policies.direction import Where, checked_where, look
from luthien_asgi.policies.judge_model import JudgeModel, View
from luthien_asgi.policies.judge_prompts import (
    BLOCK_TEMPLATE,
    REQUEST_TEMPLATE,
    VIOLATIONS_FORMAT,
    Data,
    Question,
    filled,
    numbered,
    request_data,
    template_of,
)
from luthien_asgi.policies.judge_replies import read_violations, said
from luthien_asgi.policy import Handling, Hold, Policy
from luthien_asgi.request import ChatRequest
from luthien_asgi.verdicts import Allow, Deny, Replace, Stop, Verdict

__all__ = ["PlainRules"]

_MESSAGE: Final = "[A policy withheld this part of the answer.]"
_KINDS: Final = (BlockKind.TEXT, BlockKind.TOOL_CALL, BlockKind.THINKING, BlockKind.REFUSAL)
_ACTIONS: Final[Mapping[str, type[Verdict]]] = {"deny": Deny, "stop": Stop, "replace": Replace}
_REASON: Final = 300
"""Characters of the rules' own words in a reason."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """Which rules something violates, and why the judge thinks so."""

    rules: tuple[str, ...]
    reason: str
    explanation: str


class PlainRules(Policy):
    """Hold a model's answers, and requests to it, to rules that are written in plain English.

    `rules` is a list of sentences ("No medical advice."). `model`, a model of the configuration, is asked once for each block,
    about all rules together, and says which of them the block violates. Nothing of a block leaves before: the client gets pings
    meanwhile, and whatever the judge writes counts as work, so that the policy's timeout bounds its silence and not its
    thoughts. A judge that thinks in silence for longer needs a longer `timeout`.

    `kinds` are the kinds of block that are judged: `text`, `tool_call`, `thinking`, `refusal`. What becomes of one that
    violates a rule is the `action`: `deny` it, `stop` the answer there, or `replace` it by the message (not thinking).
    `message` is what the client sees; `{rules}` in it are the rules that are violated and `{explanation}` is the judge's
    sentence. Both are in the record in any case.

    `where` is `response`, `request` or `both`. A request is judged once and as a whole, tool definitions included, and refused
    with a 403; the policy can be `concurrent` then. `only_new: true` judges what came after the model's last answer only:
    cheaper in long conversations, and a client that invents an answer hides from it what stands before. Images and files are
    not seen. A client that keeps a refused message in its conversation is refused again. Definitions and history count too,
    so agents with long ones need a larger `max_characters`.

    The judge sees the last `context_blocks` blocks of the conversation beside a block, each cut to `context_characters`. What
    has more than `max_characters` is not judged in part: that, and a judge without a verdict after `attempts` replies, is a
    failure, and the policy's `on_error` decides. Blocks without text are not judged, and log probabilities are not shown.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TEXT: Hold(), BlockKind.TOOL_CALL: Hold()}
    verdicts: Collection[type[Verdict]] = (Allow, Deny)

    def __init__(
        self,
        *,
        rules: Sequence[str],
        model: str,
        kinds: Sequence[str] = ("text", "tool_call"),
        where: Where = "response",
        action: Literal["deny", "stop", "replace"] = "deny",
        message: str = _MESSAGE,
        only_new: bool = False,
        context_blocks: int = 2,
        context_characters: int = 1000,
        max_characters: int = 50_000,
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
        attempts: int = 2,
    ) -> None:
        self.rules = checked_texts(rules, "rules")
        self.judge = JudgeModel.of("model", model, temperature=temperature, max_tokens=max_tokens, attempts=attempts)
        self.asks = (self.judge.model,)
        self.view = View.of(context_blocks=context_blocks, context_characters=context_characters, max_characters=max_characters)
        self.message = template_of("message", checked_message(message), known=("rules", "explanation"))
        self.only_new = bool(only_new)
        self.action = checked_choice(action, "action", tuple(_ACTIONS))
        self.verdicts = (Allow, _ACTIONS[self.action])
        held, way = _checked_kinds(kinds, self.action), checked_where(where)
        if way == "request" and self.action != "deny":
            msg = f"a request can only be denied: action {self.action} needs where: response or both"
            raise ValueError(msg)
        look(self, at_request=way != "response", handles=held if way != "request" else {})

    async def on_request(self, request: ChatRequest, ctx: PolicyContext) -> Deny | None:
        """Refuse a request that violates a rule."""
        try:
            data = request_data(request, self.view.max_characters, only_new=self.only_new)
        except ValueError as error:
            raise PolicyError(f"Nothing was judged: {error}.") from None
        if data is None:
            return None
        finding = await self._finding(ctx, REQUEST_TEMPLATE, {"request": data})
        return Deny(self._shown(finding), reason=finding.reason) if finding.rules else None

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        """Allow a block, or do what the configuration says about one that violates a rule."""
        if not block.text and block.kind is not BlockKind.TOOL_CALL:
            return None
        data = {"block": self.view.block(block), "conversation": self.view.conversation(ctx)}
        finding = await self._finding(ctx, BLOCK_TEMPLATE, data)
        if not finding.rules:
            return Allow(reason=finding.reason)
        message = self._shown(finding)
        if self.action == "replace":
            return Replace([Block(kind=BlockKind.TEXT, text=message)], reason=finding.reason)
        return (Stop if self.action == "stop" else Deny)(message, reason=finding.reason)

    async def _finding(self, ctx: PolicyContext, template: str, data: Mapping[str, Data]) -> _Finding:
        question = Question(instructions=numbered(self.rules), format=VIOLATIONS_FORMAT, template=template, data=data)
        return await self.judge.ask(ctx, question, self._read)

    def _read(self, verdict: Mapping[str, Any]) -> _Finding:
        numbers, explanation = read_violations(verdict, len(self.rules)), said(verdict.get("explanation"))
        rules = tuple(self.rules[number - 1] for number in numbers)
        named = "; ".join(f"rule {number} ({rule})" for number, rule in zip(numbers, rules, strict=True))
        cut = named if len(named) <= _REASON else f"{named[: _REASON - 1]}…"
        return _Finding(rules, f"violates {cut}: {explanation}" if rules else f"no rule violated: {explanation}", explanation)

    def _shown(self, finding: _Finding) -> str:
        return filled(self.message, {"rules": "; ".join(finding.rules), "explanation": finding.explanation})


def _checked_kinds(kinds: object, action: str) -> dict[BlockKind, Handling]:
    names = {checked_choice(name, "kinds", [str(kind) for kind in _KINDS]) for name in checked_texts(kinds, "kinds")}
    if action == "replace" and str(BlockKind.THINKING) in names:
        msg = "thinking cannot be replaced, only denied: nobody but its provider can sign it"
        raise ValueError(msg)
    return {kind: Hold() for kind in _KINDS if str(kind) in names}
