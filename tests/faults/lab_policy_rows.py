"""The faults of policies: each hook, in each way to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from lab_rows import BROKEN, WHOLE, Row, Want, answer, either, refused

from luthien_asgi.testing import Disconnect, Reset, Stall, Truncate

HOOKS: Final = ("on_request", "on_chunk_added", "on_block_end", "on_block_complete", "on_stream_complete")
WAYS: Final = {"raise": "raises", "cancelled": "raises CancelledError", "hang": "hangs", "rubbish": "returns rubbish",
               "swallow": "swallows its cancellation", "block": "blocks the loop"}  # fmt: skip
STATUS: Final = {"hang": 504, "swallow": 504}
"""Of what fails before the first byte, where it is not 500."""
LISTS: Final = ("on_chunk_added", "on_block_end", "on_stream_complete")
"""Hooks that return chunks."""


def rows() -> Iterator[Row]:
    """Return the rows of policies' faults."""
    yield _row("a policy that does nothing", "", stream=WHOLE, whole=WHOLE)
    for way, does in WAYS.items():
        for hook in HOOKS:
            yield _failing(hook, way, f"{hook} {does}")
    for hook in LISTS:
        yield _failing(hook, "items", f"{hook} returns a list of rubbish")
        yield _failing(hook, "endless", f"{hook} returns chunks without end")
    for way in ("raise", "hang", "swallow", "rubbish", "cancelled"):
        text = f"policy:on_block_end=raise policy:on_error={way}"
        yield _row(f"on_error {WAYS[way]} after a failure", text, stream=BROKEN, whole=refused(500))
    for name, fault, status in (
        ("falls silent", Stall(after=5), 504), ("is reset", Reset(after=5), 502), ("closes", Disconnect(after=5), 502),
        ("ends too early", Truncate(after=5), 502),
    ):  # fmt: skip
        yield _row(f"under policies the provider {name}", "", fault, stream=BROKEN, whole=refused(status))
        yield _row(f"and {name} while a call is held", "", replace(fault, after=12), stream=BROKEN, whole=refused(status))


def _row(name: str, text: str, *faults: Any, stream: Want, whole: Want, **more: Any) -> Row:
    reply = answer(*faults, tool=True)
    return Row(name=name, group="policy", text=text, reply=reply, stream=stream, whole=whole, policied=True, **more)


def _failing(hook: str, way: str, name: str) -> Row:
    text = f"policy:{hook}={way}"
    if way == "block":
        return _row(name, text, stream=WHOLE, whole=WHOLE, alone=True)
    if hook == "on_block_complete" and way not in STATUS:  # what cannot be checked is blocked, and says so
        return _row(name, text, stream=WHOLE, whole=WHOLE, says=None)
    early = refused(STATUS.get(way, 500), calls=0 if hook == "on_request" else 1)
    if way == "endless":  # too many, or too long in coming: what is first
        early = either(early, refused(504))
    stream = early if hook == "on_request" else either(BROKEN, early) if hook == "on_chunk_added" else BROKEN
    more = {"says": None, "alone": True} if way == "endless" else {}  # it takes the loop's time, which others are not charged for
    return _row(name, text, stream=stream, whole=early, **more)
