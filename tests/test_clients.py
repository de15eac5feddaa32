"""What a key opens: the models that may be asked for, and the answers that may be under way at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi import (
    ChatRequest,
    Client,
    ClientKey,
    ConfigError,
    KeyAuth,
    Limits,
    LuthienMiddleware,
    MemoryRecorder,
    Paths,
    Policy,
    PolicyContext,
    Target,
)
from luthien_asgi.approvals import Approvals
from luthien_asgi.slots import Slots
from luthien_asgi.testing import ASGIDriver, Fetched, ScriptedBackend, chunks
from luthien_asgi.testing.chunk_builders import role

OPENAI, ANTHROPIC, RESPONSES, COUNT = "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/messages/count_tokens"
PATHS = [OPENAI, ANTHROPIC, RESPONSES]
ALICE, BOB, CAROL = "key-of-alice", "key-of-bob", "key-of-carol"
MODELS = ("fast", "claude-*", "own")


class Table(ScriptedBackend):
    """Models that are found as a model list finds them; `own` takes a client's credential."""

    def __init__(self, answers: Any = None) -> None:
        super().__init__(chunks("Hello") if answers is None else answers, names=MODELS)

    def target(self, model: str) -> Target:
        own = model == "own"
        return Target(name=model, provider="openai", wire="openai", passthrough=own, spends_key=not own)


def make(keys: Mapping[str, str | ClientKey], answers: Any = None, **options: Any) -> tuple[ASGIDriver, Table, MemoryRecorder]:
    backend, recorder = Table(answers), MemoryRecorder()
    paths = Paths(models="/v1/models")
    app = LuthienMiddleware(nothing, backend=backend, recorder=recorder, auth=KeyAuth(keys), paths=paths, **options)
    return ASGIDriver(app), backend, recorder


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope["path"])


def body(path: str, model: str, **more: Any) -> dict[str, Any]:
    if path == RESPONSES:
        return {"model": model, "input": "Hi", **more}
    limit = {} if path == COUNT else {"max_tokens": 9}
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **limit, **more}


async def ask(driver: ASGIDriver, path: str, model: str, key: str = ALICE, **headers: str) -> Fetched:
    return await driver.fetch("POST", path, json=body(path, model), headers={"x-luthien-key": key, **headers})


# --- names ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "model", "may"),
    [
        (None, "anything", True),
        (["fast"], "fast", True),
        (["fast"], "fas", False),
        (["fast"], "faster", False),
        (["fast"], "FAST", False),
        (["fast"], "fast\n", False),
        (["fast"], "", False),
        (["claude-*"], "claude-sonnet-5", True),
        (["claude-*"], "claude-", False),
        (["claude-*"], "xclaude-sonnet-5", False),
        (["claude-*"], "claude-a\nb", False),
        (["claude-*"], "claude-a\n", False),
        (["*"], "anything/at-all", True),
        (["a*z"], "az", False),
        (["a*z"], "a-z", True),
        (["a.c"], "abc", False),
        (["a?c", "a[b]c"], "abc", False),
        (["a?c", "a[b]c"], "a[b]c", True),
        (["x", "fast"], "fast", True),
    ],
)
def test_a_name_is_itself_and_a_star_is_one_character_or_more(models: Sequence[str] | None, model: str, may: bool) -> None:
    """As in a model list; nothing else is a pattern."""
    assert Client(name="c", models=models).may_ask(model) is may


@pytest.mark.parametrize(
    ("models", "configured", "listed"),
    [
        (None, ["fast", "claude-*"], ["fast", "claude-*"]),
        (["fast"], ["fast", "claude-*"], ["fast"]),
        (["claude-*"], ["fast", "claude-*"], ["claude-*"]),
        (["claude-sonnet-*", "claude-x"], ["fast", "claude-*"], ["claude-sonnet-*", "claude-x"]),
        (["claude-*"], ["claude-sonnet-*", "claude-x", "gpt-*"], ["claude-sonnet-*", "claude-x"]),
        (["*"], ["fast", "claude-*", "*"], ["fast", "claude-*", "*"]),
        (["fast", "claude-x"], ["*", "claude-*"], ["fast", "claude-x"]),
        (["slow"], ["fast"], []),
    ],
)
def test_what_is_listed_is_what_may_be_asked_for(
    models: Sequence[str] | None, configured: Sequence[str], listed: Sequence[str]
) -> None:
    """Of a wildcard that is wider than the key, the key's own names."""
    assert Client(name="c", models=models).listed(configured) == listed


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"models": []}, "empty"),
        ({"models": "claude-*"}, "a list of names"),
        ({"models": [""]}, "a list of names"),
        ({"models": [7]}, "7"),
        ({"streams": 0}, "streams must be"),
        ({"streams": True}, "streams must be"),
        ({"streams": 1.5}, "streams must be"),
    ],
)
def test_a_key_that_says_nothing_is_refused(fields: Any, says: str) -> None:
    """In a key and in a client alike: one string would be a list of its characters, and one of them a star."""
    with pytest.raises(ConfigError, match=says):
        ClientKey(key=ALICE, **fields)
    with pytest.raises(ConfigError, match=says):
        Client(name="c", **fields)


