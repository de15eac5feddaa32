"""What comes together comes to the same as what comes alone: a policy's hook for runs, and the engine's way for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from luthien_asgi.testing.parts import Answer
from luthien_asgi.testing.proof.counterexample import Counterexample
from luthien_asgi.testing.proof.cuts import Cut
from luthien_asgi.testing.proof.outcomes import Outcome
from luthien_asgi.testing.proof.stage import PROVIDERS, Case, Stage

__all__ = ["Together"]

APART: Final = "fragments that come together give something else than one by one (`on_run_added` and `on_chunk_added` differ)"


@dataclass(frozen=True, slots=True)
class Together:
    """Holds a policy to the same answer whether its fragments came in one packet or each in its own."""

    stage: Stage

    async def check(self, answer: Answer, cut: Cut) -> None:
        """Raise `Counterexample` where they differ."""
        for provider in PROVIDERS:
            case = Case(answer, cut, provider=provider)
            apart = Outcome.of(await self.stage.run(case, together=False))
            if difference := apart.against(Outcome.of(await self.stage.run(case, together=True))):
                raise Counterexample(APART, case, difference)
