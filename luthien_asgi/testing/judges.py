"""Judges that say what a test wants: for the policies that ask a language model for its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.chunks import Chunk
from luthien_asgi.policies.judge_prompts import NONCE
from luthien_asgi.testing.chunk_builders import chunks

__all__ = ["judge_says", "verdict_on"]


def verdict_on(body: Mapping[str, Any], **verdict: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the reply of a judge to a request: the verdict, with the nonce that the policy asked for. For a scripted provider.

    Raises `ValueError` for a request that is not a judge's.
    """
    asked = [body.get("system"), *(each.get("content") for each in body.get("messages") or [] if each.get("role") != "user")]
    nonce = NONCE.search(json.dumps(asked))
    if nonce is None:
        msg = "this request asks for no verdict"
        raise ValueError(msg)
    return json.dumps({"nonce": nonce[0], "explanation": "As the test wants it.", **verdict})


def judge_says(**verdict: Any) -> Callable[[BackendCall], list[Chunk]]:  # noqa: ANN401 - any JSON
    """Return a judge for a `ScriptedBackend`: `judge_says(score=0.9)`, `judge_says(violated=[1], explanation="rude")`."""
    return lambda call: chunks(verdict_on(call.request.body, **verdict))
