"""Who may ask: keys and authenticators."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
from starlette.datastructures import Headers

from luthien_asgi.auth import KeyAuth, authenticate, credential_of
from luthien_asgi.errors import ApiError, ConfigError
from luthien_asgi.settings import StreamSettings
from luthien_asgi.slots import Places, Room

ALICE = "alice-key-0123456789"
BOB = "bob-key-9876543210"
KEYS = {"alice": ALICE, "bob": BOB}


def status_of(headers: Mapping[str, str]) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        KeyAuth(KEYS)(headers)
    return caught.value.status, caught.value.type


# --- keys


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": f"Bearer {ALICE}"}, "alice"),
        ({"Authorization": f"bearer  {BOB} "}, "bob"),
        ({"x-api-key": BOB}, "bob"),
        ({"X-Api-Key": f" {ALICE}"}, "alice"),
        ({"x-luthien-key": ALICE}, "alice"),
        ({"authorization": f"Bearer {ALICE}", "x-api-key": ALICE}, "alice"),
        ({"authorization": "Basic Zm9vOmJhcg==", "x-api-key": ALICE}, "alice"),
        ({"x-luthien-key": ALICE, "authorization": "Bearer sk-the-clients-own"}, "alice"),
    ],
)
def test_a_known_key_gives_its_clients_name(headers: dict[str, str], name: str) -> None:
    """In either header, with any case of header names and scheme; the name is returned, not the key."""
    assert KeyAuth(KEYS)(headers).name == name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": ALICE},
        {"authorization": f"Basic {ALICE}"},
        {"authorization": f"Bearer {ALICE}x"},
        {"authorization": f"Bearer {ALICE[:-1]}"},
        {"authorization": f"Bearer {ALICE}, Bearer {ALICE}"},
        {"authorization": f"Bearer {ALICE.upper()}"},
        {"x-api-key": ""},
        {"x-api-key": "alice"},
        {"cookie": ALICE},
        {"x-luthien-key": "", "x-api-key": ALICE},
        {"x-luthien-key": "wrong-key-0000", "authorization": f"Bearer {ALICE}"},
    ],
)
def test_everything_else_is_a_401(headers: dict[str, str]) -> None:
    """No key, another scheme, a part of a key or a name is refused."""
    assert status_of(headers) == (401, "authentication_error")


@pytest.mark.parametrize("order", [(ALICE, "other-key-000"), ("other-key-000", ALICE), (ALICE, BOB)])
def test_two_different_credentials_are_refused_even_when_one_is_known(order: tuple[str, str]) -> None:
    """What stands before this server may have checked the other one."""
    assert status_of({"authorization": f"Bearer {order[0]}", "x-api-key": order[1]}) == (401, "authentication_error")


def test_a_header_sent_twice_with_different_keys_is_refused() -> None:
    """Starlette's mapping would show the first only; both are looked at."""
    twice = Headers(raw=[(b"x-api-key", ALICE.encode()), (b"x-api-key", b"other-key-000")])
    assert status_of(twice)[0] == 401
    assert KeyAuth(KEYS)(Headers(raw=[(b"x-api-key", ALICE.encode())] * 2)).name == "alice"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_key_beyond_ascii_works_in_both_encodings_of_a_header(encoding: str) -> None:
    """Clients write UTF-8 or Latin-1, servers decode as Latin-1."""
    headers = Headers(raw=[(b"authorization", b"Bearer " + "schlüssel-für-mich".encode(encoding))])
    assert KeyAuth(["schlüssel-für-mich"])(headers).name == "client-1"


def test_a_header_that_no_encoding_can_hold_is_a_401() -> None:
    """A lone surrogate or an emoji is a wrong key, not a crash."""
    assert status_of({"x-api-key": "\ud83d-0123456789"})[0] == 401
    assert status_of({"x-api-key": "😀-0123456789"})[0] == 401


def test_a_sequence_of_keys_names_the_clients_by_number() -> None:
    """The first key's client is `client-1`."""
    auth = KeyAuth([ALICE, BOB])
    assert [auth({"x-api-key": key}).name for key in (ALICE, BOB)] == ["client-1", "client-2"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "no keys"),
        ({}, "no keys"),
        ("one-long-string", "not one string"),
        ([""], "8 characters"),
        (["seven77"], "8 characters"),
        ([12345678], "8 characters"),
        (["os.environ/LUTHIEN_KEY"], "environment variable"),
        ([" key-with-space"], "spaces"),
        (["key-with-line\nbreak"], "header"),
        ({"": ALICE}, "name"),
        ({ALICE: ALICE}, "name"),
        ({"a": ALICE, "b": ALICE}, "same key"),
    ],
)
def test_keys_that_protect_nothing_are_refused_when_configured(keys: list[str], says: str) -> None:
    """The error says what is wrong and shows no key."""
    with pytest.raises(ConfigError, match=says) as caught:
        KeyAuth(keys)
    assert ALICE not in str(caught.value)
    assert "seven77" not in str(caught.value)


