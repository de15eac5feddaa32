"""Frames that differ in one text, written together.

Strategy: what is the same before and after the text is there already, and the texts of a run are serialised by one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from luthien_asgi import jsontext
from luthien_asgi.chunks import Chunk
from luthien_asgi.runs import Run
from luthien_asgi.wire.protocol import StreamEncoder

__all__ = ["feed_each", "framed", "padded"]

_BETWEEN: Final = b'","'


def framed(head: bytes, texts: Sequence[str], tail: bytes) -> bytes:
    """Return a frame for each text, its JSON string between head and tail, all of them joined."""
    if len(texts) == 1:
        return head + jsontext.dumps(texts[0]) + tail
    strings = jsontext.dumps(texts)[2:-2]
    head, tail = head + b'"', b'"' + tail
    if b'\\"' in strings:  # what separates two strings may also stand in one
        return b"".join([head + jsontext.dumps(text)[1:-1] + tail for text in texts])
    return head + strings.replace(_BETWEEN, tail + head) + tail


def padded(head: bytes, texts: Sequence[str], tail: bytes, paddings: Sequence[str]) -> bytes:
    """Return the same with a padding (letters and digits) at each frame's end, as OpenAI pads its events."""
    start = tail + b',"obfuscation":"'
    pairs = zip(texts, paddings, strict=True)
    return b"".join([head + jsontext.dumps(text) + start + padding.encode() + b'"}\n\n' for text, padding in pairs])


def feed_each(encoder: StreamEncoder, run: Run) -> list[bytes]:
    """Return the frames of a run's chunks, one by one."""
    chunks: list[Chunk] = run.chunks()
    return [frame for chunk in chunks for frame in encoder.feed(chunk)]
