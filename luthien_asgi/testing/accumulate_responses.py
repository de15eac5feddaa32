"""What a client of the Responses API takes from a stream: its last event holds the whole response.

Strategy: the validator holds the stream to its grammar, and the whole response to its deltas; what is left is to read the end.
"""

from __future__ import annotations

from typing import Final

from luthien_asgi import jsontext
from luthien_asgi.testing.accumulate import Accumulated
from luthien_asgi.testing.events import sse_events
from luthien_asgi.testing.validate import check_stream

__all__ = ["accumulate_responses"]

_GOOD: Final = frozenset({"response.completed", "response.incomplete"})


def accumulate_responses(body: bytes) -> Accumulated:
    """Return the `response` that a stream ended with; with an error, the text that had come, as one message.

    Raises `ValueError` where the stream breaks its grammar.
    """
    check_stream("responses", body)
    result, texts = Accumulated(), list[str]()
    for event in sse_events(body, comments=True):
        if event.event == ":":
            result.pings += 1
            continue
        said = jsontext.loads(event.data)
        if event.event == "response.output_text.delta":
            texts.append(said["delta"])
        elif event.event in _GOOD:
            result.body, result.done = said["response"], True
        elif event.event == "response.failed":
            result.error = said["response"]["error"]
        elif event.event == "error":
            result.error = said.get("error") or said
    if result.error is not None and texts:
        part = {"type": "output_text", "text": "".join(texts)}
        result.body = {"output": [{"type": "message", "content": [part]}]}
    return result
