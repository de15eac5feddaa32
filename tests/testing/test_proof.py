"""`assert_policy_holds`: for each promise a policy that breaks it, and what is said about it; and policies that hold."""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from luthien_asgi import (
    BackendCall,
    Block,
    BlockKind,
    Chain,
    ChatRequest,
    Deny,
    Governed,
    Hold,
    Observe,
    Policy,
    PolicyContext,
    Replace,
    StreamContext,
    Together,
    Transform,
    blocking,
    read_part,
    with_text,
)
from luthien_asgi.chunks import Chunk
from luthien_asgi.policies import DenyTools, ReplaceText
from luthien_asgi.policy import Verdict
from luthien_asgi.testing import Answer, Text, ToolCall, assert_policy_holds
from luthien_asgi.testing.proof import forms, sharing
from luthien_asgi.testing.proof.canary import LEAKS
from luthien_asgi.testing.proof.cuts import Cut, everywhere, joined, once, pieces, units
from luthien_asgi.testing.proof.snapshot import changes, snapshot

WORD = "swordfish"


def said_by(block: Block) -> str:
    """All that a block says, as a judge has to read it."""
    try:
        arguments = block.arguments if block.kind is BlockKind.TOOL_CALL else ""
    except ValueError:
        arguments = WORD
    return f"{block.text} {block.name} {arguments} {block.raw}"


class Judge(Policy):
    """Denies each block that says the word, wherever it says it."""

    handles: ClassVar = dict.fromkeys(BlockKind, Hold())

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("[removed]", reason="the word") if WORD in said_by(block) else None


def broken(policy: Any, **more: Any) -> str:
    """What is said about a policy that does not hold. Quick: the broken promise is seen in few answers."""
    with pytest.raises(AssertionError) as failed:
        assert_policy_holds(policy, **{"examples": [WORD], "cuts": 1} | more)
    return str(failed.value)


# --- policies that hold --------------------------------------------------------------------------------------------------


def test_a_policy_that_holds_is_tried_on_many_ways() -> None:
    """Nothing is raised, and what was tried is counted: a proof of nothing would show."""
    proof = assert_policy_holds(Judge(), examples=[WORD], canary=WORD, cuts=1)
    assert proof.answers == 10
    assert proof.canary_runs > 400
    assert proof.runs - proof.canary_runs > 300


async def test_it_can_be_called_where_an_event_loop_runs() -> None:
    """A test that is async calls it like any other."""
    assert assert_policy_holds(Policy(), clients=["openai"], cuts=1).runs > 50


def test_a_factory_makes_a_fresh_policy_for_each_run() -> None:
    """What keeps a budget on itself can be tried too: no run knows of another."""
    made = itertools.count()

    def make() -> Policy:
        next(made)
        return Policy()

    assert assert_policy_holds(make, clients=["openai"], cuts=1).runs <= next(made) * 2


def test_the_same_seed_is_the_same_proof() -> None:
    """A counterexample comes again."""
    said = {broken(EachChunk(), seed=3) for _ in range(2)}
    assert len(said) == 1


# --- one broken policy a promise --------------------------------------------------------------------------------------------


class EachChunk(Policy):
    """Looks at each chunk by itself: a word that is cut passes."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        text = read_part(chunk).text
        return [with_text(chunk, text.replace(WORD, "[removed]"))] if WORD in text else None


def test_a_word_that_passes_when_it_is_cut() -> None:
    """The message shows the smallest cut that does it, what was expected and what came."""
    said = broken(EachChunk())
    assert forms.FRAGMENTS in said
    cut = next(line for line in said.splitlines() if line.startswith("  cut:"))
    assert cut.count(" | ") == 1
    assert "[removed]" in said
    assert LEAKS in broken(EachChunk(), canary=WORD, canary_in=["text"])


class OnlyStreams(Judge):
    """Does nothing for a client that does not stream."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return super().on_block_complete(block, ctx) if ctx.request.stream else None