def test_a_key_is_not_shown() -> None:
    """Neither by what is configured nor by what it becomes."""
    key = ClientKey(key=ALICE, models=["fast"])
    assert ALICE not in repr(key) + repr(KeyAuth({"alice": key})({"x-api-key": ALICE}))


# --- models -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PATHS, COUNT])
async def test_a_model_that_the_key_may_not_ask_for_is_a_404_and_costs_nothing(path: str) -> None:
    """In each format, with no call, no transaction and the words that a model gets that is not configured."""
    driver, backend, recorder = make({"alice": ClientKey(key=ALICE, models=["claude-*"]), "bob": BOB})
    refused, unknown = await ask(driver, path, "fast"), await ask(driver, path, "nobody-has-this")
    assert (refused.status, unknown.status) == (404, 404)
    assert refused.json()["error"]["message"] == "the model 'fast' is not one that this key may ask for"
    assert refused.body.replace(b"fast", b"").count(b"configured") == unknown.body.count(b"configured") == 0
    assert (backend.calls, recorder.begun) == ([], [])
    assert (await ask(driver, path, "claude-x")).status == 200
    assert (await ask(driver, path, "fast", BOB)).status == 200


async def test_a_tool_may_not_name_a_model_that_its_key_may_not_ask_for() -> None:
    """Anthropic's advisor asks one at the provider, on the gateway's account."""
    driver, backend, recorder = make({"alice": ClientKey(key=ALICE, models=["claude-x"]), "bob": BOB})

    async def status(key: str, advisor: str) -> int:
        tools = [{"type": "advisor_20260301", "name": "advisor", "model": advisor}]
        asked = body(ANTHROPIC, "claude-x", tools=tools)
        return (await driver.fetch("POST", ANTHROPIC, json=asked, headers={"x-luthien-key": key})).status

    assert [await status(ALICE, name) for name in ("claude-y", "nobody-has-this", "claude-x")] == [404, 404, 200]
    assert await status(BOB, "claude-y") == 200
    assert len(backend.calls) == len(recorder.begun) == 2


async def test_each_key_sees_its_own_models() -> None:
    """In the list, in either format, and one by one."""
    driver, _, _ = make({"alice": ClientKey(key=ALICE, models=["claude-sonnet-*"]), "bob": BOB})

    async def listed(key: str, **headers: str) -> list[str]:
        got = await driver.fetch("GET", "/v1/models", headers={"x-luthien-key": key, **headers})
        return [model["id"] for model in got.json()["data"]]

    async def status(key: str, model: str) -> int:
        return (await driver.fetch("GET", f"/v1/models/{model}", headers={"x-luthien-key": key})).status

    assert await listed(ALICE) == await listed(ALICE, **{"anthropic-version": "2023-06-01"}) == ["claude-sonnet-*"]
    assert await listed(BOB) == list(MODELS)
    assert [await status(ALICE, model) for model in ("claude-sonnet-5", "fast", "claude-opus")] == [200, 404, 404]
    assert [await status(BOB, model) for model in ("claude-sonnet-5", "fast")] == [200, 200]


class Route(Policy):
    """Send everything to one model."""

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest:
        del ctx
        return request.with_field("model", "claude-cheap")


@pytest.mark.parametrize("path", PATHS)
async def test_a_policy_may_route_where_the_key_may_not_go(path: str) -> None:
    """The key says what may be asked for, the operator's policy what is made of it."""
    driver, backend, _ = make({"alice": ClientKey(key=ALICE, models=["fast"])}, policy=Route())
    assert (await ask(driver, path, "fast")).status == 200
    assert [call.request.model for call in backend.calls] == ["claude-cheap"]
    assert (await ask(driver, path, "claude-cheap")).status == 404


