"""A chunk stays as cheap as it is: what it costs is held to a budget, `benchmarks/budgets.json`.

Bytecode instructions and not time, so that the test says the same on a busy machine. The margin is for what versions of Python
differ in: what fails is half as much again as the budget. What became much cheaper fails too, for its budget would let it double
unseen. Work in C is no instruction, so the CPU time of chunks that come together is held too, as a ratio to a fixed loop over the
same events, with a margin for busy machines. `python tests/benchmarks/instructions.py --update` makes new budgets, best on an
idle one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

BENCHMARKS: Final = Path(__file__).parent / "benchmarks"
BUDGETS: Final[dict[str, Any]] = json.loads((BENCHMARKS / "budgets.json").read_text())
MOST: Final = 1.5
LEAST: Final = 0.6
MOST_TIME: Final = 1.8


def counted() -> dict[str, Any]:
    """Return the numbers of a process of its own: this one may be traced already, and has seen other tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment |= {"PYTHONHASHSEED": "0", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, str(BENCHMARKS / "instructions.py"), "--json"]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, timeout=110, env=environment).stdout
    )
    return found


def beyond(found: Mapping[str, Any]) -> Iterator[str]:
    for case, budgets in BUDGETS["instructions"].items():
        for arrival, budget in budgets.items():
            number = found["instructions"][case][arrival]
            if not LEAST <= number / budget <= MOST:
                yield f"{case}, {arrival}: {number} instructions a chunk, {number / budget:.2f} times the budget"
    for case, budget in BUDGETS["ratios"].items():
        ratio = found["ratios"][case]
        if ratio > MOST_TIME * budget:
            yield f"{case}, together: {ratio} times the CPU of the loop, {ratio / budget:.2f} times the budget"


def test_a_chunk_costs_neither_much_more_than_its_budget_nor_much_less() -> None:
    """Nothing that a chunk passes became half as dear again, and every case has a budget."""
    found = counted()
    assert {kind: set(numbers) for kind, numbers in found.items()} == {kind: set(numbers) for kind, numbers in BUDGETS.items()}
    assert list(beyond(found)) == []


def test_a_cost_that_doubles_is_beyond_every_budget() -> None:
    """The margins are not so wide that they hide what they are there for."""
    doubled = {
        "instructions": {case: {at: 2 * number for at, number in all_.items()} for case, all_ in BUDGETS["instructions"].items()},
        "ratios": {case: 2 * ratio for case, ratio in BUDGETS["ratios"].items()},
    }
    assert len(list(beyond(doubled))) == 2 * len(BUDGETS["instructions"]) + len(BUDGETS["ratios"])
