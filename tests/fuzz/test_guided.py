"""The committed corpus of the coverage-guided fuzzer, through its targets: seeds, and everything that was ever found."""

from __future__ import annotations

from pathlib import Path

import pytest
from guided_target import attempt
from guided_targets import CORPUS, TARGETS

_FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", _FILES, ids=[f"{path.parent.name}/{path.name}" for path in _FILES])
def test_the_corpus_holds(path: Path) -> None:
    """Nothing escapes but what a target promises, in the time and memory that the length allows."""
    attempt(TARGETS[path.parent.name], path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    """A target without a seed would begin from nothing, and a folder without a target would be run by nobody."""
    assert {path.parent.name for path in _FILES} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_that_are_not_committed_hold(name: str) -> None:
    """What a run begins with beside the corpus (recorded streams, the tests' own requests) has nothing wrong with it."""
    for seed in list(TARGETS[name].seeds())[:15]:
        attempt(TARGETS[name], seed)
