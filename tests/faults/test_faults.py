"""A slice of the matrix at one real server; `tox -e faults` runs all of it."""

from __future__ import annotations

import pytest
from lab import opened, run_server
from lab_table import all_rows

pytestmark = pytest.mark.servers

PLAIN = (
    "nothing is wrong",
    "silence after some words",
    "reset after some words",
    "half a character, then closed",
    "gzip that is none",
    "a chunk size that is no number",
    "and one that comes later",
    "status 429, Retry-After: 7",
    "redirect 307 to another host",
    "plain HTTP where TLS should be",
    "resets after some words",
    "never reads",
    "a body that stops coming",
    "the disk is full",
)
POLICIED = (
    "on_block_complete hangs",
    "on_chunk_added swallows its cancellation",
    "on_stream_complete returns chunks without end",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policied", [False, True])
async def test_a_slice_of_the_matrix(policied: bool) -> None:
    """Every cell of these faults is right, and nothing is left of them."""
    names = POLICIED if policied else PLAIN
    rows = [row for row in all_rows() if row.name in names]
    assert len(rows) == len(names)
    async with opened() as lab:
        cells, complaints = await run_server(lab, "uvicorn", rows, policied=policied)
        assert lab.elsewhere.requests == []
    assert [f"{cell}: {wrong}" for cell in cells for wrong in cell.wrong] == []
    assert complaints == []
