"""A policy that masks secrets and personal data, and can put them back for the client."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.context import PolicyContext, StreamContext
from luthien_asgi.json_strings import Change, changed_json, changed_loosely, strings_of
from luthien_asgi.policies.detectors import KINDS, Detectors
from luthien_asgi.policies.direction import Where, checked_where, look
from luthien_asgi.policies.flow import through
from luthien_asgi.policies.placeholders import Originals, Placeholders
from luthien_asgi.policies.request_texts import with_changed_texts
from luthien_asgi.policies.search_time import SearchTime, searched, size_of
from luthien_asgi.policies.windows import Rules, TextWindow
from luthien_asgi.policy import Allow, Deny, Handling, Hold, Policy, Replace, ThreadWork, Transform
from luthien_asgi.request import ChatRequest
from luthien_asgi.runs import Run

__all__ = ["Redact"]

_MESSAGE: Final = "[Withheld by a policy: it holds a secret or personal data.]"
_IN_REQUESTS: Final = frozenset({"text", "tool_result", "tool_call", "document", "refusal", "other"})
_IN_BLOCKS: Final = frozenset({"messages", "system", "input", "instructions", "prediction"})
_NOT_SEARCHED: Final = _IN_BLOCKS | {"model"}
_RESTORED: Final[Mapping[BlockKind, Handling]] = {
    BlockKind.TEXT: Transform(),
    BlockKind.REFUSAL: Transform(),
    BlockKind.TOOL_CALL: Hold(),
}
_MASKED: Final[Mapping[BlockKind, Handling]] = {**_RESTORED, BlockKind.OTHER: Hold()}
_JUDGED: Final[Mapping[BlockKind, Handling]] = {**_MASKED, BlockKind.THINKING: Hold()}


class Redact(Policy):
    """Mask secrets and personal data: in what goes to the provider, in what comes back, or both.

        where: both
        kinds: [api_key, private_key, email]
        key: os.environ/REDACT_KEY
        restore: true

    `kinds` are `private_key` (PEM and PGP, from the first line to the last, also quoted, numbered or escaped), `api_key` (keys
    of the known vendors, JSON web tokens, bearer tokens), `password` (in a URL), `email`, `iban` and `card` (their check digits
    being right), `phone` (international, with `+` or `00`); all of them where none is named. With `phone_region` (`DE`) numbers
    as they are written in that country are found too, by the package `phonenumbers` (`pip install luthien-asgi[redact]`).
    `keep` are values that are left as they are. What has neither a form nor a name before it, such as a password in a sentence
    or AWS's secret by itself, is not found.

    A value becomes a placeholder such as `[EMAIL_3fa9c1b2d4]`, an HMAC of it: the same value has the same one in every request,
    and without the key nobody can tell which value it is by trying. `key` is a secret of sixteen characters or more. Without it
    each process makes one of its own: then placeholders are the same as long as the process lives, and another worker, or the
    process after a restart, has others. A conversation goes on all the same, because each request is masked as a whole; only
    what an earlier turn kept as a placeholder is not recognised as the same value any more.

    `where` is `request` (the default: what goes to the provider), `response` or `both`. In a request it is every text, the
    results of tools, the strings, names and numbers in the arguments of tool calls, and the strings in the other fields, tools
    and metadata included; images and files are not looked into. In an answer it is text, refusals and the arguments of tool
    calls, which are held and stay JSON; side data (citations, logprobs) of what was masked is left out. Text is kept back as
    long as it may still be part of a value: as a rule the last word.

    With `restore` the placeholders that the model repeats become the originals again for the client, in text, in refusals and
    in the arguments of tool calls. Only values of this request are restored, and only where the placeholder is exact.

    What cannot be changed is denied when it holds such a value: thinking (it is signed), calls whose arguments are not JSON, and
    blocks of tools that ran at the provider; a request with such thinking is refused. With `thinking: pass` thinking is not
    looked at. Denied thinking takes the tool calls after it with it. `message` is what the client sees instead.

    A request of more than 32 768 characters is searched in one of the threads of the hooks (`policy_threads`). All searches of
    a request share one time: two seconds, and four for each million characters, twenty at most; ordinary text needs less than
    one for a million. A request that takes longer is refused.

    `mask` does the same to any text, for a record: `JsonlRecorder(path, mask=policy.mask)`.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = _JUDGED

    def __init__(
        self,
        *,
        where: Where = "request",
        kinds: Sequence[str] = KINDS,
        key: str = "",
        restore: bool = False,
        thinking: Literal["deny", "pass"] = "deny",
        keep: Sequence[str] = (),
        phone_region: str = "",
        message: str = _MESSAGE,
    ) -> None:
        self.where = checked_where(where)
        self._judges_thinking = _checked_thinking(thinking) == "deny"
        self._message = _checked_message(message)
        self._keep = frozenset(_checked_texts("keep", keep))
        self._restore = _checked_restore(restore, self.where)
        self._placeholders = Placeholders(key, KINDS)
        self._detectors = Detectors(_checked_kinds(kinds, phone_region), phone_region=phone_region)
        self._masking = self._detectors.rules(self._placeholder)
        masked = _JUDGED if self._judges_thinking else _MASKED
        handled = masked if self.where != "request" else _RESTORED if self._restore else {}
        if handled:
            self.verdicts = (Allow, Deny, Replace)
        look(self, at_request=self.where != "response", handles=handled)

    def mask(self, text: str) -> str:
        """Return a text with its values masked."""
        return self._detectors.masked(text, self._placeholder)

    # --- the request -----------------------------------------------------------------------------------------------------

    def on_request(
        self, request: ChatRequest, ctx: PolicyContext
    ) -> ThreadWork[ChatRequest | Deny | None] | ChatRequest | Deny | None:
        """Mask what goes to the provider, and note what the placeholders stand for. A large request is searched in a thread."""
        originals = ctx.state(self._transaction).originals
        return searched(
            type(self).__name__, size_of(request.body), lambda shared: self._masked_request(request, originals, shared)
        )

    def _masked_request(self, request: ChatRequest, originals: Originals, shared: SearchTime) -> ChatRequest | Deny | None:
        thinking = (block.text for block in request.blocks() if block.kind == "thinking")
        if self._judges_thinking and any(self._tells(text, shared) for text in thinking):
            return Deny(self._message, reason="thinking in the request holds a value that is masked")

        def make(kind: str, value: str) -> str:
            placeholder = self._placeholder(kind, value)
            if placeholder != value:
                originals.add(placeholder, value)
            return placeholder

        def mask(text: str) -> str:
            return self._detectors.masked(text, make, shared)

        return _with_masked_fields(with_changed_texts(request, mask, kinds=_IN_REQUESTS, keys=True), mask)

    # --- the answer ------------------------------------------------------------------------------------------------------

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Send on what cannot become part of a value any more."""
        part = read_part(chunk)
        if part.kind is BlockKind.THINKING or part.kind is BlockKind.TOOL_CALL or part.kind is BlockKind.OTHER:
            return None  # they are held, and judged whole
        state = ctx.state(self._transaction)
        window = state.windows.get((part.choice, part.kind))
        if window is None:
            window = state.windows[part.choice, part.kind] = self._rules(ctx).window()
        return through(chunk, part, window, told=self._tells)

    def on_run_added(self, run: Run, ctx: StreamContext) -> Sequence[str] | None:
        """Send on what cannot become part of a value any more."""
        state = ctx.state(self._transaction)
        key = run.part.choice, run.part.kind
        window = state.windows.get(key)
        if window is None:
            window = state.windows[key] = self._rules(ctx).window()
        return [window.feed(text) for text in run.texts]

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Send on what was kept back."""
        window = ctx.state(self._transaction).windows.pop((block.choice, block.kind), None)
        rest = window.flush() if window is not None else ""
        return (ctx.text(rest),) if rest else None

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Replace | Deny | None:
        """Mask and restore the arguments of a tool call; deny what holds a value and cannot be changed."""
        if block.kind is BlockKind.TOOL_CALL:
            return self._judged_call(block, self._rules(ctx).whole)
        if block.kind is BlockKind.THINKING or block.kind is BlockKind.OTHER:
            said = [block.text, *strings_of(block.raw or {})]
            return self._denial(block.kind) if any(self._tells(text) for text in said) else None
        return None

    def _judged_call(self, block: Block, change: Change) -> Replace | Deny | None:
        if self.where != "request" and self._tells(block.name):
            return self._denial("name of a tool")
        if block.custom:
            new = change(block.text)
        elif _is_object(block.text):
            new = changed_json(block.text, change, keys=True)
        else:
            masks = self.where != "request" and changed_loosely(block.text, self.mask) != block.text
            return self._denial("tool call that is not JSON") if masks else None
        return Replace([block.with_text(new)], reason="masked or restored") if new != block.text else None

    def _denial(self, what: str) -> Deny:
        return Deny(self._message, reason=f"a {what} holds a value that is masked")

    def _tells(self, text: str, shared: SearchTime | None = None) -> bool:
        return self._detectors.masked(text, self._placeholder, shared) != text

    def _placeholder(self, kind: str, value: str) -> str:
        return value if value in self._keep else self._placeholders.of(kind, value)

    # --- state -----------------------------------------------------------------------------------------------------------

    def _transaction(self) -> _Transaction:
        return _Transaction()

    def _rules(self, ctx: StreamContext) -> Rules:
        """Return what is done to this transaction's answer."""
        state = ctx.state(self._transaction)
        if state.rules is None:
            rules = self._masking if self.where != "request" else Rules(())
            restores = self._restore and state.originals
            state.rules = rules.then(self._placeholders.restoring(state.originals)) if restores else rules
        return state.rules


