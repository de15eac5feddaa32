"""How long `Redact` may search, and where: what is large does not stop the event loop, and its time ends."""

from __future__ import annotations

import json
import re
import threading
from typing import Any, Final

import pytest

from luthien_asgi import Governed, Policy
from luthien_asgi.context import PolicyContext
from luthien_asgi.errors import PolicyTimeout
from luthien_asgi.policies import Redact, search_time
from luthien_asgi.policies.search_time import AT_ONCE, SearchTime, searched
from luthien_asgi.policy import ThreadWork
from luthien_asgi.request import ChatRequest
from luthien_asgi.testing import ScriptedBackend, chunks, run_policy

MAIL: Final = "alice@example.com"
SMALL: Final = f"write to {MAIL} now"
LARGE: Final = "no value is in this. " * (AT_ONCE // 20) + SMALL


class Watched(Redact):
    """Notes the threads in which values are found."""

    def __init__(self, **config: Any) -> None:
        self.threads: set[str] = set()
        super().__init__(**config)

    def _placeholder(self, kind: str, value: str) -> str:
        self.threads.add(threading.current_thread().name)
        return super()._placeholder(kind, value)


def saying(*texts: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts]}


@pytest.mark.parametrize("texts", [[LARGE], [SMALL] * (AT_ONCE // len(SMALL))])
async def test_a_large_request_is_searched_in_a_thread(texts: list[str]) -> None:
    """One long text or many short ones: all are masked, and the loop's thread searched in none."""
    policy, backend = Watched(), ScriptedBackend(chunks("ok"))
    assert (await run_policy(policy, backend, request=saying(*texts))).text == "ok"
    sent = json.dumps(backend.calls[0].request.body)
    assert MAIL not in sent
    assert len(re.findall(r"\[EMAIL_\w{10}\]", sent)) == len(texts)
    assert [name.startswith("luthien-policy_") for name in policy.threads] == [True]


async def test_a_small_request_is_searched_at_once() -> None:
    """A thread would cost more than the search."""
    policy = Watched()
    await run_policy(policy, chunks("ok"), request=saying(SMALL))
    assert policy.threads == {threading.current_thread().name}


@pytest.mark.parametrize("text", [SMALL, LARGE])
async def test_a_request_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """By an error that says which policy had no time; nothing reaches the provider."""
    monkeypatch.setattr(search_time, "_LONGEST", 0.0)
    backend = ScriptedBackend(chunks("ok"))
    run = await run_policy(Redact(), backend, request=saying(text))
    assert run.status == 504
    assert run.error is not None
    assert "The policy Redact could not search" in run.error["message"]
    assert not backend.calls


def test_all_texts_of_a_request_share_one_time() -> None:
    """Once it is over, no further text is searched, and the error names the policy."""
    policy = Redact()

    def search(shared: SearchTime) -> str:
        assert not policy._tells("a", shared)
        shared.stop()
        return policy._detectors.masked(MAIL, policy._placeholder, shared)

    with pytest.raises(PolicyTimeout, match=r"The policy Redact could not search 9 characters in its time \(2\.0 s\)"):
        searched("Redact", 9, search)


class Endless(Policy):
    """Works in a thread until it is stopped."""

    def __init__(self) -> None:
        self.stopped, self.ended = threading.Event(), threading.Event()

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ThreadWork[None]:
        """Wait for the end."""

        def call() -> None:
            self.stopped.wait()
            self.ended.set()

        return ThreadWork(call, self.stopped.set)


async def test_work_that_nobody_waits_for_any_more_is_stopped() -> None:
    """At the policy's own time-out: the client gets its error, and the thread is free again."""
    policy = Endless()
    run = await run_policy(Governed(policy, timeout=0.05), chunks("ok"))
    assert run.status == 504
    assert policy.ended.wait(20)
