"""LiteLLM's own iteration as the oracle of our decoders, on every recorded stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import diff_chunks
import pytest
from conf_stage import recordings
from diff_chunks import facts
from diff_listed import LISTED

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"


@pytest.mark.litellm
@pytest.mark.skipif(not recordings(), reason="no recorded streams: set LUTHIEN_RECORDED to their folder")
def test_every_deviation_is_listed_and_every_listed_one_occurs() -> None:
    """The same call of the same recording, read by both; nothing differs that has no number."""
    ran = subprocess.run([sys.executable, "-W", "ignore", diff_chunks.__file__], check=True, capture_output=True, text=True)
    occurred: set[tuple[int, str]] = set()
    unlisted: list[str] = []
    for name, fields in json.loads(ran.stdout).items():
        for field, (ours, theirs) in fields.items():
            found = {(one.number, pattern) for one in LISTED for pattern in one.matching(name, field)}
            occurred |= found
            if not found:
                unlisted.append(f"{name}: {field}: {ours!r:.200} but LiteLLM says {theirs!r:.200}")
    assert unlisted == []
    assert {(one.number, pattern) for one in LISTED for pattern in one.recordings} - occurred == set()


def test_the_deviations_are_documented() -> None:
    """The document has the same table."""
    rows = [line for line in ARCHITECTURE.read_text().splitlines() if line in {one.row() for one in LISTED}]
    assert rows == [one.row() for one in LISTED]
    assert [one.number for one in LISTED] == list(range(1, len(LISTED) + 1))


def test_what_is_not_the_same_is_a_deviation() -> None:
    """Fragments, their boundaries, calls and side data all count."""

    def chunk(**delta: object) -> dict[str, object]:
        return {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta}]}

    one, other = facts([chunk(content="ab")]), facts([chunk(content="a"), chunk(content="b")])
    assert [name for name in one if one[name] != other[name]] == ["text"]
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    assert facts([chunk(tool_calls=[call])])["calls"] == [[0, 0, "c1", "f", ["{}"]]]
