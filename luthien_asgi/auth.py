"""Who may ask: clients' keys, or an authenticator of the user's own; where neither is, `loopback.py` guards.

Strategy: an authenticator takes the request's headers and returns the client: its *name*, which records and policies see, or a
`Client`, which also says what it may ask for; the key is seen by nobody. It raises `ApiError` (401 or 403) for everybody
else. What is ambiguous is refused:

1. A request with two different credentials (`Authorization` and `x-api-key`, or one of them twice) is a 401, also when one of
   them is known: whatever stands before this server may have checked the other one.
2. `x-luthien-key`, where it is sent, is the credential for this server; `Authorization` and `x-api-key` are then the client's own
   for the provider (a `passthrough` model). Without it they are for this server.
3. Only `Authorization: Bearer` counts; another scheme is no credential.
4. A `Content-Type` is not looked at: a body is what it is, whatever `curl -d` calls it. A web page cannot send a key.
"""

from __future__ import annotations

import hmac
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

from luthien_asgi.clients import Client, ClientKey
from luthien_asgi.errors import ApiError, ConfigError, busy
from luthien_asgi.hook_run import LateCall, bounded
from luthien_asgi.logs import logger_of
from luthien_asgi.settings import StreamSettings
from luthien_asgi.slots import Room

__all__ = ["Auth", "Authenticator", "KeyAuth", "authenticate", "credential_of", "values_of"]

_log: Final = logger_of(__name__)

Authenticator = Callable[[Mapping[str, str]], str | Client | Awaitable[str | Client]]
"""Takes the request's headers, returns the client or its name, or raises `ApiError`. Plain or async; a plain one must not block.

Where it has a method `knows(credential)`, that says whether a credential is one of this server's, which no provider may see.
"""
Auth = Authenticator

OWN_HEADER: Final = "x-luthien-key"
"""The header for this server's key when the usual ones carry the client's own credential for the provider."""
SHORTEST_KEY: Final = 8
LONGEST_KEY: Final = 4096
_UNRESOLVED: Final = re.compile(
    r"os\.environ/.*|os\.?[a-z]+[/.:]\w+|env[/.:]\w+|\$\{?\w+\}?|\$?\{\{?[\w. ]+\}?\}", re.IGNORECASE | re.DOTALL
)
"""A reference to a variable, as this configuration and others write it, also with a typing error."""
_BEARER: Final = re.compile(r"bearer[ \t]+(\S.*)\Z", re.IGNORECASE | re.DOTALL)
_NOBODY: Final = Client(name="")


async def authenticate(auth: Auth | None, headers: Mapping[str, str], settings: StreamSettings, room: Room) -> Client:
    """Return the client that sent these headers; one without a name when there is no authenticator.

    A place in `room` is taken meanwhile. Raises `ApiError`: the authenticator's own, 401 when it returned no name, 429 when there
    is no place, 500 when it failed in any other way, 503 when it did not answer within `auth_timeout`.
    """
    if auth is None:
        return _NOBODY
    with room.one() as has_place:
        if not has_place:
            raise busy(f"{room.limit} requests wait to be authenticated already (unauthenticated); try again.")
        return await _known(auth, headers, settings)


async def _known(auth: Auth, headers: Mapping[str, str], settings: StreamSettings) -> Client:
    work = _asked(auth, headers)
    try:
        return await bounded(work, settings.auth_timeout, grace=settings.close_timeout, what="the authenticator")
    except LateCall:
        _log.error("the authenticator did not answer within %s s (auth_timeout)", settings.auth_timeout)
        msg = "The client could not be authenticated in time."
        raise ApiError(msg, status=503) from None


async def _asked(auth: Auth, headers: Mapping[str, str]) -> Client:
    try:
        said = auth(headers)
        client: object = await said if inspect.isawaitable(said) else said
    except ApiError:
        raise
    except Exception as error:
        # Not `exception`: a traceback may show a key.
        _log.error("the authenticator failed: %s", type(error).__name__)
        msg = "The client could not be authenticated."
        raise ApiError(msg, status=500) from None
    if isinstance(client, str):
        client = Client(name=client)
    if not isinstance(client, Client) or not client.name:
        raise _unauthenticated("This key is not known here.")
    return client


def credential_of(headers: Mapping[str, str], *, auth: Auth | None = None, others: Iterable[Auth | None] = ()) -> str | None:
    """Return the client's own credential for the provider, or None when it sent none.

    `auth` let the client in; `others` have keys too (operators'). A key of this server's is not the client's own and is not
    returned: it must not reach a provider. An authenticator that cannot be asked, for want of a method `knows`, may have read any
    header: then only what was sent beside `x-luthien-key` is the client's own. Raises `ApiError` (401) when two different
    credentials were sent.
    """
    credential = _only(_provider_credentials(headers))
    if credential is None or any(_knows(each, credential) for each in (auth, *others)):
        return None
    if auth is not None and not hasattr(auth, "knows") and not values_of(headers, OWN_HEADER) - {""}:
        return None
    return credential


def _knows(auth: Auth | None, credential: str) -> bool:
    knows = getattr(auth, "knows", None)
    return callable(knows) and bool(knows(credential))


