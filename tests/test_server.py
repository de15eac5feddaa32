"""The gateway as an app: what it answers, whom it lets in, and how it says that it is not configured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import pytest

from luthien_asgi import server
from luthien_asgi.auth import KeyAuth
from luthien_asgi.config import Config
from luthien_asgi.errors import ConfigError
from luthien_asgi.generations import auth_of
from luthien_asgi.loopback import LoopbackGuard
from luthien_asgi.testing import Answer, ASGIDriver, ScriptedProvider, accumulate_openai

LOCAL: Final = {"host": "localhost"}
QUESTION: Final = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


def config(url: str = "http://127.0.0.1:9", **more: Any) -> Config:
    params = {"model": "openai/gpt-4o-mini", "api_base": f"{url}/v1", "api_key": "provider-key"}
    return Config(file="test", model_list=[{"model_name": "fast", "litellm_params": params}], **more)


def driver(app: Any) -> ASGIDriver:
    return ASGIDriver(app, within=60.0)


async def answered(app: Any, client: Any, path: str = "/nowhere") -> int:
    """Return the status that a caller from an address gets."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
        "client": client,
    }
    said: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    await app(scope, receive, send)
    return int(said[0]["status"])


@pytest.mark.litellm
async def test_a_question_is_answered_by_the_provider() -> None:
    """The whole way: client, policy, LiteLLM, provider and back."""
    async with ScriptedProvider(Answer("Hel", "lo")) as provider:
        gateway = server.create_app(config(provider.url, auth=["client-key"]))
        await gateway.start()
        try:
            headers = {"authorization": "Bearer client-key"}
            fetched = await driver(gateway).fetch("POST", "/v1/chat/completions", json=QUESTION, headers=headers)
        finally:
            await gateway.aclose()
    assert fetched.status == 200
    assert accumulate_openai(fetched.body).body["choices"][0]["message"]["content"] == "Hello"
    assert provider.requests[0].headers["authorization"] == "Bearer provider-key"


@pytest.mark.litellm
async def test_models_and_health_are_on() -> None:
    """A gateway of its own shows its models and says that it is well."""
    app = driver(server.create_app(config()))
    models = await app.fetch("GET", "/v1/models", headers=LOCAL)
    assert [model["id"] for model in models.json()["data"]] == ["fast"]
    assert (await app.fetch("GET", "/v1/models/fast", headers=LOCAL)).json()["id"] == "fast"
    unknown = await app.fetch("GET", "/v1/models/slow", headers=LOCAL)
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "model_not_found")
    health = await app.fetch("GET", "/luthien/health", headers=LOCAL)
    assert (health.status, health.json()["status"]) == (200, "ok")


async def test_an_unknown_path_is_a_404_in_json() -> None:
    """Clients of either format find the message where they look for it."""
    fetched = await driver(server.create_app(config())).fetch("GET", "/v1/embeddings")
    assert fetched.status == 404
    assert fetched.json() == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "there is no GET /v1/embeddings here"},
    }


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 50_000), 404),
        (("::1", 50_000), 404),
        (("192.0.2.7", 50_000), 403),
        (("localhost", 50_000), 403),
        (("", 0), 403),
        (None, 403),
    ],
)
async def test_without_keys_only_callers_on_this_machine_are_answered(client: Any, status: int) -> None:
    """The peer's address counts, whatever its `Host` header says; one that is not known is not let in."""
    assert await answered(server.create_app(config()), client) == status


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", ""])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"])
async def test_who_is_not_let_in_is_told_why_in_its_own_format(path: str, header: str) -> None:
    """Also where the server takes a proxy's word for the caller's address, as uvicorn does, and for a route that is not there."""
    app = server.create_app(config())

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "client": ("192.0.2.7", 50_000)}, receive, send)

    caller = driver(served)
    fetched = await caller.fetch(
        "POST", path, json={}, headers={"host": "localhost", **({header: "192.0.2.7"} if header else {})}
    )
    why = "A proxy passed this request on" if header else "This server has no auth section"
    body = fetched.json()
    assert (fetched.status, body["error"]["message"].startswith(why)) == (403, True)
    assert ("type" in body, "param" in body["error"]) == (path == "/v1/messages", path != "/v1/messages")


async def test_with_keys_callers_from_everywhere_are_answered() -> None:
    """Who has a key is known."""
    assert await answered(server.create_app(config(auth=["client-key"])), ("192.0.2.7", 50_000)) == 404


def test_who_may_ask_follows_from_the_configuration() -> None:
    """Keys, or this machine, or everybody where clients bring their own credential."""
    own = [{"model_name": "own", "litellm_params": {"model": "openai/x"}, "passthrough": True}]
    assert isinstance(auth_of(config(auth={"me": "client-key"})), KeyAuth)
    assert isinstance(auth_of(config()), LoopbackGuard)
    assert auth_of(Config(file="test", model_list=own)) is None


async def test_without_its_variable_the_app_says_so_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers stop at this message; an exception they would take for an app without lifespan."""
    monkeypatch.delenv("LUTHIEN_CONFIG", raising=False)
    with pytest.raises(RuntimeError, match="LUTHIEN_CONFIG is not set"):
        async with driver(server._ConfiguredApp()).lifespan():
            pytest.fail("it started")


async def test_without_its_variable_a_request_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a server is told to do without lifespan."""
    monkeypatch.delenv("LUTHIEN_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="LUTHIEN_CONFIG is not set"):
        await answered(server._ConfiguredApp(), None)


async def test_the_variable_names_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is read once, at the first use."""
    file = tmp_path / "luthien.yaml"
    file.write_text("model_list: [{model_name: fast, litellm_params: {model: openai/x}}]")
    monkeypatch.setenv("LUTHIEN_CONFIG", str(file))
    app = server._ConfiguredApp()
    assert await answered(app, ("127.0.0.1", 1)) == 404
    file.unlink()
    assert await answered(app, ("127.0.0.1", 1)) == 404


def test_importing_the_module_is_cheap() -> None:
    """Neither LiteLLM nor Starlette nor a configuration is loaded before it is needed."""
    code = "import sys, luthien_asgi.server; print({'litellm', 'starlette', 'yaml', 'rich'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout == "set()\n"
    )


@pytest.mark.litellm
def test_preload_imports_litellm() -> None:
    """A master process pays once for all of its workers."""
    code = "import sys, luthien_asgi.server as s; s.preload(); print('litellm' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout == "True\n"
    )
