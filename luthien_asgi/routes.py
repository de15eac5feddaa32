"""Which paths are answered, and what a request for one of them asks for."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from luthien_asgi.errors import ConfigError

__all__ = ["OPERATORS", "Found", "Paths", "Route", "Routes", "route_path", "wire_of"]

Route = Literal["chat", "messages", "responses", "count_tokens", "models", "model", "approvals", "approval", "records", "health"]
OPERATORS: Final = frozenset[Route]({"approvals", "approval", "records"})
"""Routes of operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The paths that are answered, below `root_path`; None leaves a route to the wrapped app."""

    chat: str | None = "/v1/chat/completions"
    messages: str | None = "/v1/messages"
    responses: str | None = "/v1/responses"
    count_tokens: str | None = "/v1/messages/count_tokens"
    models: str | None = None
    """`GET /v1/models`, and `GET /v1/models/{model}` below it, is opted into: an app may have models of its own to show."""
    approvals: str | None = None
    """`GET /luthien/approvals`, and `POST /luthien/approvals/{id}` below it: for operators, with `approvals=`."""
    records: str | None = None
    """`GET /luthien/records/{id}`: the record of one transaction, for operators, with `operators=`."""
    health: str | None = None


class Found(NamedTuple):
    """The route of a request, and what its path names below that of the route: a model, an approval, a transaction."""

    route: Route
    name: str = ""


class Routes:
    """Finds the route of a request. Raises `ConfigError` where a path is none, or two routes have the same."""

    def __init__(self, paths: Paths) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._below: list[tuple[str, str, Route]] = []
        self._add("chat", "POST", paths.chat)
        self._add("messages", "POST", paths.messages)
        self._add("responses", "POST", paths.responses)
        self._add("count_tokens", "POST", paths.count_tokens)
        self._add("models", "GET", paths.models, below=("GET", "model"))
        self._add("approvals", "GET", paths.approvals, below=("POST", "approval"))
        self._add("records", "GET", paths.records, below=("GET", "records"))
        self._add("health", "GET", paths.health)

    def _add(self, route: Route, method: str, path: str | None, *, below: tuple[str, Route] | None = None) -> None:
        if path is None:
            return
        if not path.startswith("/") or (method, path) in self._exact:
            msg = f"the path of {route} must begin with / and be its own, not {path!r}"
            raise ConfigError(msg)
        self._exact[method, path] = route
        if below is not None:
            self._below.append((below[0], f"{path}/", below[1]))

    def find(self, scope: Mapping[str, Any]) -> Found | None:
        """Return the route of an ASGI scope of HTTP, or None: the request is the wrapped app's."""
        method, path = scope["method"], route_path(scope)
        route = self._exact.get((method, path))
        if route is not None:
            return Found(route)
        for wanted, prefix, below in self._below:
            if method == wanted and path.startswith(prefix) and len(path) > len(prefix):
                return Found(below, path[len(prefix) :])
        return None


def route_path(scope: Mapping[str, Any]) -> str:
    """Return the path below `root_path`, which is stripped only as a whole segment (`/product` is no root of `/products`)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path


def wire_of(route: Route, headers: MutableMapping[str, str]) -> str:
    """The format of an answer: the route's, or where both clients use one path, the one that the caller's headers show."""
    if route in {"messages", "count_tokens"}:
        return "anthropic"
    if route == "responses":
        return "responses"
    anthropic = "anthropic-version" in headers or ("x-api-key" in headers and "authorization" not in headers)
    return "anthropic" if route in {"models", "model"} and anthropic else "openai"