class KeyAuth:
    """Lets clients in that send one of these keys, as `Authorization: Bearer …`, `x-api-key` or `x-luthien-key`.

    `keys` maps a client's name to its key, or to a `ClientKey` that also says which models it opens; a sequence of keys names
    them `client-1`, `client-2`, …. Keys are compared in constant time, all of them each time, and kept as digests only. Raises
    `ConfigError` for no keys, for a key that is shorter than 8 or longer than 4096 characters, not resolved (`os.environ/…`),
    used twice, or that no header can carry.
    """

    __slots__ = ("_clients",)

    def __init__(self, keys: Mapping[str, str | ClientKey] | Sequence[str | ClientKey]) -> None:
        given = {name: key if isinstance(key, ClientKey) else ClientKey(key=key) for name, key in _named(keys).items()}
        _check({name: each.key for name, each in given.items()})
        self._clients: Final = tuple(
            (Client(name=name, models=_fixed(each.models), streams=each.streams), _digest(each.key.encode()))
            for name, each in given.items()
        )

    def __call__(self, headers: Mapping[str, str]) -> Client:
        """Return the client that a request's headers belong to, or raise `ApiError` (401)."""
        presented = _only(values_of(headers, OWN_HEADER) or _provider_credentials(headers))
        if presented is None:
            raise _unauthenticated("A key is needed: send it as 'Authorization: Bearer …' or 'x-api-key'.")
        client = self._client_of(presented)
        if client is None:
            raise _unauthenticated("This key is not known here.")
        return client

    def knows(self, credential: str) -> bool:
        """Tell whether a credential is a key of this server's."""
        return self._client_of(credential) is not None

    def shares_a_key_with(self, other: KeyAuth) -> bool:
        """Tell whether a key is known to both."""
        theirs = {digest for _, digest in other._clients}
        return any(digest in theirs for _, digest in self._clients)

    def __repr__(self) -> str:
        return f"KeyAuth(clients={[client.name for client, _ in self._clients]!r})"

    def _client_of(self, presented: str) -> Client | None:
        if len(presented) > LONGEST_KEY:
            return None  # before it is hashed
        candidates = [_digest(form) for form in _forms(presented)]
        found = None
        for client, digest in self._clients:
            for candidate in candidates:
                if hmac.compare_digest(candidate, digest):
                    found = client  # no early return: the time must not tell which key it was
        return found


# --- headers ---------------------------------------------------------------------------------------------------------------


def values_of(headers: Mapping[str, str], wanted: str) -> set[str]:
    """Return the distinct values of a header: Starlette's `Headers.items()` gives a header once for each time it was sent."""
    return {value.strip() for name, value in headers.items() if name.lower() == wanted}


def _provider_credentials(headers: Mapping[str, str]) -> set[str]:
    bearers = (_BEARER.match(value) for value in values_of(headers, "authorization"))
    return {match[1] for match in bearers if match} | values_of(headers, "x-api-key")


def _only(credentials: set[str]) -> str | None:
    found = credentials - {""}
    if len(found) > 1:
        raise _unauthenticated("Two different credentials were sent: send one (or this server's own as 'x-luthien-key').")
    return next(iter(found), None)


def _unauthenticated(message: str) -> ApiError:
    return ApiError(message, status=401, headers={"www-authenticate": "Bearer"})


# --- keys ------------------------------------------------------------------------------------------------------------------


def _fixed(models: Sequence[str] | None) -> Sequence[str] | None:
    return None if models is None else tuple(models)


def _named(keys: Mapping[str, str | ClientKey] | Sequence[str | ClientKey]) -> dict[str, str | ClientKey]:
    if isinstance(keys, str | bytes):
        msg = "keys must be a list of keys or a mapping of names to keys, not one string"
        raise ConfigError(msg)
    if isinstance(keys, Mapping):
        return dict(keys)
    return {f"client-{number}": key for number, key in enumerate(keys, start=1)}


def _check(keys: dict[str, str]) -> None:
    if not keys:
        msg = "no keys were given: nobody could ask"
        raise ConfigError(msg)
    for name, key in keys.items():
        if problem := _problem(name, key):
            msg = f"a key {problem}" if name == key else f"the key of {name!r} {problem}"
            raise ConfigError(msg)
    if len(set(keys.values())) < len(keys):
        msg = "two clients have the same key: a request could not be told to be the one's or the other's"
        raise ConfigError(msg)


def _problem(name: object, key: object) -> str:
    if not isinstance(key, str) or len(key) < SHORTEST_KEY:
        return f"is not a text of {SHORTEST_KEY} characters or more"
    if len(key) > LONGEST_KEY:
        return f"is longer than {LONGEST_KEY} characters"
    if _UNRESOLVED.fullmatch(key):
        return "is still the name of an environment variable and not its value"
    if key != key.strip() or not key.isprintable():
        return "has spaces around it or characters that no header can carry"
    if not isinstance(name, str) or not name.strip() or name == key:
        return "has no name of its own, and records show names"
    return ""


def _forms(presented: str) -> tuple[bytes, ...]:
    """Return the bytes a header may stand for: servers decode headers as Latin-1, clients write UTF-8 or Latin-1."""
    as_text = presented.encode("utf-8", "surrogatepass")
    try:
        return (as_text, presented.encode("latin-1"))
    except UnicodeEncodeError:
        return (as_text,)


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
