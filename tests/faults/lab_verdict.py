"""What is right about a cell: the bytes that its client got, what became of the provider's connection, what was recorded."""

from __future__ import annotations

import json
from typing import Any, Final

from lab_cell import Cell, Seen, ask
from lab_http import Response, polled

from luthien_asgi.testing import ProviderRequest, StreamValidator, accumulate_anthropic, accumulate_openai, sse_events
from luthien_asgi.testing.validate import read_body

CLOSED_WITHIN: Final = 1.0
"""Seconds from the end of a transaction to that of its provider's connection."""
RECORD_SECONDS: Final = 10.0
CLOSING_SECONDS: Final = 5.0
OURS: Final = "x-luthien-transaction"
"""The header that every answer of ours has."""
SECRETS: Final = (b"sk-server-secret", b"sk-policy-secret", b"FORGED")
"""What must never reach a client: our key, what a policy's exception says, another answer that a provider made up."""


async def judge(cell: Cell) -> None:
    """Run a cell and note what is wrong."""
    cell.red.clear()
    cell.late.clear()
    try:
        seen = await (cell.row.act or ask)(cell)
    except (OSError, LookupError, ValueError) as error:
        cell.red.append(f"the client failed: {error!r}")
        return
    cell.red += seen.more
    for response in seen.responses:
        cell.red += _wrong(cell, response, left=bool(seen.left))
    if not cell.red:  # otherwise there is nothing to wait for
        await _check_upstream(cell, seen)
        await _check_records(cell, seen)


def _wrong(cell: Cell, response: Response, *, left: bool) -> list[str]:
    want, found = cell.want, []
    if response.status not in want.status:
        found.append(f"status {response.status}, not {sorted(want.status)}: {_shown(response)}")
    found += [f"{secret.decode()} reached the client" for secret in SECRETS if secret in response.raw]
    for name, value in want.headers:
        if response.headers.get(name) != value:
            found.append(f"{name} is {response.headers.get(name)!r}, not {value!r}")
    if response.status == 0 or ("server" in want.ends and OURS not in response.headers):
        return found
    broken_off = not response.complete
    if broken_off and not left and "left" not in want.ends:
        found.append(f"the response broke off: {_shown(response)}")
    ends, violations = _validated(cell, response)
    found += violations
    found += _wrong_text(cell, response, whole=ends == "whole" and not broken_off)
    if not broken_off and ends not in want.ends and want.ends != {"left"}:
        found.append(f"it ended as {ends}, not {sorted(want.ends)}: {_shown(response)}")
    return found


def _validated(cell: Cell, response: Response) -> tuple[str, list[str]]:
    """Return how a response ended, and what is illegal in it."""
    if response.streamed:
        usage = True if cell.wire == "openai" else None
        validator = StreamValidator(cell.wire, include_usage=usage)
        validator.feed(response.content)
        if response.complete:
            validator.end()
        wrong, summary = validator.violations, validator.summary()
        ends = "error" if summary["ended"] in {"an error", "error", "response.failed"} else "whole"
    else:
        if not response.complete:
            return "cut off", []
        report = read_body(cell.wire, response.content)
        wrong, summary = report.violations, report.summary
        ends = "error" if summary["ended"] == "an error" else str(summary["ended"])
        if (response.status >= 400) != (ends == "error"):
            return ends, [f"status {response.status} with a body that is {ends}"]
    return ends, [f"illegal: {one}" for one in wrong if one.severity == "error"]


def _wrong_text(cell: Cell, response: Response, *, whole: bool) -> list[str]:
    """What a client has of a text is its beginning, and all of it when the answer came to its end."""
    if response.status != 200 or cell.row.says is None or not (whole or response.streamed):
        return []
    text, says = text_of(cell.wire, response), cell.row.says
    return [] if (text == says if whole else says.startswith(text)) else [f"the text is {text!r}"]


def text_of(wire: str, response: Response) -> str:
    """Return the text of an answer, of one that broke off too."""
    if response.streamed:
        if wire == "responses":
            events = [json.loads(event.data) for event in sse_events(response.content) if event.data]
            return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        accumulate = accumulate_anthropic if wire == "anthropic" else accumulate_openai
        body = accumulate(response.content).body
    else:
        body = json.loads(response.content)
    if wire == "openai":
        return "".join(choice["message"]["content"] or "" for choice in body.get("choices") or ())
    parts = body.get("content") or () if wire == "anthropic" else (p for i in body["output"] for p in i.get("content") or ())
    return "".join(part.get("text") or "" for part in parts)


def _shown(response: Response) -> str:
    return repr(response.content[-300:] if response.streamed else response.content[:300])


async def _check_upstream(cell: Cell, seen: Seen) -> None:
    """Every connection to the provider is over within a second of the transaction, and it was asked as often as it should."""
    over = seen.over
    if not await polled(lambda: all(map(_is_over, cell.asked())), CLOSING_SECONDS):
        cell.red.append(f"the provider's connection stays open: {[_is_over(one) for one in cell.asked()]}")
    closed = [request.closed_at for request in cell.asked() if request.closed_at is not None]
    if closed and (seconds := max(closed) - over) > CLOSED_WITHIN:
        cell.late.append(f"the provider's connection was closed {seconds:.1f} s after the end")
    if cell.want.calls is not None and len(cell.asked()) != cell.want.calls * max(1, len(seen.responses)):
        cell.red.append(f"the provider was asked {len(cell.asked())} times")
    if len(cell.asked()) > 2 * max(1, len(seen.responses)):
        cell.red.append(f"the provider was asked {len(cell.asked())} times")


def _is_over(request: ProviderRequest) -> bool:
    return request.finished or request.closed_early


async def _check_records(cell: Cell, seen: Seen) -> None:
    """A transaction that began has one end, of the right kind, and with the status that the client got."""
    records, want = cell.server.records, cell.want
    if not want.ending:
        if begun := records.of(cell.marker):
            cell.red.append(f"recorded, though it was refused: {len(begun)}")
        return

    least = 0 if "" in want.ending else max(1, len(seen.responses))

    found: list[str] = []

    def all_ended() -> bool:
        found[:] = records.of(cell.marker)
        return len(found) >= least and all(name in records.ended for name in found)

    if not await polled(all_ended, RECORD_SECONDS, every=0.05):
        cell.red.append(f"no end is recorded: {[(name, name in records.ended) for name in found]}")
        return
    for name in found:
        cell.red += _wrong_record(cell, records.ended[name], seen)


def _wrong_record(cell: Cell, ends: list[dict[str, Any]], seen: Seen) -> list[str]:
    found = []
    if len(ends) != 1:
        found.append(f"{len(ends)} ends are recorded")
    end = ends[0]
    if end["ending"] not in cell.want.ending:
        found.append(f"recorded as {end['ending']}, not {sorted(cell.want.ending)}: {end['error']}")
    statuses = {response.status for response in seen.responses if OURS in response.headers}
    if statuses and not seen.left and end["status"] not in statuses:
        found.append(f"recorded with status {end['status']}, the client got {sorted(statuses)}")
    if end["ending"] == "failed" and not end["error"]:
        found.append("recorded as failed without an error")
    kept = json.dumps(end).encode()
    found += [f"{secret.decode()} is in the record" for secret in SECRETS if secret in kept]
    return found
