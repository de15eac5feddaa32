"""The fields of the chat-completions wire (openai-python 2.54 and the API reference), as tables."""

from __future__ import annotations

from typing import Final

from luthien_asgi.testing.shapes import ANY, INDEX, NUMBER, OBJECT, TEXT, EitherOf, ListOf, Nullable, Obj, OneOf, Shape, Variant

__all__ = ["CHUNK", "COMPLETION", "ERROR", "FINISH_REASONS", "OWN_FIELDS", "USAGE"]

OWN_FIELDS: Final = frozenset({"thinking_blocks", "provider_specific_fields"})
"""Fields that gateways and providers add. There is a rule about them."""
_OWN: Final[dict[str, Shape]] = {f"{name}?": ANY for name in OWN_FIELDS}
FINISH_REASONS: Final = ("stop", "length", "tool_calls", "content_filter", "function_call")
_TIER: Final = Nullable(OneOf(("auto", "default", "flex", "scale", "priority", "fast")))

USAGE: Final = Obj(
    {
        "prompt_tokens": INDEX,
        "completion_tokens": INDEX,
        "total_tokens": INDEX,
        "prompt_tokens_details?": Nullable(
            Obj({"cached_tokens?": Nullable(INDEX), "audio_tokens?": Nullable(INDEX), "cache_write_tokens?": Nullable(INDEX)})
        ),
        "completion_tokens_details?": Nullable(
            Obj(
                {
                    "reasoning_tokens?": Nullable(INDEX),
                    "audio_tokens?": Nullable(INDEX),
                    "accepted_prediction_tokens?": Nullable(INDEX),
                    "rejected_prediction_tokens?": Nullable(INDEX),
                }
            )
        ),
    }
)
_TOP_LOGPROB: Final = Obj({"token": TEXT, "logprob": NUMBER, "bytes": Nullable(ListOf(INDEX))})
_LOGPROB: Final = Obj({**_TOP_LOGPROB.fields, "top_logprobs": ListOf(_TOP_LOGPROB)})
_LOGPROBS: Final = Obj({"content?": Nullable(ListOf(_LOGPROB)), "refusal?": Nullable(ListOf(_LOGPROB))})

_DELTA: Final = Obj(
    {
        **_OWN,
        "role?": OneOf(("assistant",), closed=True),
        "content?": Nullable(TEXT),
        "refusal?": Nullable(TEXT),
        "reasoning_content?": Nullable(TEXT),
        "tool_calls?": ListOf(OBJECT),
        "function_call?": Nullable(Obj({"name?": TEXT, "arguments?": TEXT})),
        "audio?": Nullable(Obj({"id?": TEXT, "data?": TEXT, "transcript?": TEXT, "expires_at?": INDEX})),
        "annotations?": Nullable(ListOf(OBJECT)),
    }
)
"""`reasoning_content` is not OpenAI's, but what most providers and LiteLLM call it; tool calls and the finish have rules."""

_CHOICE: Final = Obj(
    {
        "index": INDEX,
        "delta": _DELTA,
        "finish_reason?": Nullable(OneOf(FINISH_REASONS)),
        "logprobs?": Nullable(_LOGPROBS),
    }
)
_SHARED: Final[dict[str, Shape]] = {
    **_OWN,
    "id": TEXT,
    "created": INDEX,
    "model": TEXT,
    "system_fingerprint?": Nullable(TEXT),
    "service_tier?": _TIER,
    "moderation?": ANY,
    "usage?": Nullable(USAGE),
}
CHUNK: Final = Obj({**_SHARED, "object?": ANY, "choices": ListOf(_CHOICE), "obfuscation?": TEXT})

_FUNCTION: Final = Obj({"name": TEXT, "arguments": TEXT})
_CALL: Final = Variant(
    {
        "function": Obj({"id": TEXT, "type": TEXT, "function": _FUNCTION}),
        "custom": Obj({"id": TEXT, "type": TEXT, "custom": Obj({"name": TEXT, "input": TEXT})}),
    }
)
_MESSAGE: Final = Obj(
    {
        **_OWN,
        "role": OneOf(("assistant",), closed=True),
        "content": Nullable(TEXT),
        "refusal?": Nullable(TEXT),
        "reasoning_content?": Nullable(TEXT),
        "tool_calls?": ListOf(_CALL),
        "function_call?": Nullable(_FUNCTION),
        "audio?": Nullable(Obj({"id": TEXT, "data": TEXT, "transcript": TEXT, "expires_at": INDEX})),
        "annotations?": Nullable(ListOf(OBJECT)),
    }
)
_WHOLE_CHOICE: Final = Obj(
    {"index": INDEX, "message": _MESSAGE, "finish_reason": OneOf(FINISH_REASONS), "logprobs?": Nullable(_LOGPROBS)}
)
COMPLETION: Final = Obj(
    {**_SHARED, "object": OneOf(("chat.completion",), closed=True), "choices": ListOf(_WHOLE_CHOICE), "metadata?": ANY}
)
ERROR: Final = Obj(
    {"message": TEXT, "type": Nullable(TEXT), "param?": Nullable(TEXT), "code?": Nullable(EitherOf(INDEX))},
    open=True,
)
"""Inside `error`. Providers add fields of their own, and numbers as codes; every SDK passes both on."""