async def test_an_authenticator_of_ones_own_may_return_a_client_or_a_name() -> None:
    """A name may ask for everything; a client for what it says."""

    def known(headers: Mapping[str, str]) -> str | Client:
        name = headers["x-user"]
        return Client(name=name, models=["fast"]) if name == "alice" else name

    app = LuthienMiddleware(nothing, backend=Table(), auth=known)
    driver = ASGIDriver(app)
    statuses = [
        (await driver.fetch("POST", OPENAI, json=body(OPENAI, model), headers={"x-user": name})).status
        for name in ("alice", "bob")
        for model in ("fast", "claude-x")
    ]
    assert statuses == [200, 404, 200, 200]


# --- places -----------------------------------------------------------------------------------------------------------------


@pytest.mark.broken_off
@pytest.mark.parametrize("path", [*PATHS, COUNT])
async def test_a_key_has_so_many_places_and_no_more(path: str) -> None:
    """The limit is reached, the next is a 429 that says when to try again, others are not disturbed, and places come back."""
    hold = asyncio.Event()
    slow = [role(), hold, *chunks("x")]
    keys = {"alice": ClientKey(key=ALICE, streams=2), "bob": ClientKey(key=BOB, streams=1)}
    driver, backend, _ = make(keys, [slow, slow, *[chunks("y")] * 4])
    headers = {"x-luthien-key": ALICE}
    streamed = body(OPENAI, "fast", stream=True)
    async with (
        driver.request("POST", OPENAI, json=streamed, headers=headers),
        driver.request("POST", OPENAI, json=streamed, headers=headers) as second,
    ):
        refused = await ask(driver, path, "fast")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["message"].startswith("2 answers are under way already for this key (streams of the key)")
        assert refused.json()["error"]["type"] in {"rate_limit_error", "rate_limit_exceeded", "too_many_requests"}
        assert (await ask(driver, path, "fast", BOB)).status == 200
        assert (await driver.fetch("GET", "/v1/models", headers=headers)).status == 200
        second.disconnect()
        await second.done()
        assert (await ask(driver, path, "fast")).status == 200
        hold.set()
    assert len(backend.streams) <= 4


@pytest.mark.broken_off
async def test_a_client_waits_for_nobody_even_while_its_body_arrives() -> None:
    """A place is taken when the client is known, so that slow bodies of one client do not take the places of all."""
    driver, _, _ = make({"alice": ClientKey(key=ALICE, streams=1), "bob": BOB})
    headers = {"x-luthien-key": ALICE}
    async with driver.request("POST", OPENAI, content=[b"{"], whole=False, headers=headers, wait=False) as sending:
        await wait_all_tasks_blocked()
        assert (await ask(driver, OPENAI, "fast")).status == 429
        assert (await ask(driver, OPENAI, "fast", BOB)).status == 200
        sending.disconnect()
        await sending.done()
        assert (await ask(driver, OPENAI, "fast")).status == 200


async def test_a_middleware_that_takes_the_place_of_another_counts_on() -> None:
    """What is under way in the old one counts in the new one, by the client's name and in all; no key is taken over."""
    hold = asyncio.Event()
    backend = Table([[role(), hold, *chunks("x")], chunks("y"), chunks("z")])
    limits = Limits(client_streams=1)
    old = LuthienMiddleware(nothing, backend=backend, auth=KeyAuth({"alice": ALICE, "bob": BOB}), limits=limits)
    new = LuthienMiddleware(
        nothing, backend=backend, auth=KeyAuth({"alice": CAROL, "carol": ALICE}), limits=limits, slots=old.slots
    )
    first, second = ASGIDriver(old), ASGIDriver(new)
    headers = {"x-luthien-key": ALICE}
    async with first.request("POST", OPENAI, json=body(OPENAI, "fast", stream=True), headers=headers) as running:
        assert (old.slots.taken, old.slots.of("alice")) == (1, 1)
        assert (await ask(second, OPENAI, "fast", CAROL)).status == 429  # alice, by her new key
        assert (await ask(second, OPENAI, "fast", ALICE)).status == 200  # carol has it now
        assert (await ask(second, OPENAI, "fast", BOB)).status == 401  # revoked
        hold.set()
        await running.read()
    assert (new.slots.taken, new.slots.of("alice")) == (0, 0)
    assert (await ask(second, OPENAI, "fast", CAROL)).status == 200
    assert repr(new.slots) == "Slots(taken=0, clients=0)"