def test_a_policy_that_does_nothing_where_nobody_streams() -> None:
    """`stream: false` is no way round a policy."""
    assert forms.FORMS in broken(OnlyStreams())


class OnlyOpenAI(Judge):
    """Does nothing for a client of another format."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return super().on_block_complete(block, ctx) if ctx.request.wire == "openai" else None


def test_a_policy_that_does_nothing_for_other_formats() -> None:
    """A format is no way round a policy."""
    assert forms.FORMATS in broken(OnlyOpenAI())


class Rewrites(Judge):
    """Lets blocks pass by writing them again."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        writable = block.kind in {BlockKind.TEXT, BlockKind.TOOL_CALL, BlockKind.REFUSAL}
        return Replace([block]) if writable else None


def test_what_passes_and_comes_in_one_piece() -> None:
    """A verdict that changes nothing changes no boundary either."""
    assert forms.BOUNDARIES in broken(Rewrites(), examples=())


class KeepsAll(Policy):
    """Transforms by keeping everything back until the end."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk]:
        ctx.scratchpad.setdefault("kept", []).append(read_part(chunk).text)
        return ()

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk]:
        return [ctx.text("".join(ctx.scratchpad.pop("kept", [])))]


def test_what_is_kept_back_is_measured_where_the_author_says_how_much_it_may_be() -> None:
    """A window is the policy's own; a limit to it is a promise."""
    assert_policy_holds(KeepsAll(), clients=["openai"], cuts=1)
    said = broken(KeepsAll(), holds_back=3, examples=())
    assert forms.BOUNDARIES in said
    assert "3 are allowed" in said


class Asks(Policy):
    """Asks a model about each block, as it should."""

    handles: ClassVar = {BlockKind.TEXT: Hold(), BlockKind.TOOL_CALL: Hold()}
    asks = ("judge",)

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        answer = await ctx.ask("judge", said_by(block))
        return Deny("[removed]") if answer.text == "no" else None


class AsksEachChunk(Asks):
    """Asks about each chunk too: a call a token."""

    async def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        await ctx.ask("judge", read_part(chunk).text)


def says_no(call: BackendCall) -> str:
    """A judge that always says the same to the same."""
    return "no" if WORD in str(call.request.body) else "yes"


def test_a_policy_that_asks_a_model_is_tried_with_a_judge_that_is_scripted() -> None:
    """What the model says is a function of what it is asked; how often it is asked does not depend on the cut."""
    more: Mapping[str, Any] = {"judges": {"judge": says_no}, "examples": [WORD], "clients": ["openai", "anthropic"]}
    proof = assert_policy_holds(Asks(), canary=WORD, canary_in=["text", "tool_arguments"], cuts=1, **more)
    assert proof.canary_runs > 100
    assert forms.JUDGES in broken(AsksEachChunk(), **more)


def test_a_judge_that_has_nothing_to_say_is_no_proof() -> None:
    """The author forgot it, or wrote its name otherwise; the model's own answer in its place would prove nothing."""
    for judges in ({}, {"jugde": says_no}):
        with pytest.raises(LookupError, match="Asks asks the model 'judge': say with `judges` what it answers"):
            assert_policy_holds(Asks(), judges=judges)


def test_policies_that_are_put_together_are_tried_like_one() -> None:
    """A Chain, policies beside each other, and one that is in charge of nothing yet."""
    both = Chain(
        [ReplaceText(replacements=[["hello", WORD]]), Together([Judge(), Governed(DenyTools(names=["bash"]), mode="shadow")])]
    )
    proof = assert_policy_holds(both, examples=["hello"], canary=WORD, canary_in=["text"], clients=["openai"], cuts=1)
    assert proof.canary_runs > 20
    assert sharing.WRITES in broken(Chain([Judge(), Counts()]), examples=())


