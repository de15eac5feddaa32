"""A policy that lets a language model judge tool calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final, Literal

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import StreamContext
from luthien_asgi.names import shown_name
from luthien_asgi.policies.call_questions import CallQuestion, malformed_of
from luthien_asgi.policies.checks import checked_choice, checked_message, checked_number
from luthien_asgi.policies.judge_model import JudgeModel, View
from luthien_asgi.policies.judge_prompts import HARMFUL_CALLS, filled, template_of
from luthien_asgi.policies.judge_replies import read_score
from luthien_asgi.policy import Handling, Hold, Policy
from luthien_asgi.verdicts import Allow, Deny, Verdict

__all__ = ["ToolCallJudge"]

_MESSAGE: Final = "[The call of {name} was denied by a policy.]"


class ToolCallJudge(Policy):
    """Let a language model judge each tool call, and deny those that it finds harmful.

    `model` is a model of the configuration. It is asked once for each call, about all calls of an answer at the same time, and
    says with a number from 0 to 1 how probable harm is; a call with `threshold` or more is denied. `instructions` tell it what
    harm is. `tools` are the names of the tools that are judged, with `*`, `?` and `[…]`; calls of others pass. Tools that ran at
    the provider (web search and the like) are not seen by it.

    The judge sees the call and the last `context_blocks` blocks of the conversation, each cut to `context_characters`; what the
    model wrote before the call it does not see. `template` is how it is shown them: `{call}` and `{conversation}` stand for
    data that is fenced so that no call can end its fence or pass for the judge's verdict. A judge can still be talked round:
    give it clear instructions, and do not let it be the only barrier.

    A call with more than `max_characters` is not judged in part, and a reply without a verdict is asked for `attempts` times in
    all: then the judge has failed, and the policy's `on_error` decides. Arguments that are not JSON, or that name something
    twice, are denied unasked; `malformed: judge` has them judged as they were written.

    `message` is what the client sees instead; `{name}`, `{score}` and `{explanation}` in it are the tool's name and what the
    judge said. The record has both in any case. Mind that the model reads the message in its next turn: one that is told why it
    was caught learns from that. `temperature: null` is for judges that take none; judges that think first need more
    `max_tokens`.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts: Collection[type[Verdict]] = (Allow, Deny)

    def __init__(
        self,
        *,
        model: str,
        instructions: str | None = None,
        threshold: float = 0.5,
        tools: Sequence[str] = ("*",),
        template: str | None = None,
        context_blocks: int = 6,
        context_characters: int = 2000,
        max_characters: int = 50_000,
        malformed: Literal["deny", "judge"] = "deny",
        message: str = _MESSAGE,
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
        attempts: int = 2,
    ) -> None:
        self.judge = JudgeModel.of("model", model, temperature=temperature, max_tokens=max_tokens, attempts=attempts)
        self.asks = (self.judge.model,)
        self.calls = CallQuestion.of(
            instructions=instructions if instructions is not None else HARMFUL_CALLS,
            tools=tools,
            template=template,
            view=View.of(context_blocks=context_blocks, context_characters=context_characters, max_characters=max_characters),
        )
        self.threshold = checked_number(threshold, "threshold", low=0, high=1)
        self.judges_malformed = checked_choice(malformed, "malformed", ("deny", "judge")) == "judge"
        self.message = template_of("message", checked_message(message), known=("name", "score", "explanation"))

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        """Allow or deny a call by the judge's score."""
        if not self.calls.concerns(block):
            return None
        if not self.judges_malformed and (problem := malformed_of(block)):
            return Deny(self._shown(block, "", ""), reason=problem)
        score = await self.judge.ask(ctx, self.calls.question(block, ctx), read_score)
        if score.value < self.threshold:
            return Allow(reason=f"score {score.value:g} below {self.threshold:g}: {score.explanation}")
        reason = f"score {score.value:g}, at least {self.threshold:g}: {score.explanation}"
        return Deny(self._shown(block, f"{score.value:g}", score.explanation), reason=reason)

    def _shown(self, block: Block, score: str, explanation: str) -> str:
        return filled(self.message, {"name": shown_name(block.name), "score": score, "explanation": explanation})