def test_a_place_comes_back_whatever_happens_in_it() -> None:
    """Also when the work raises; a place that was not there is not given back."""
    slots = Slots()

    def fails() -> None:
        with slots.one(1) as has_place, slots.one_of("a", 1) as has_own:
            assert (has_place, has_own) == (True, True)
            with slots.one(1) as second, slots.one_of("a", 1) as own:
                assert (second, own) == (False, False)
            assert (slots.taken, slots.of("a")) == (1, 1)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert (slots.taken, slots.of("a")) == (0, 0)


# --- the gateway's keys stay here ---------------------------------------------------------------------------------------------


async def test_no_key_of_the_gateway_reaches_a_provider() -> None:
    """Neither a client's nor an operator's is a credential of the client's own, in whichever header it stands."""
    desk = Approvals(auth=KeyAuth({"boss": "key-of-the-boss"}))
    operators = KeyAuth({"admin": "key-of-the-admin"})
    driver, backend, _ = make({"alice": ALICE, "bob": BOB}, approvals=desk, operators=operators)
    for key in (ALICE, BOB, "key-of-the-boss", "key-of-the-admin"):
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert (await ask(driver, OPENAI, "own", **headers)).status == 401
            assert (await ask(driver, OPENAI, "fast", **headers)).status == 200
    assert [call.credential for call in backend.calls] == [None] * 8
    assert (await ask(driver, OPENAI, "own", **{"x-api-key": "the-clients-own"})).status == 200
    assert backend.calls[-1].credential == "the-clients-own"
    assert (await ask(driver, ANTHROPIC, "own", **{"x-api-key": "the-clients-own"})).status == 400


class Tokens:
    """An authenticator that can be asked."""

    def __call__(self, headers: Mapping[str, str]) -> str:
        return "somebody"

    def knows(self, credential: str) -> bool:
        return credential.startswith("token-")


@pytest.mark.parametrize(
    ("auth", "headers", "credential"),
    [
        (lambda _: "somebody", {"authorization": "Bearer token-of-the-gateway"}, None),
        (lambda _: "somebody", {"x-luthien-key": "", "x-api-key": "sk-own"}, None),
        (lambda _: "somebody", {"x-luthien-key": "token", "x-api-key": "sk-own"}, "sk-own"),
        (Tokens(), {"authorization": "Bearer token-of-the-gateway"}, None),
        (Tokens(), {"authorization": "Bearer sk-own"}, "sk-own"),
        (None, {"authorization": "Bearer sk-own"}, "sk-own"),
    ],
)
async def test_what_an_authenticator_may_have_read_is_not_sent_on(
    auth: Any, headers: dict[str, str], credential: str | None
) -> None:
    """One that cannot be asked may take its own from any header, so only what is sent beside x-luthien-key goes on."""
    backend = Table()
    driver = ASGIDriver(LuthienMiddleware(nothing, backend=backend, auth=auth))
    got = await driver.fetch("POST", OPENAI, json=body(OPENAI, "own"), headers=headers)
    assert got.status == (401 if credential is None else 200)
    assert [call.credential for call in backend.calls] == ([] if credential is None else [credential])


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/json", None])
async def test_with_a_key_the_content_type_does_not_matter(kind: str | None) -> None:
    """A web page has no key; `curl -d` calls JSON a form."""
    driver, _, _ = make({"alice": ALICE})
    headers = {"x-api-key": ALICE} | ({"content-type": kind} if kind else {})
    assert (await driver.fetch("POST", OPENAI, json=body(OPENAI, "fast"), headers=headers)).status == 200


def test_an_operator_has_no_key_of_a_client() -> None:
    """Whoever is both could do to itself what the other may."""
    for operators in (KeyAuth({"admin": ALICE}), KeyAuth({"admin": CAROL, "other": BOB})):
        with pytest.raises(ConfigError, match="operator"):
            make({"alice": ALICE, "bob": BOB}, operators=operators)
    make({"alice": ALICE}, operators=KeyAuth({"admin": CAROL}))
