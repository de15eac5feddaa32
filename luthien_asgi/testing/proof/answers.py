"""The answers that a policy is tried on: of every kind of block, in many writings, with the author's own words among them.

Strategy: a seeded generator, so that a failure comes again; what an author is afraid of (`examples`) is put into every kind of
block, alone, inside other text and twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Final

from luthien_asgi.testing.parts import Answer, Part, Refusal, Text, Thinking, ToolCall

__all__ = ["answer_of", "answers"]

_WORDS: Final = (
    "The quick brown fox", "straße", "naïve café", "e\u0301\u0327", "数据在这里", "пароль", "كلمة السر", "ﬁne", "İi", "𐐨𝔘",
    "👩‍👩‍👧‍👦", "🙂🙂", "\u2028", "line\nbreak\ttab", '"quoted" \\ back', "</tag>", "a.b*c", "\x1b[0m",
)  # fmt: skip
"""Letters whose case maps to several, marks that join, writing from right to left, halves, separators and what JSON escapes."""


def answers(random: Random, *, examples: Sequence[str] = (), own: Iterable[Answer | Part | str] = ()) -> list[Answer]:
    """Return the answers to try: the author's own first, then one of each shape."""
    return [*map(answer_of, own), *_with_examples(examples), *_shapes(random)]


def answer_of(given: Answer | Part | str) -> Answer:
    """Return what an author gave as an answer."""
    return given if isinstance(given, Answer) else Answer(given)


def _with_examples(examples: Sequence[str]) -> Iterator[Answer]:
    for example in examples:
        said = f"see {example}, {example}!"
        call = ToolCall("call_e1", "run", {"command": f"say {example}", example: [1, {"deep": example}]})
        yield Answer(Text(said), call)
        yield Answer(Thinking(said, signature="c2ln"), Text(example))
        yield Answer(Refusal(said))


def _shapes(random: Random) -> list[Answer]:
    def text(words: int = 3) -> str:
        return " ".join(random.choices(_WORDS, k=words))

    def call(number: int, name: str) -> ToolCall:
        return ToolCall(f"call_{number}", name, {"path": text(1), "lines": [1, None, True]})

    return [
        Answer(Text(text(4))),
        Answer(Text(text()), call(1, "read_file"), call(2, "write_file")),
        Answer(call(1, "bash")),
        Answer(Thinking(text(), signature="c2lnbmF0dXJl"), Text(text()), call(1, "search")),
        Answer(Refusal(text())),
        Answer(Text(text()), ToolCall("call_1", "no_arguments", "{}"), Text(text())),
        Answer(Text(text()), finish="length"),
    ]
