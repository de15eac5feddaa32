"""The scenes of the policies that ship: each shows what it claims, in both formats, and says so when it does not."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import pytest
from rich.console import Console

from luthien_asgi import Block, BlockKind, Defer, Escalate, Hold, Policy, Resample, Verdict, demo, policies
from luthien_asgi.cli import main
from luthien_asgi.demo import play as playing
from luthien_asgi.demo.scenes import JUDGE, SCENES, TRUSTED, PolicyScene
from luthien_asgi.demo.screen import Board
from luthien_asgi.errors import ConfigError
from luthien_asgi.testing import Text, ToolCall


def console() -> Console:
    return Console(file=io.StringIO(), width=200, color_system=None, legacy_windows=False)


def written(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def shown(name: str) -> tuple[int, str]:
    """Play a scene and return the exit status and what was shown."""
    out = console()
    return demo.show_policy(name, console=console(), out=out, pace=0.0), written(out)


def test_every_policy_that_ships_has_a_scene() -> None:
    """One that is added without is noticed, and a scene of one that is gone."""
    assert set(policies.__all__) == set(SCENES)


@pytest.mark.parametrize("name", policies.__all__)
def test_a_scene_claims_something(name: str) -> None:
    """What is hidden is in what the model says or is asked, and something is shown; a scene that shows nothing proves nothing."""
    scene = SCENES[name]
    said = "".join(
        part.text if isinstance(part, ToolCall) else "".join(getattr(part, "fragments", ()))
        for parts in [*scene.answers, scene.trusted]
        for part in parts
    )
    assert scene.shown
    assert scene.hidden or scene.unasked
    assert all(text in said or text in scene.question for text in [*scene.hidden, *scene.unasked])


@pytest.mark.litellm
@pytest.mark.parametrize("name", policies.__all__)
def test_a_scene_shows_what_it_claims(name: str) -> None:
    """Both clients, and the next turn of each conversation."""
    status, out = shown(name)
    assert status == 0, out
    assert "An OpenAI client, turn 1" in out
    assert "An Anthropic client, turn 1" in out
    assert SCENES[name].look in " ".join(out.split("\n"))
    assert f"luthien-asgi policies {name}" in out


@pytest.mark.litellm
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden": ["HELLO"]}, "'HELLO' reached a client."),
        ({"shown": ["goodbye"]}, "An Anthropic client, turn 1: the client did not get 'goodbye'."),
        ({"unasked": ["Say hello"]}, "'Say hello' reached the model."),
    ],
)
def test_a_scene_that_goes_otherwise_is_status_1(
    changes: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demonstration checks what it claims."""
    monkeypatch.setattr(playing, "SCENES", {"UpperCase": replace(SCENES["UpperCase"], **changes)})
    status, out = shown("UpperCase")
    assert status == 1
    assert complaint in out
    assert SCENES["UpperCase"].look not in out


def test_what_is_hidden_is_looked_for_in_the_bytes_too() -> None:
    """A client may hide what it does not show."""
    board = Board()
    board.open("title", "question").received = b'data: {"citations": ["secret"]}'
    scene = PolicyScene(config={}, look="", question="question", answers=(), hidden=["secret"])
    assert playing.complaints(scene, board, []) == ["'secret' reached a client."]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("UperCase", "luthien-asgi: there is no scene for 'UperCase'; did you mean 'UpperCase'?"),
        ("my.own.Policy", "luthien-asgi: there is no scene for 'my.own.Policy'; known: "),
    ],
)
def test_a_policy_without_a_scene_is_status_2(name: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything starts."""
    assert main(["demo", "--policy", name]) == 2
    assert capsys.readouterr().err.startswith(complaint)


class Lacking(Policy):
    """Miss a library."""

    def __init__(self) -> None:
        raise ValueError("this policy needs pip install 'luthien-asgi[shell]'")


def test_a_policy_whose_extra_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, and no traceback."""
    monkeypatch.setattr(policies, "UpperCase", Lacking)
    with pytest.raises(ConfigError, match=r"UpperCase cannot be shown: this policy needs pip install 'luthien-asgi\[shell\]'"):
        playing.scene_of("UpperCase")


class Everything(Policy):
    """Ask a model, then a person, and have answers written anew."""

    handles: ClassVar[Mapping[BlockKind, Hold]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts: ClassVar[Collection[type[Verdict]]] = (Resample, Defer, Escalate)
    asks: ClassVar[Sequence[str]] = (JUDGE,)

    async def on_block_complete(self, block: Block, ctx: Any) -> Resample | Defer | Escalate | None:
        """Do what the judge says."""
        said = (await ctx.ask(JUDGE, f"What about {block.text}?")).text
        verdicts = {"again": Resample(n=1), "defer": Defer(TRUSTED), "person": Escalate("May it run?")}
        return verdicts.get(said)


EVERYTHING: Final = PolicyScene(
    config={},
    look="All of it.",
    question="Do it.",
    answers=[
        [Text("one"), ToolCall("c1", "run", {"step": "again"})],
        [Text("two"), ToolCall("c1", "run", {"step": "defer"})],
    ],
    tools=["run"],
    judge=lambda prompt: next(word for word in ("again", "defer", "person") if word in prompt),
    trusted=[Text("three"), ToolCall("c1", "run", {"step": "person"})],
    person=True,
    hidden=["again", "defer"],
    shown=["three", "run ", "person"],
)


@pytest.mark.litellm
def test_judges_persons_and_new_answers_are_on_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they come, for both clients."""
    monkeypatch.setattr(playing, "SCENES", {"UpperCase": EVERYTHING})
    monkeypatch.setattr("luthien_asgi.demo.run.SCENES", {"UpperCase": EVERYTHING})
    monkeypatch.setattr(policies, "UpperCase", Everything)
    status, out = shown("UpperCase")
    assert status == 0, out
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.count("│") == 3]
    expected = [
        "one", 'run {"step":"again"}', "gpt-judge says: again",
        "two", 'run {"step":"defer"}', "gpt-judge says: defer",
        "gpt-trusted writes instead:", "three", 'run {"step":"person"}', "gpt-judge says: person",
        "A person is asked: May it run? And says yes.",
    ]  # fmt: skip
    assert [row for row in rows if row and row != "You are welcome."] == [
        "what the model said",
        *expected,
        "what the model said",
    ] * 2