class Blank(Judge):
    """Writes a text that no provider takes back."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Replace([Block(kind=BlockKind.TEXT, text=" ")]) if block.kind is BlockKind.TEXT else None


def test_an_answer_that_a_provider_refuses_next_turn() -> None:
    """What the client stores is sent again: a blank text is refused by Anthropic for ever after."""
    said = broken(Blank(), examples=())
    assert forms.NEXT in said
    assert "non-whitespace" in said


# --- one object for all -----------------------------------------------------------------------------------------------------


class Counts(Judge):
    """Keeps a number."""

    def __init__(self) -> None:
        self.blocks = 0

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.blocks += 1


class Remembers(Judge):
    """Changes a dictionary in place, deep inside."""

    def __init__(self) -> None:
        self.config = {"seen": {"blocks": [0]}}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.config["seen"]["blocks"].append(block.index)


class Slots(Judge):
    """Has no `__dict__` of its own fields."""

    __slots__ = ("__last", "last")

    def __init__(self) -> None:
        self.last = ""
        self.__last = ""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.__last = block.text


class PutsBack(Judge):
    """Cleans up in the end, and is wrong while the stream runs."""

    handles: ClassVar = {BlockKind.TEXT: Observe()}

    def __init__(self) -> None:
        self.text = ""

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        self.text += read_part(chunk).text

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.text = ""


class OnItsClass(Judge):
    """Writes on its class, which every object of it shares."""

    seen: ClassVar[list[str]] = []

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.seen.append(block.text)


@dataclass
class Window:
    text: str = ""


@dataclass
class Inside(Judge):
    """Writes on an object that it holds."""

    window: Window = field(default_factory=Window)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.window.text = block.text


class OnRequest(Policy):
    """Keeps the last request."""

    last: Any = None

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> None:
        self.last = request


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        (Counts, "self.blocks was 0 and is "),
        (Remembers, "self.config['seen']['blocks']"),
        (Slots, "self._Slots__last was '' and is "),
        (PutsBack, "self.text was '' and is "),
        (OnItsClass, "class OnItsClass.seen"),
        (Inside, "self.window.text was '' and is "),
        (OnRequest, "self.last is new"),
    ],
)
def test_a_policy_that_writes_on_itself_is_told_where(policy: type[Policy], where: str) -> None:
    """The attribute is named, also one that is put back in the end, and one deep inside."""
    said = broken(policy(), examples=())
    assert sharing.WRITES in said
    assert where in said


def test_fields_that_may_change_are_named() -> None:
    """A counter of the author's own is no state of a transaction."""
    assert_policy_holds(Counts(), ignoring=["blocks"], clients=["openai"], cuts=1)


class Mixes(Policy):
    """Keeps what it saw of all streams where no look at the object finds it."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        shared.append(read_part(chunk).text)
        return [with_text(chunk, "[again]")] if len({*_transactions(ctx)}) > 1 else None

    def on_stream_complete(self, ctx: StreamContext) -> None:
        running.discard(ctx.transaction_id)


shared: deque[str] = deque(maxlen=3)
running: set[str] = set()


def _transactions(ctx: StreamContext) -> set[str]:
    running.add(ctx.transaction_id)
    return running


def test_two_streams_that_get_in_each_others_way() -> None:
    """State in a module is not on the object, and is seen by what it does."""
    assert sharing.MIXES in broken(Mixes(), examples=())


class Blocks(Judge):
    """Waits without letting anybody else work."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        until = time.perf_counter() + 0.03
        while time.perf_counter() < until:
            pass


class InThread(Blocks):
    """Does the same where it may."""

    @blocking
    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        quiet.wait(0.03)


class Quiet:
    """Waits as a call over the network does: without the interpreter's lock."""

    def wait(self, seconds: float) -> None:
        import threading

        threading.Event().wait(seconds)


quiet = Quiet()


def test_a_hook_that_blocks_the_event_loop() -> None:
    """Every stream of the process stands still meanwhile; in a thread it does not."""
    only: Mapping[str, Any] = {"answers": ["Hi"], "clients": ["openai"], "cuts": 1}
    said = broken(Blocks(), **only, max_block=0.02, examples=())
    assert sharing.BLOCKS in said
    assert "0.02 s are allowed" in said


