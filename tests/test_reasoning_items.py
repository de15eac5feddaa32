"""What a Responses client carries for the provider comes back as it was, and what is no such thing is nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi.reasoning_items import CarriedThinking, decode, encode

TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(TEXT, TEXT.filter(bool))
def test_thinking_comes_back_bit_exact(text: str, signature: str) -> None:
    """Text and signature survive, lone surrogates and all."""
    thinking = CarriedThinking(kind="thinking", text=text, signature=signature)
    assert decode(encode(thinking)) == thinking


@pytest.mark.parametrize(
    "thinking",
    [
        CarriedThinking(kind="redacted_thinking", signature="data"),
        CarriedThinking(kind="thinking", signature="only"),
    ],
)
def test_every_kind_comes_back(thinking: CarriedThinking) -> None:
    """Each kind has its own fields, and none of the others'."""
    assert decode(encode(thinking)) == thinking


def made(value: Any) -> str:
    return "luthien.v1." + base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        {},
        "",
        "gAAAAABo_of_another_provider",
        "luthien.v1.",
        "luthien.v1.!!!",
        "luthien.v1.\N{SNOWMAN}",
        "luthien.v1.\ud83d",
        "luthien.v1.e30",
        "luthien.v2." + made({"kind": "thinking", "signature": "s"})[11:],
        made([]),
        made("text"),
        made({}),
        made({"kind": "thinking"}),
        made({"kind": "thinking", "signature": ""}),
        made({"kind": "other", "signature": "s"}),
        made({"kind": ["thinking"], "signature": "s"}),
        made({"kind": "thinking", "signature": "s", "call": "c"}),
        made({"kind": "thinking", "signature": 5}),
        made({"kind": "thinking", "signature": "s", "text": None}),
        made({"kind": "thinking", "signature": "s", "api_base": "http://elsewhere"}),
        "luthien.v1." + base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        "luthien.v1." + base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_anything_else_is_nothing(content: Any) -> None:
    """What is foreign, forged or broken decodes to None, and never raises."""
    assert decode(content) is None
