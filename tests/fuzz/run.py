"""Drive mutated streams through decoder, executor and encoder, and print how many came through legally.

    python tests/fuzz/run.py --count 100000 [--seed N] [--jobs 2] [--seconds S] [--keep DIR]
    python tests/fuzz/run.py --replay FILE

A case is its seed and number: the same ones give the same bytes. What fails is shrunk and stored as JSON for `--replay`; the exit
status is then 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fuzz_cases import Failure, attempt, judged, load, make_case, save, shrunk
from fuzz_drive import Driver
from fuzz_streams import load_streams


def main() -> int:
    """Run, and return the exit status."""
    asked = _arguments()
    if asked.replay:
        failure = attempt(load(asked.replay))
        print(failure or "it passes")
        return 1 if failure else 0
    begun = time.monotonic()
    with multiprocessing.Pool(asked.jobs) as pool:
        shares = [(asked.seed, job, asked.jobs, asked.count, asked.seconds) for job in range(asked.jobs)]
        results = list(pool.imap_unordered(_share, shares))
    done = sum(count for count, _, _ in results)
    kinds = sum((kinds for _, kinds, _ in results), Counter[str]())
    failures = [failure for _, _, found in results for failure in found]
    for failure in failures:
        print(f"\n{failure.complaint}\n  {failure.case.backend} -> {failure.case.client}, {failure.case.policy}")
        print("  " + "; ".join(failure.case.trail))
        print(f"  stored as {save(failure, Path(asked.keep))}")
    spent = time.monotonic() - begun
    print(f"\n{done} streams, seed {asked.seed}, {len(load_streams())} to begin with, {spent:.0f} s: {dict(kinds)}")
    print(f"{sum(kinds.values()) - kinds['ended'] - kinds['failed']} failed the checks, {len(failures)} kinds of them shown")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many streams")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that many, whatever the count")
    parser.add_argument("--keep", default="fuzz-failures", help="folder for what fails")
    parser.add_argument("--replay", type=Path, help="run one stored case")
    return parser.parse_args()


def _share(share: tuple[int, int, int, int, float]) -> tuple[int, Counter[str], list[Failure]]:
    """Run every `jobs`-th case; return how many, what became of them, and one shrunk failure of each kind."""
    seed, job, jobs, count, seconds = share
    streams, driver, until = load_streams(), Driver(), time.monotonic() + seconds
    kinds: Counter[str] = Counter()
    found: dict[str, Failure] = {}
    for number in _numbers(job, jobs, count, until):
        case = make_case(streams, seed, number)
        failure, kind = judged(driver, case)
        kinds[kind] += 1
        if failure is not None and failure.kind not in found:
            found[failure.kind] = shrunk(failure)
    driver.close()
    return sum(kinds.values()), kinds, list(found.values())


def _numbers(job: int, jobs: int, count: int, until: float) -> Iterator[int]:
    for number in range(job, count, jobs):
        if time.monotonic() > until:
            return
        yield number


if __name__ == "__main__":
    sys.exit(main())
