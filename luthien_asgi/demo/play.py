"""Plays the scene of one policy: the gateway, LiteLLM and HTTP are real, models and persons are scripted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import httpx
from rich.console import Console

from luthien_asgi import jsontext, plugins, policies
from luthien_asgi.approval_values import Approval
from luthien_asgi.approvals import Approvals
from luthien_asgi.config_policies import find_policy
from luthien_asgi.demo.conversation import CLIENTS, FILES, Client, Refused, about, ask
from luthien_asgi.demo.scenes import JUDGE, SCENES, TRUSTED, PolicyScene
from luthien_asgi.demo.screen import Board, Scene
from luthien_asgi.demo.stage import gateway_for, running_gateway
from luthien_asgi.errors import ConfigError
from luthien_asgi.policy import Policy
from luthien_asgi.serving import ServeError
from luthien_asgi.testing.exchange import ProviderRequest
from luthien_asgi.testing.parts import Answer, Part, Redacted, ToolCall
from luthien_asgi.testing.provider import ScriptedProvider

__all__ = ["complaints", "play", "scene_of"]

_GO_ON: Final = "Thank you. Go on."
_THANKS: Final = "You are welcome."

Stage = Callable[[Scene], AbstractContextManager[object]]


def scene_of(name: str) -> tuple[Policy, PolicyScene]:
    """Return the policy, configured, and its scene. Raises `ConfigError`, also where an extra is missing."""
    if name not in SCENES:
        shipped = name in policies.__all__
        raise ConfigError(f"luthien-asgi: there is no scene for {name!r}{'' if shipped else plugins.meant(name, [*SCENES])}")
    scene = SCENES[name]
    try:
        return plugins.make(find_policy(name), scene.config), scene
    except plugins.PluginError as error:
        raise ConfigError(f"luthien-asgi: {name} cannot be shown: {error}") from None


def play(name: str, *, stage: Stage, port: int, console: Console, pace: float) -> list[str]:
    """Play a policy's scene and return what went otherwise than it claims. Raises `ServeError` when it cannot be played."""
    policy, scene = scene_of(name)
    board = Board()
    script = _Script(scene, board, pace)
    with ScriptedProvider(script, strict=True) as provider:
        gateway = gateway_for(provider.url, policy, Approvals(notify=_Person(scene, board)))
        with running_gateway(gateway, port=port, console=console) as url:
            try:
                for client in CLIENTS:
                    script.begin()
                    _converse(about(client, scene.tools), url, scene, board, stage)
            except httpx.HTTPError as error:
                raise ServeError(f"the gateway cannot be reached: {error}") from error
        asked = [request.content for request in provider.requests]
    return complaints(scene, board, asked)


def complaints(scene: PolicyScene, board: Board, asked: Sequence[bytes]) -> list[str]:
    """Return what is not as the scene claims; `asked` are the requests that the models got."""
    firsts = [each for each in board.scenes if each.question == scene.question]
    return [
        *(f"{text!r} reached a client." for text in scene.hidden if board.reached_clients(text)),
        *(f"{text!r} reached the model." for text in scene.unasked if any(text.encode() in body for body in asked)),
        *(
            f"{each.title}: the client did not get {text!r}."
            for each in firsts
            for text in scene.shown
            if text not in each.text_of("client")
        ),
    ]


def _converse(client: Client, url: str, scene: PolicyScene, board: Board, stage: Stage) -> None:
    """Ask the question, and where it is answered go on with what the client keeps as its history."""
    history: list[dict[str, Any]] = [{"role": "user", "content": scene.question}]
    first = board.open(f"{client.title}, turn 1", scene.question)
    with stage(first):
        answer = ask(client, url, history, first)
        if isinstance(answer, Refused):
            first.add("client", "error", f"{answer.status}: {_message_of(answer.body)}")
            return
    kept, *results = client.answered(answer)
    has_called = bool(results) and bool(results[0]["content"])
    if not has_called:
        results = [{"role": "user", "content": _GO_ON}]
    title = f"{client.title}, turn 2: the history is accepted"
    second = board.open(title, f"(the tools say: {FILES})" if has_called else _GO_ON)
    with stage(second):
        if isinstance(answer := ask(client, url, [*history, kept, *results], second), Refused):
            raise ServeError(f"the history was not accepted: {answer.status}: {answer.body}")


def _message_of(body: str) -> str:
    return str(jsontext.loads(body)["error"]["message"])


class _Person:
    """Whoever is asked, and decides as the scene says."""

    def __init__(self, scene: PolicyScene, board: Board) -> None:
        self._scene = scene
        self._board = board

    async def __call__(self, approval: Approval) -> bool | None:
        """Decide."""
        if self._scene.person is not None:
            said = "yes" if self._scene.person else "no"
            self._board.model_says("person", f"A person is asked: {approval.question} And says {said}.", new=True)
        return self._scene.person


class _Script:
    """What the models say: called by the provider, in its thread."""

    def __init__(self, scene: PolicyScene, board: Board, pace: float) -> None:
        self._scene = scene
        self._board = board
        self._pace = pace
        self._given: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin a conversation."""
        self._given.clear()

    def __call__(self, request: ProviderRequest) -> Answer:
        """Answer a request, and show the answer."""
        model, messages = str(request.body.get("model")), request.body.get("messages") or []
        if model == JUDGE:
            return self._judged(messages)
        if any(message.get("role") == "assistant" for message in messages):
            return self._shown([*Answer(_THANKS).parts])
        if model == TRUSTED:
            self._board.model_says("judge", f"{TRUSTED} writes instead:", new=True)
            return self._shown(self._scene.trusted)
        self._show_changes(messages)
        number = min(self._given["answers"], len(self._scene.answers) - 1)
        self._given["answers"] += 1
        return self._shown(self._scene.answers[number])

    def _judged(self, messages: Sequence[dict[str, Any]]) -> Answer:
        assert self._scene.judge is not None  # noqa: S101 - a scene whose policy asks has one
        said = self._scene.judge("\n".join(_texts(messages)))
        self._board.model_says("judge", f"{JUDGE} says: {said}", new=True)
        return Answer(said)

    def _show_changes(self, messages: Sequence[dict[str, Any]]) -> None:
        asked = " ".join(_texts([message for message in messages if message.get("role") == "user"]))
        if asked != self._scene.question:
            self._board.model_says("request", f"(asked: {asked})", new=True)

    def _shown(self, parts: Sequence[Part]) -> Answer:
        for part in parts:
            if isinstance(part, ToolCall):
                self._board.model_says("tool_call", f"{part.name} {part.text}", new=True)
            elif not isinstance(part, Redacted):
                self._board.model_says(type(part).__name__.lower(), "".join(part.fragments), new=True)
        return Answer(*parts, pace=self._pace)


def _texts(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        else:
            yield from (str(part.get("text", "")) for part in content or ())