def test_no_key_is_shown_by_repr_or_kept_in_the_object() -> None:
    """A key appears neither in the object's text nor in any of its attributes, nor in the error for a wrong one."""
    auth = KeyAuth(KEYS)
    assert repr(auth) == "KeyAuth(clients=['alice', 'bob'])"
    assert ALICE.encode() not in repr([getattr(auth, name) for name in KeyAuth.__slots__]).encode()
    with pytest.raises(ApiError) as caught:
        auth({"x-api-key": "wrong-key-0000"})
    assert "wrong-key-0000" not in caught.value.message
    assert caught.value.headers == {"www-authenticate": "Bearer"}


@pytest.mark.parametrize(
    "key",
    [
        "os.environ/A_KEY",
        "os.enviorn/A_KEY",
        "os.env/A_KEY",
        "env:A_KEY_OF_MINE",
        "${A_KEY_HERE}",
        "$A_KEY_HERE",
        "{{ a.key.here }}",
    ],
)
def test_a_reference_to_a_variable_is_no_key(key: str) -> None:
    """Of this configuration's form, with a typing error, or of another program's."""
    with pytest.raises(ConfigError, match="the key of 'me' is still the name of an environment variable"):
        KeyAuth({"me": key})


# --- the client's own credential


def test_the_clients_own_credential_is_found_in_either_header() -> None:
    """From `Authorization: Bearer` or `x-api-key`; None without one."""
    assert credential_of({"Authorization": "Bearer own"}) == "own"
    assert credential_of({"x-api-key": "own"}) == "own"
    assert credential_of({"authorization": "Basic own", "x-luthien-key": ALICE}) is None


def test_a_key_of_this_server_is_never_the_clients_own_credential() -> None:
    """It would be sent to a provider."""
    auth = KeyAuth(KEYS)
    assert credential_of({"x-api-key": ALICE}, auth=auth) is None
    assert credential_of({"x-luthien-key": ALICE, "x-api-key": "own"}, auth=auth) == "own"


def test_two_different_own_credentials_are_refused() -> None:
    """Which of them the provider should get cannot be told."""
    with pytest.raises(ApiError, match="Two different") as caught:
        credential_of({"x-api-key": "one", "authorization": "Bearer two"})
    assert caught.value.status == 401


# --- authenticators


FREE = Room(Places(), 1)


async def test_an_authenticator_may_be_plain_or_async() -> None:
    """Both are called with the headers; without one the name is empty."""

    async def slowly(headers: Mapping[str, str]) -> str:
        return headers["x-user"]

    assert (await authenticate(lambda headers: headers["x-user"], {"x-user": "a"}, StreamSettings(), FREE)).name == "a"
    assert (await authenticate(slowly, {"x-user": "b"}, StreamSettings(), FREE)).name == "b"
    assert (await authenticate(KeyAuth(KEYS), {"x-api-key": BOB}, StreamSettings(), FREE)).name == "bob"
    assert (await authenticate(None, {}, StreamSettings(), FREE)).name == ""


@pytest.mark.parametrize("said", [None, "", False, True, 7, b"alice"])
async def test_an_authenticator_that_names_nobody_lets_nobody_in(said: object) -> None:
    """Anything but a name is a 401."""
    with pytest.raises(ApiError) as caught:
        await authenticate(lambda _: said, {}, StreamSettings(), FREE)  # type: ignore[arg-type,return-value]
    assert (caught.value.status, caught.value.type) == (401, "authentication_error")


async def test_an_authenticators_own_error_reaches_the_client() -> None:
    """An `ApiError` passes as it is."""

    def refuse(_: Mapping[str, str]) -> str:
        raise ApiError("Your trial has ended.", status=402)

    with pytest.raises(ApiError, match="trial") as caught:
        await authenticate(refuse, {}, StreamSettings(), FREE)
    assert caught.value.status == 402


async def test_an_authenticator_that_fails_lets_nobody_in_and_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a 500; neither it nor the log sees the exception's text, which may hold the key."""
    with caplog.at_level(logging.DEBUG), pytest.raises(ApiError) as caught:
        await authenticate(lambda headers: {}[headers["x-api-key"]], {"x-api-key": ALICE}, StreamSettings(), FREE)
    assert caught.value.status == 500
    assert ALICE not in caught.value.message + caplog.text
    assert "KeyError" in caplog.text
