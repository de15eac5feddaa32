"""What `assert_policy_holds` raises: which promise is broken, for which answer, cut how, on which way."""

from __future__ import annotations

from typing import Final

from luthien_asgi.testing.parts import Answer, Part, Redacted, ToolCall
from luthien_asgi.testing.proof.cuts import pieces, text_of
from luthien_asgi.testing.proof.stage import Case

__all__ = ["Counterexample"]

_LONG: Final = 120


class Counterexample(AssertionError):
    """A policy does not hold: the message says which promise is broken and shows one way to see it."""

    def __init__(self, promise: str, case: Case | None, what: str) -> None:
        self.promise = promise
        lines = [promise, *(_described(case) if case is not None else ()), f"  {what}"]
        super().__init__("\n".join(lines))


def _described(case: Case) -> list[str]:
    form = "streamed" if case.stream else "not streamed"
    return [
        f"  answer:  {_answer(case.answer)}",
        f"  cut:     {' + '.join(_cut(case)) or 'nowhere'}",
        f"  on its way from {case.provider} to a client of {case.client}, {form}",
    ]


def _answer(answer: Answer) -> str:
    return ", ".join(_part(part) for part in answer.parts)


def _part(part: Part) -> str:
    name = f"{part.name} " if isinstance(part, ToolCall) else ""
    text = part.data if isinstance(part, Redacted) else text_of(part)
    return f"{type(part).__name__} {name}{_short(text)}"


def _cut(case: Case) -> list[str]:
    parts = zip(case.answer.parts, case.cut.places, strict=False)
    return [" | ".join(_short(piece) for piece in pieces(text_of(part), places)) for part, places in parts if places]


def _short(text: str) -> str:
    shown = ascii(text) if any("\ud800" <= letter <= "\udfff" for letter in text) else repr(text)
    return shown if len(shown) <= _LONG else shown[:_LONG] + "…"
