"""What a Responses client carries from turn to turn for the provider: thinking with its signature, as `encrypted_content`.

A client of the Responses API cannot keep an Anthropic signature, only the opaque `encrypted_content` of a reasoning item, which
it sends back as it was. So one block of thinking is written into it:

    luthien.v1.<base64url of {"kind": "thinking", "text": "...", "signature": "..."}>
    luthien.v1.<base64url of {"kind": "redacted_thinking", "signature": "<the data>"}>

1. The text is in it, not only in the item's `summary`: a client may drop or reformat a summary (Codex does so with `content`),
   and thinking that differs by a byte is refused by the provider that signed it.
2. It is neither encrypted nor signed by us, and nothing is taken on trust: it is a client's JSON like the rest of the body. A
   policy sees the text, the provider judges the signature, as for a client that speaks Anthropic's format.
3. A signature that belongs to a tool call (Gemini's) is not here: it travels in the call's id (`wire.thought_signatures`).
4. Whatever is not of this form, another provider's content among it, decodes to None: the caller leaves it out with notice.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from luthien_asgi import jsontext

__all__ = ["CarriedThinking", "decode", "encode"]

Kind = Literal["thinking", "redacted_thinking"]
_PREFIX: Final = "luthien.v1."
_KINDS: Final = frozenset(get_args(Kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedThinking:
    """One block of thinking."""

    kind: Kind
    text: str = ""
    """The thinking, for kind `thinking`."""
    signature: str
    """The signature; for `redacted_thinking` the data, as in `blocks.Block.signature`."""


def encode(thinking: CarriedThinking) -> str:
    """Return the `encrypted_content` of a reasoning item; `decode` gives the same value back, lone surrogates included."""
    fields = {name: value for name, value in asdict(thinking).items() if value}
    return _PREFIX + base64.urlsafe_b64encode(jsontext.dumps(fields)).decode("ascii")


def decode(encrypted_content: Any) -> CarriedThinking | None:  # noqa: ANN401 - a client's JSON
    """Return what an `encrypted_content` of this package holds, or None for anything else. Never raises."""
    if not isinstance(encrypted_content, str) or not encrypted_content.startswith(_PREFIX):
        return None
    try:
        data = base64.b64decode(encrypted_content.removeprefix(_PREFIX).encode(), altchars=b"-_", validate=True)
        fields = jsontext.loads(data)
    except (binascii.Error, ValueError):
        return None
    return _checked(fields) if isinstance(fields, dict) else None


def _checked(fields: dict[str, Any]) -> CarriedThinking | None:
    if fields.keys() - {"kind", "text", "signature"} or not all(isinstance(value, str) for value in fields.values()):
        return None
    if fields.get("kind") not in _KINDS or not fields.get("signature"):
        return None
    return CarriedThinking(**fields)
