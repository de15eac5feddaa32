"""What a policy saw is what the provider gets, however oddly the JSON is written; what is no JSON is a 400."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_stage import FORMATS, Canary, Stage, gateway, question

from luthien_asgi import MemoryRecorder, Policy
from luthien_asgi.request import ChatRequest
from luthien_asgi.testing import Answer, ScriptedProvider

pytestmark = pytest.mark.litellm


class Looks(Policy):
    """Keeps what it was shown."""

    seen: list[Any] = []  # noqa: RUF012 - for the test to read

    def on_request(self, request: ChatRequest, ctx: Any) -> None:
        self.seen.append(json.loads(json.dumps(request.body)))


@pytest.fixture(scope="module")
def looked(serve: Any, canary: Canary) -> Iterator[Stage]:
    with ScriptedProvider(Answer("fine")) as provider:
        stage = Stage(provider, canary, serve(gateway(provider.url, policy=Looks(), recorder=MemoryRecorder()), lifespan="on"))
        yield stage
        stage.close()


OWN = {"openai": "openai", "anthropic": "anthropic", "responses": "openai"}
TURNS = {"openai": "messages", "anthropic": "messages", "responses": "input"}


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("model", ["openai", "azure", "vllm", "mapped", "anthropic"])
def test_of_two_equal_keys_policy_and_provider_have_the_same_one(looked: Stage, wire: str, model: str) -> None:
    """At the top and in a message: nobody is sent the bytes of the client, only what was read of them."""
    name = TURNS[wire]
    body = json.dumps(question(wire, model)).replace('"hi"', '"first", "content": "second"')
    twice = body[:-1] + f', "{name}": [{{"role": "user", "content": "third", "con\\u0074ent": "fourth"}}]}}'
    for content, kept in ((body, "second"), (twice, "fourth")):
        Looks.seen.clear()
        got = looked.ask(wire, content.encode())
        (call,) = looked.calls()
        assert got.status == 200, got.body
        shown, sent = json.dumps(Looks.seen), call.content.decode()
        for word in ("first", "second", "third", "fourth"):
            assert (f'"{word}"' in shown, f'"{word}"' in sent) == (word == kept, word == kept)


ODD = {
    "nan": b'{"temperature": NaN, %s',
    "infinity": b'{"temperature": -Infinity, %s',
    "beyond a double": b'{"temperature": 1e999, %s',
    "no utf-8": b'{"user": "\xff\xfe", %s',
    "overlong utf-8": b'{"user": "\xc0\xaf", %s',
    "utf-8 of a surrogate": b'{"user": "\xed\xa0\x80", %s',
    "a raw control character": b'{"user": "a\x00b", %s',
    "a raw line end": b'{"user": "a\nb", %s',
    "a comment": b"/* */ {%s",
    "a comma too many": b'{"user": "a",, %s',
    "single quotes": b"{'user': 'a', %s",
    "something after it": b"{%s {}",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("wire", FORMATS)
def test_what_is_no_json_is_a_400(looked: Stage, wire: str, name: str) -> None:
    """In the client's format, and nobody is called."""
    got = looked.ask(wire, ODD[name] % json.dumps(question(wire, OWN[wire])).encode()[1:])
    assert (got.status, "JSON" in got.error()) == (400, True)
    assert looked.calls() == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("wire", FORMATS)
def test_json_is_utf_8_whatever_the_content_type_says(looked: Stage, wire: str, encoding: str) -> None:
    """Other encodings and a byte order mark are a 400: two readers could disagree about them."""
    content = json.dumps(question(wire, OWN[wire])).encode(encoding)
    got = looked.ask(wire, content, headers={"content-type": f"application/json; charset={encoding}"})
    assert got.status == 400, got.body
    assert looked.calls() == []


@pytest.mark.parametrize("depth", [100, 5_000, 1_000_000])
@pytest.mark.parametrize("wire", FORMATS)
def test_deep_nesting_is_a_400(looked: Stage, wire: str, depth: int) -> None:
    """As lists and as objects, before anybody walks it."""
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        inner = opening * depth + b"1" + closing * depth
        body = json.dumps(question(wire, OWN[wire], metadata={"a": 0})).encode().replace(b'{"a": 0}', b'{"a": ' + inner + b"}")
        assert looked.ask(wire, body).status == 400
    assert looked.calls() == []


@pytest.mark.parametrize(
    "name",
    [
        "Messages",
        "MODEL",
        "m\u043edel",
        "messages\u0000",
        " messages",
        "messages ",
        "__proto__",
        "constructor",
        "__class__",
        "ﬁle",
        "",
    ],
)
@pytest.mark.parametrize("wire", FORMATS)
def test_a_name_that_looks_like_another_is_another(looked: Stage, wire: str, name: str) -> None:
    """Case, homoglyphs, spaces, NUL and JavaScript's names: unknown parameters, each a 400."""
    got = looked.ask(wire, question(wire, OWN[wire], **{name: "x"}))
    assert got.status == 400
    assert looked.calls() == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "forged\x0b"])
@pytest.mark.parametrize("wire", FORMATS)
def test_a_compressed_body_is_a_415(looked: Stage, wire: str, coding: str) -> None:
    """In the client's format, unread: nothing is inflated here."""
    got = looked.ask(wire, gzip.compress(json.dumps(question(wire, OWN[wire])).encode()), headers={"content-encoding": coding})
    assert got.status in ({400, 415} if not coding.isprintable() else {415}), got.body
    if got.status == 415:
        assert "compressed" in got.error()
    assert looked.calls() == []


@pytest.mark.parametrize("wire", FORMATS)
def test_a_body_that_is_said_to_be_as_it_is_passes(looked: Stage, wire: str) -> None:
    """`identity` is no coding."""
    assert looked.ask(wire, question(wire, OWN[wire]), headers={"content-encoding": "identity"}).status == 200
    looked.calls()
