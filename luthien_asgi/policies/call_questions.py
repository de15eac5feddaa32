"""What a judge is asked about a tool call: shared by the policies that score calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from luthien_asgi.blocks import Block
from luthien_asgi.context import PolicyContext
from luthien_asgi.policies.checks import checked_text, checked_texts
from luthien_asgi.policies.judge_model import View
from luthien_asgi.policies.judge_prompts import SCORE_FORMAT, TOOL_CALL_TEMPLATE, Question, template_of
from luthien_asgi.policies.tool_arguments import ArgumentsError, read_arguments

__all__ = ["CallQuestion", "malformed_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQuestion:
    """Makes the questions about calls of some tools."""

    instructions: str
    tools: tuple[str, ...]
    template: str
    view: View

    @classmethod
    def of(cls, *, instructions: str, tools: Sequence[str], template: str | None, view: View) -> Self:
        """Return what a configuration says. Raises `ValueError`."""
        given = TOOL_CALL_TEMPLATE if template is None else checked_text(template, "template")
        return cls(
            instructions=checked_text(instructions, "instructions"),
            tools=checked_texts(tools, "tools"),
            template=template_of("template", given, known=("conversation", "call"), needed=("call",)),
            view=view,
        )

    def concerns(self, block: Block) -> bool:
        """Tell whether calls of this tool are judged."""
        return any(fnmatchcase(block.name, name) for name in self.tools)

    def question(self, block: Block, ctx: PolicyContext) -> Question:
        """Return the question about a call. Raises `PolicyError` for one that is too long to be judged."""
        data = {"call": self.view.block(block), "conversation": self.view.conversation(ctx)}
        return Question(instructions=self.instructions, format=SCORE_FORMAT, template=self.template, data=data)


def malformed_of(block: Block) -> str:
    """Return what is wrong with a call's arguments, quoting nothing of them; empty when nothing is."""
    try:
        read_arguments(block)
    except ArgumentsError as error:
        return str(error)
    return ""
