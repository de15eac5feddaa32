"""The processes of a run: started with a bound on the wait, weighed by their CPU time, and never left behind.

A child says on its standard output which port it listens on, and ends when its standard input does: so it does not survive its
parent, however that ends.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

_HERE: Final = Path(__file__).parent
_PROC: Final = Path("/proc")
_TICK: Final = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT: Final = 180.0
"""Seconds: importing LiteLLM takes ten on a free core, and several servers start together."""
_STOP_TIMEOUT: Final = 10.0


# --- in the child ----------------------------------------------------------------------------------------------------------


def pin(cpu: int | None) -> None:
    """Keep this process on one core; None leaves it where it is."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def announce(port: int) -> None:
    """Tell the parent where to connect."""
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def leash() -> None:
    """End this process when its parent has gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def wait_for_parent() -> None:
    """Return when the parent has gone, or has let this process go."""
    # Not the buffered reader: its lock, held by a daemon thread, breaks the interpreter's end.
    while os.read(sys.stdin.fileno(), 1):
        pass


def _end_with_parent() -> NoReturn:
    wait_for_parent()
    os._exit(0)


# --- in the parent ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Child:
    """A server process."""

    process: subprocess.Popen[bytes]
    log: Path

    def port(self) -> int:
        """Wait until it listens and return its port. Raises `RuntimeError` with the end of its log when it does not."""
        output = self.process.stdout
        if output is not None and select.select([output], [], [], _START_TIMEOUT)[0]:
            line = output.readline()
            if line.strip().isdigit():
                return int(line)
        msg = f"{self.process.args!r} did not start:\n{self.log.read_text(errors='replace')[:4000]}"
        raise RuntimeError(msg)

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its descendants, user and system."""
        return sum(map(_cpu_ticks, _tree(self.process.pid))) / _TICK

    def memory_mb(self) -> float:
        """Return the resident memory of the process and its descendants."""
        pages = sum(int((_PROC / str(pid) / "statm").read_text().split()[1]) for pid in _tree(self.process.pid))
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        """End the process and wait for it."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(_STOP_TIMEOUT)


@contextmanager
def child(script: str, *arguments: str, directory: Path) -> Iterator[Child]:
    """Run one of the scripts here. It starts at once; `port()` waits for it. Its log is kept in `directory`."""
    log = directory / f"{Path(script).stem}-{'-'.join(arguments[:1])}.log".replace("---", "-")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(_HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
    started = Child(process, log)
    try:
        yield started
    finally:
        started.stop()
        if process.stdout is not None:
            process.stdout.close()


def _tree(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            for descendant in (task / "children").read_text().split():
                found += _tree(int(descendant))
    return found


def _cpu_ticks(pid: int) -> int:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0
    after_name = stat.rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])