@dataclass(slots=True)
class _Transaction:
    """What one transaction's placeholders stand for, and its open texts."""

    originals: Originals = field(default_factory=Originals)
    rules: Rules | None = None
    """What is done to the answer; None until it begins."""
    windows: dict[tuple[int, BlockKind | None], TextWindow] = field(default_factory=dict)


def _with_masked_fields(request: ChatRequest, mask: Change) -> ChatRequest:
    """Return the request with the strings of what is in no block masked: tools, metadata, the user's name, stop sequences."""
    for name, value in request.body.items():
        if name in _NOT_SEARCHED or not isinstance(value, str | list | dict):
            continue
        written = jsontext.dumps(value).decode()
        changed = changed_json(f"[{written}]", mask)
        if changed != f"[{written}]":
            (new,) = jsontext.loads(changed)
            request = request.with_field(name, new)
    return request


def _is_object(text: str) -> bool:
    try:
        return isinstance(jsontext.loads(text), dict)
    except ValueError:
        return False


# --- the configuration -------------------------------------------------------------------------------------------------------


def _checked_kinds(kinds: object, phone_region: object) -> Collection[str]:
    given = _checked_texts("kinds", kinds)
    unknown = [kind for kind in given if kind not in KINDS]
    if unknown or not given:
        msg = f"kinds must be some of {', '.join(KINDS)}, not {unknown[0] if unknown else kinds!r}"
        raise ValueError(msg)
    if not isinstance(phone_region, str) or (phone_region and "phone" not in given):
        msg = f"phone_region is a country's code, for the kind phone, not {phone_region!r}"
        raise ValueError(msg)
    return given


def _checked_texts(name: str, texts: object) -> Sequence[str]:
    if isinstance(texts, Sequence) and not isinstance(texts, str) and all(isinstance(text, str) for text in texts):
        return texts
    msg = f"{name} must be a list of texts, not {texts!r}"
    raise ValueError(msg)


def _checked_thinking(thinking: object) -> str:
    if thinking in {"deny", "pass"}:
        return str(thinking)
    msg = f"thinking must be deny or pass, not {thinking!r}"
    raise ValueError(msg)


def _checked_restore(restore: object, where: Where) -> bool:
    if restore is True and where == "response":
        msg = "restore needs where: request or both; in a response alone there is nothing to restore"
        raise ValueError(msg)
    if isinstance(restore, bool):
        return restore
    msg = f"restore must be true or false, not {restore!r}"
    raise ValueError(msg)


def _checked_message(message: object) -> str:
    if isinstance(message, str) and message.strip():
        return message
    msg = f"message must be a text that is not blank (providers refuse blank assistant text), not {message!r}"
    raise ValueError(msg)
