"""A gateway on a real server, a real LiteLLM behind it, a scripted provider, and a listener that nobody may call."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from luthien_asgi import LiteLLMBackend, LuthienMiddleware
from luthien_asgi.testing import Answer, ProviderRequest, ScriptedProvider

KEY = "sk-server-0123456789abcdef"
"""The gateway's own key, which every call of a provider carries."""
SAID = "the scripted answer"
PATHS: Mapping[str, str] = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "responses": "/v1/responses"}
"""The route of each client format."""
KINDS: Mapping[str, str] = {
    "openai": "openai/gpt-4o",
    "azure": "azure/gpt-4o",
    "vllm": "hosted_vllm/any",
    "mapped": "mistral/mistral-small-latest",
    "anthropic": "anthropic/claude-x",
    "foreign": "ollama_chat/llama3",
}
"""A model for each way to a provider: our body in the SDK's client, in `extra_body`, in LiteLLM's handler; LiteLLM's mapping
onto OpenAI's wire; our body on Anthropic's; LiteLLM's mapping onto another wire."""


class Got(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> str:
        return str(self.json()["error"]["message"])


class Canary:
    """A listener on loopback that keeps whatever is sent to it, and should get nothing."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.called: list[bytes] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    self.called.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 4\r\n\r\n\x89PNG")
                except OSError:
                    continue

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


class Stage:
    """Who asks, who answers, and who should hear nothing."""

    def __init__(self, provider: ScriptedProvider, canary: Canary, url: str) -> None:
        self.provider, self.canary, self.url = provider, canary, url
        address = urlsplit(url)
        self._client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        self.allowed = {("127.0.0.1", int(address.port or 0)), ("127.0.0.1", provider.port)}
        """Where a connection may go."""

    def ask(self, wire: str, body: Any, *, headers: Mapping[str, str] | None = None, query: str = "") -> Got:
        """Send a body (bytes as they are, anything else as JSON) to the route of a client format."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        return self.send("POST", PATHS[wire] + query, content, sent)

    def send(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> Got:
        try:
            self._client.request(method, path, content, dict(headers))
            response = self._client.getresponse()
        except ConnectionError:  # the server closes a connection that was idle
            self._client.close()
            self._client.request(method, path, content, dict(headers))
            response = self._client.getresponse()
        return Got(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def calls(self) -> list[ProviderRequest]:
        """Return what the provider was asked since the last time."""
        found = [*self.provider.requests, *self.provider.other_requests]
        self.provider.requests.clear()
        self.provider.other_requests.clear()
        return found

    def close(self) -> None:
        self._client.close()


def entry(name: str, model: str, url: str) -> dict[str, Any]:
    """Return an entry of a model list that calls the provider at `url`."""
    kind = model.partition("/")[0]
    own = {"azure": {"api_version": "2024-10-21"}}.get(kind, {})
    base = url if kind in {"anthropic", "azure", "ollama_chat", "gemini"} else f"{url}/v1"
    return {"model_name": name, "litellm_params": {"model": model, "api_base": base, "api_key": KEY, **own}}


def gateway(url: str, models: Sequence[Mapping[str, Any]] | None = None, **options: Any) -> LuthienMiddleware:
    """Return a gateway for one provider in all its kinds, or for the models of a list."""
    listed = models if models is not None else [entry(name, model, url) for name, model in KINDS.items()]
    return LuthienMiddleware(nothing, backend=LiteLLMBackend(model_list=listed), auth=None, **options)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app with a lifespan and nothing else."""
    assert scope["type"] == "lifespan", scope["path"]
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


def question(wire: str, model: str, **more: Any) -> dict[str, Any]:
    """Return a small request of a client format."""
    user = [{"role": "user", "content": "hi"}]
    said: Mapping[str, Any] = {
        "openai": {"messages": user},
        "anthropic": {"messages": user, "max_tokens": 50},
        "responses": {"input": user},
    }[wire]
    return {"model": model, **said, **more}


ANSWER = Answer(SAID)
FORMATS: Sequence[str] = tuple(PATHS)