# --- the canary -------------------------------------------------------------------------------------------------------------


class OnlyText(Judge):
    """Reads the text of a block and nothing else."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("[removed]") if WORD in block.text else None


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        (["tool_name"], "tool's name"),
        (["tool_arguments"], "in escapes"),
        (["logprobs"], "logprobs"),
        (["annotations"], "annotations"),
        (["citations"], "citations"),
    ],
)
def test_a_field_that_the_policy_does_not_read(fields: list[str], where: str) -> None:
    """Each field in which a word can hide is tried."""
    said = broken(OnlyText(), canary=WORD, canary_in=fields)
    assert LEAKS in said
    assert where in said


class FirstChoice(Judge):
    """Reads the first choice alone."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return super().on_block_complete(block, ctx) if block.choice == 0 else None


class Outlined(Judge):
    """Says what it denied."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny(f"denied: {block.text}") if WORD in said_by(block) else None


def test_a_second_choice_and_a_message_are_searched_too() -> None:
    """The word may not come back in what the policy says about it."""
    assert "of choice 1" in broken(FirstChoice(), canary=WORD)
    assert LEAKS in broken(Outlined(), canary=WORD)


def test_a_canary_needs_a_field_to_be_in() -> None:
    """A canary that nobody would look for proves nothing."""
    with pytest.raises(ValueError, match="canary_in"):
        assert_policy_holds(Policy(), canary=WORD)
    with pytest.raises(ValueError, match="canary_in"):
        assert_policy_holds(Judge(), canary=WORD, canary_in=["txt"])


# --- the parts --------------------------------------------------------------------------------------------------------------


def test_cuts_go_through_characters_and_escapes() -> None:
    """A character beyond U+FFFF has two halves; together they are it again."""
    assert units("a🙂") == "a\ud83d\ude42"
    assert joined("a\ud83d\ude42") == "a🙂"
    assert pieces("a🙂b", [2]) == ["a\ud83d", "\ude42b"]
    answer = Answer(Text("🙂"), ToolCall("c", "f", '{"a":"\\u0041"}'))
    assert everywhere(answer) == Cut(((1,), tuple(range(1, 14))))
    assert everywhere(answer, halves=False).places[0] == ()
    assert len(list(once(answer, 1))) == 13
    assert [part.fragments for part in Cut(((1,), (8,))).of(answer).parts] == [("\ud83d", "\ude42"), ('{"a":"\\u', '0041"}')]


class Rich(Policy):
    """Has fields of many types."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.count = itertools.count()
        self.bytes = bytearray(b"a")
        self.set = {"a"}
        self.me = self


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda policy: policy.random.random(), "self.random"),
        (lambda policy: next(policy.count), "self.count"),
        (lambda policy: policy.bytes.append(1), "self.bytes"),
        (lambda policy: policy.set.add("b"), "self.set"),
        (lambda policy: setattr(policy, "me", None), "self.me"),
        (lambda policy: delattr(policy, "count"), "self.count is gone"),
        (lambda policy: setattr(policy, "set", list(policy.set)), "self.set"),
    ],
)
def test_a_change_of_any_type_is_seen(change: Any, path: str) -> None:
    """And nothing is, where nothing changed; an object that holds itself is no trap."""
    policy = Rich()
    before = snapshot(policy)
    assert not list(changes(before, snapshot(policy)))
    change(policy)
    assert any(line.startswith(path) for line in changes(before, snapshot(policy)))


def test_a_policy_that_ships_holds() -> None:
    """The one line of an author's test."""
    proof = assert_policy_holds(
        DenyTools(patterns={"*": WORD}), examples=[WORD], canary=WORD, canary_in=["tool_arguments"], clients=["anthropic"], cuts=1
    )
    assert proof.canary_runs > 150
