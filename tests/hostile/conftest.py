"""The stage for hostile requests, and the listener that nobody may call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hostile_stage import ANSWER, Canary, Stage, gateway

from luthien_asgi.backend.hygiene import load_now
from luthien_asgi.testing import ScriptedProvider


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    canary.close()


@pytest.fixture(scope="module")
def stage(serve: Any, canary: Canary) -> Iterator[Stage]:
    """A gateway for a provider in all its kinds."""
    # Here, and not in the server's thread: what is done about warnings meanwhile is done to the whole process.
    load_now(tokenizer=True)
    with ScriptedProvider(ANSWER) as provider:
        stage = Stage(provider, canary, serve(gateway(provider.url), lifespan="on"))
        yield stage
        stage.close()
