"""Nobody but this machine: who may ask where nobody has a key.

Strategy: what a web page, a rebound name or a proxy cannot help sending gives it away, so each such header is looked at, and what
is not known to be local is refused. A `Content-Type` is looked at too: a page can post to loopback without asking first, but no
JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Final
from urllib.parse import urlsplit

from luthien_asgi.auth import values_of
from luthien_asgi.clients import Client
from luthien_asgi.errors import ApiError

__all__ = ["LoopbackGuard"]

_LOCAL: Final = Client(name="local")
_FORWARDING: Final = frozenset(
    {
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-server",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fly-client-ip",
        "x-original-forwarded-for",
        "x-envoy-external-address",
    }
)
"""What reverse proxies and tunnels add (RFC 7239, RFC 9110 7.6.3, and the names that common ones have of their own)."""
_HOST: Final = re.compile(r"(\[::1\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?\Z")


class LoopbackGuard:
    """Lets in what runs on this machine and keeps web pages out, which can post to loopback from any site.

    A request needs a loopback `Host` (DNS rebinding brings another), no `Origin` or a loopback one, no `Sec-Fetch-Site:
    cross-site`, no header that a proxy adds (whoever it passed on may be anywhere), and a JSON `Content-Type` when it has a body
    (a page can post other types without asking). Else `ApiError`, 403 or 415. It is for a server that listens on loopback only: a
    `Host` header proves nothing about who is on the other end, and a proxy need not say that it is one.
    """

    __slots__ = ()

    def __call__(self, headers: Mapping[str, str]) -> Client:
        """Return the client, always `local`, or raise `ApiError`; a request that announces a body must be JSON."""
        self.check(headers, method="POST" if _has_body(headers) else "GET")
        return _LOCAL

    def check(self, headers: Mapping[str, str], *, method: str) -> None:
        """Raise `ApiError` for a request that a web page or a rebound name may have sent."""
        hosts = values_of(headers, "host")
        if not hosts or not all(_is_loopback(host) for host in hosts):
            raise _forbidden("this server answers requests to localhost only: the Host header names another, or none")
        if not all(_is_loopback_origin(origin) for origin in values_of(headers, "origin")):
            raise _forbidden("this server does not answer web pages of other origins")
        if self.was_forwarded(headers):
            raise self.stranger(headers)
        if any(site.lower() == "cross-site" for site in values_of(headers, "sec-fetch-site")):
            raise _forbidden("this server does not answer web pages of other sites")
        if method.upper() not in {"GET", "HEAD"}:
            _check_json(values_of(headers, "content-type"))

    @staticmethod
    def was_forwarded(names: Iterable[str]) -> bool:
        """Tell whether one of these is a header that a proxy adds."""
        return any(name.lower() in _FORWARDING for name in names)

    @classmethod
    def stranger(cls, names: Iterable[str]) -> ApiError:
        """Return the error for a request of these headers that comes, or may come, from another machine."""
        if cls.was_forwarded(names):
            return _forbidden("a proxy passed this request on, and whom it came from cannot be known: keys are needed behind one")
        return _forbidden("this server has no auth section, so it answers callers on its own machine only")

    def knows(self, credential: str) -> bool:
        """Tell that no credential is one of this server's: it has none."""
        del credential
        return False

    def __repr__(self) -> str:
        return "LoopbackGuard()"


def _has_body(headers: Mapping[str, str]) -> bool:
    lengths = values_of(headers, "content-length")
    return bool(lengths - {"0"} or values_of(headers, "transfer-encoding") or values_of(headers, "content-type"))


def _check_json(types: set[str]) -> None:
    if not types or any(value.partition(";")[0].strip().lower() != "application/json" for value in types):
        msg = "The Content-Type must be application/json."
        raise ApiError(msg, status=415)


def _is_loopback(host: str) -> bool:
    match = _HOST.match(host)
    return match is not None and _is_loopback_name(match[1].lower())


def _is_loopback_name(name: str) -> bool:
    if name in {"localhost", "[::1]"}:
        return True
    try:
        return IPv4Address(name).is_loopback
    except AddressValueError:
        return False


def _is_loopback_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and _is_loopback(parts.netloc)


def _forbidden(message: str) -> ApiError:
    return ApiError(message[0].upper() + message[1:] + ".", status=403)
