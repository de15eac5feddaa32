"""A policy that replaces text, wherever the provider cut it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk, plain_text, read_part
from luthien_asgi.context import PolicyContext, StreamContext
from luthien_asgi.policies.direction import Where, checked_where, look
from luthien_asgi.policies.flow import through
from luthien_asgi.policies.replacements import rules_of
from luthien_asgi.policies.request_texts import with_changed_texts
from luthien_asgi.policies.windows import Rules, TextWindow
from luthien_asgi.policy import Handling, Policy, Transform
from luthien_asgi.request import ChatRequest
from luthien_asgi.runs import Run

__all__ = ["ReplaceText"]

_IN_REQUESTS: Final = frozenset({"text", "tool_result", "tool_call", "document", "refusal"})


class ReplaceText(Policy):
    r"""Replace strings, or what regular expressions match, in the model's text, in the request, or in both.

        replacements:
          - [hello, bye]                            # a plain string: no character has a special meaning
          - {old: Acme, new: Initech, match_case: true}
          - {pattern: '\b(\d{3})-\d{4}\b', new: '\1-****'}
        where: both

    `replacements` are applied one after the other: what the first wrote, the second sees. An entry is a pair `[old, new]`, or a
    mapping with `old` or `pattern`, and `new`. With `ignore_case` upper and lower case are the same. With `match_case` they are
    too, and the replacement takes over the case of what was matched: hello→bye, Hello→Bye, HELLO→BYE. Both can be given for all
    entries, and in a mapping for one.

    A `pattern` is an expression of the library `regex`, which takes what Python's `re` takes. Its `new` may refer to groups, as
    `\1` or `\g<name>`; a backslash in it is written twice.

    `where` is `response` (the default), `request` or `both`. In an answer the text blocks are changed; tool calls, thinking and
    refusals are left alone, and citations and their like are dropped where they speak of text that was replaced. In a request it
    is the texts of all roles, documents, the results of tools, and the strings in the arguments of earlier tool calls, which stay
    JSON; names of fields, thinking, images and the tools on offer are left alone.

    The client gets what `str.replace` and `regex.sub` would have made of each whole block, however it was cut into chunks. Kept
    back is the least that allows that: of a string the end of a chunk that may be the beginning of a match; of an expression
    what starts where a match may still begin or change with what comes (`\w+` waits for the end of a word, `.*` for the end of a
    line, `$` for one character more), so an expression that takes whatever follows holds the block until its end. So does every
    expression with recursion, verbs, fuzzy matching, `\G`, `\K`, `\R`, `\X`, a flag other than `i`, `m`, `s`, `a` and `u`, or
    a lookbehind with a quantifier, an end or a boundary in it.

    An expression may backtrack without end on some texts, and then stops all other answers: its searches are ended after
    half a second (and four for each million characters), and the request or the answer with it, by an error.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TEXT: Transform()}

    def __init__(
        self,
        *,
        replacements: Sequence[Sequence[str] | Mapping[str, Any]],
        ignore_case: bool = False,
        match_case: bool = False,
        where: Where = "response",
    ) -> None:
        self.where = checked_where(where)
        self._rules: Final = Rules(rules_of(replacements, ignore_case=ignore_case, match_case=match_case))
        self.replacements = tuple(entry if isinstance(entry, Mapping) else tuple(entry) for entry in replacements)
        look(self, at_request=where != "response", handles=self.handles if where != "request" else {})

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest | None:
        """Replace in the request's texts."""
        del ctx
        return with_changed_texts(request, self._rules.whole, kinds=_IN_REQUESTS)

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Send on what cannot become part of a match any more."""
        blocks = ctx.state(self._open_blocks)
        plain = plain_text(chunk)
        if plain is not None and self._rules.pass_by(plain[1]):
            window = blocks.get(plain[0])
            if window is None or window.is_empty:
                return None
        part = read_part(chunk)
        window = blocks.setdefault(part.choice, self._rules.window())
        return through(chunk, part, window, told=lambda text: self._rules.whole(text) != text)

    def on_run_added(self, run: Run, ctx: StreamContext) -> Sequence[str] | None:
        """Send on what cannot become part of a match any more."""
        blocks = ctx.state(self._open_blocks)
        window = blocks.get(run.part.choice)
        if (window is None or window.is_empty) and self._rules.pass_by("".join(run.texts)):
            return None
        window = blocks.setdefault(run.part.choice, self._rules.window())
        return [window.feed(text) for text in run.texts]

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Send on what was kept back."""
        window = ctx.state(self._open_blocks).pop(block.choice, None)
        rest = window.flush() if window is not None else ""
        return (ctx.text(rest),) if rest else None

    def _open_blocks(self) -> dict[int, TextWindow]:
        """Make one transaction's state: the open text block of each choice."""
        return {}
