"""Scrubbing: what looks like a credential is masked, everything else stays."""

from __future__ import annotations

import pytest

from luthien_asgi.backend.scrub import scrub_value as scrub_of_provider
from luthien_asgi.scrub import MASK, scrub, scrub_headers, scrub_value

SECRET = "Zx81QpLm42vbNNtr"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-proj-{SECRET}. You can find it elsewhere.",
        f"sk-ant-api03-{SECRET}-AA",
        f"key gsk_{SECRET} is revoked",
        f"hf_{SECRET}",
        f"github_pat_{SECRET}",
        f"AIzaSy{SECRET}{SECRET}",
        "AKIAIOSFODNN7EXAMPLE was refused",
        f"eyJhbGciOi.eyJzdWIi{SECRET}.{SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization: basic {SECRET}==",
        f"'x-api-key': '{SECRET}'",
        f'{{"api_key": "{SECRET}"}}',
        f"OPENAI_API_KEY={SECRET}",
        f"client_secret={SECRET}&grant=1",
        f"password: {SECRET}",
        f"https://generative.example/v1?alt=sse&key={SECRET}&x=1",
        f"https://user:{SECRET}@proxy.example/",
        f"https://user:p@{SECRET}@proxy.example/",
        f"Set-Cookie: {SECRET}; path=/",
    ],
)
def test_a_credential_is_masked_wherever_it_stands(text: str) -> None:
    """Nothing of a key, token, password or cookie is left, and a mask says that something was there."""
    cleaned = scrub(text)
    assert SECRET not in cleaned
    assert "AKIAIOSFODNN7EXAMPLE" not in cleaned
    assert MASK in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "The field `max_tokens` is missing: it must be a positive number.",
        "model gpt-4o-mini-2024-07-18 does not exist",
        "https://api.example/v1/chat/completions?alt=sse answered 529",
        "a risk-assessment of the task-scheduling",
        "mail me@example.org",
        "the key 'temperature' is unknown",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    """A message without a credential is not touched."""
    assert scrub(text) == text


def test_the_rest_of_the_message_stays_readable() -> None:
    """Only the credential is masked: what surrounds it still says what happened."""
    assert scrub("401 from https://u:pw@h.example/x for api_key=abcdefgh, retry") == (
        f"401 from https://{MASK}@h.example/x for api_key={MASK}, retry"
    )


def test_scrubbing_twice_is_scrubbing_once() -> None:
    """A scrubbed text is stable, so that it may be scrubbed at every border."""
    once = scrub(f"Bearer {SECRET}, api_key: {SECRET}, https://a:{SECRET}@h/, ?key={SECRET}")
    assert scrub(once) == once


@pytest.mark.parametrize("unit", ["a", "-eyJa", "sk-", "://", "api_key", "bearer ", "[redacted]", "secret_", "?key="])
def test_a_hostile_text_costs_linear_time(unit: str) -> None:
    """200 kB of any pattern's beginning come to an end: a pattern that backtracks would need hours, and be cut off."""
    text = unit * (200_000 // len(unit))
    assert len(scrub(text)) <= 2 * len(text)


def test_values_are_scrubbed_at_every_depth_and_by_their_name() -> None:
    """Texts in objects and lists are scrubbed; under a name that says credential even one that looks harmless is masked."""
    value = {"error": [{"message": f"Bearer {SECRET}", "api_key": "plain", "code": 7, "api_key_id": None}], "n": 1.5}
    assert scrub_value(value) == {
        "error": [{"message": f"Bearer {MASK}", "api_key": MASK, "code": 7, "api_key_id": None}],
        "n": 1.5,
    }


def test_names_are_scrubbed_and_none_is_lost() -> None:
    """At every depth; those that become the same get a number, and a name that says credential still masks its value."""
    first, second = f"sk-ant-api03-{SECRET}", f"sk-ant-api04-{SECRET}"
    value = {
        first: 1,
        "list": [{f"a {second}": {second: "x"}}],
        second: 2,
        f"{MASK} (2)": 3,
        7: "Bearer",
        f"password: {SECRET}": "y",
    }
    assert scrub_value(value) == {
        MASK: 1,
        "list": [{f"a {MASK}": {MASK: "x"}}],
        f"{MASK} (2)": 2,
        f"{MASK} (2) (2)": 3,
        7: "Bearer",
        f"password: {MASK}": "y",
    }
    assert scrub_value({"api_key": "plain"}) == {"api_key": MASK}


def test_names_of_a_providers_error_are_scrubbed_of_what_is_in_use() -> None:
    """And what it says under each of them stays."""
    value = {f"{SECRET} a": 1, f"a {SECRET}": {f"{SECRET}": "b", "sk-ant-Zx81QpLm42vbNNts": "c"}}
    assert scrub_of_provider(value, [SECRET]) == {f"{MASK} a": 1, f"a {MASK}": {MASK: "b", f"{MASK} (2)": "c"}}


def test_many_names_that_become_the_same_cost_linear_time() -> None:
    """A provider's error may have as many as it likes."""
    value = {f"sk-ant-{number:012}": number for number in range(50_000)}
    assert list(scrub_value(value).values()) == list(range(50_000))


def test_scrubbing_a_value_leaves_the_original_alone() -> None:
    """The value that was given is not changed."""
    value = {"password": SECRET, "list": [f"Bearer {SECRET}"]}
    scrub_value(value)
    assert value == {"password": SECRET, "list": [f"Bearer {SECRET}"]}


def test_headers_that_carry_credentials_are_masked_whole() -> None:
    """Whatever their value looks like; the others stay."""
    headers = {"Authorization": "x", "X-Api-Key": "y", "Cookie": "z", "anthropic-version": "2023-06-01", "retry-after": "3"}
    assert scrub_headers(headers) == {
        "authorization": MASK,
        "x-api-key": MASK,
        "cookie": MASK,
        "anthropic-version": "2023-06-01",
        "retry-after": "3",
    }
    assert scrub_headers({f"X-sk-{SECRET}": "1"}) == {f"x-{MASK}": "1"}


@pytest.mark.parametrize("text", ["sk-abcdefgh", "r8_abcdefgh", "a://b@c", "password:abcd", "secret=abcd", "cookie=abcd"])
def test_the_shortest_credentials_are_masked(text: str) -> None:
    """One of each rule that has short ones."""
    assert MASK in scrub(text)
