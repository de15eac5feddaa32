"""The processes of a run: started with a bound on the wait, weighed by their CPU time, and never left behind.

A child says on its standard output which port it listens on, or is given one, and ends when its standard input does. Those
that are not ours do not look there: the kernel ends them with their parent.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

_HERE: Final = Path(__file__).parent
_PROC: Final = Path("/proc")
_START_TIMEOUT: Final = 180.0
"""Seconds: importing LiteLLM takes ten on a free core, and several servers start together."""
_STOP_TIMEOUT: Final = 10.0
_PAUSE: Final = 0.05
"""Seconds between two looks whether a port is served."""
_PAGE_KB: Final = os.sysconf("SC_PAGE_SIZE") / 1024
_PR_SET_PDEATHSIG: Final = 1
_CPU_CLOCK: Final = 2
"""The kernel's number of a process's clock of CPU time (`CPUCLOCK_SCHED`)."""


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
    given_port: int = 0

    def port(self) -> int:
        """Wait until it listens and return its port. Raises `RuntimeError` with its log when it does not."""
        deadline = time.monotonic() + _START_TIMEOUT
        port = self._served(deadline) if self.given_port else self._announced(deadline)
        if port:
            return port
        msg = f"{self.process.args!r} did not start:\n{self.log.read_text(errors='replace')[-4000:]}"
        raise RuntimeError(msg)

    def _announced(self, deadline: float) -> int:
        output = self.process.stdout
        while output is not None and select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
            line = output.readline()
            if line.strip().isdigit():
                return int(line)
            if not line:
                break
        return 0

    def _served(self, deadline: float) -> int:
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.given_port), timeout=1).close()
            except OSError:
                time.sleep(_PAUSE)
            else:
                return self.given_port
        return 0

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its descendants, user and system, ended threads included."""
        return sum(map(_cpu_seconds, tree(self.process.pid)))

    def memory_kb(self) -> float:
        """Return the resident memory of the process and its descendants, in KiB."""
        return sum(map(memory_kb, tree(self.process.pid)))

    def stop(self) -> None:
        """End the process and wait for it."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        if self.given_port:
            self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(_STOP_TIMEOUT)


@contextmanager
def spawn(
    command: Sequence[str],
    *,
    name: str,
    directory: Path,
    cpu: int | None,
    port: int = 0,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Child]:
    """Run a server. It starts at once; `Child.port()` waits for it. Its log is kept in `directory`.

    `cpu`: the core that it keeps to; None leaves it all of them. `port`: where it was told to listen; 0 when it says that itself,
    on its standard output. `more`: variables of its environment.
    """
    log = directory / f"{name}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            bufsize=0,  # what `select` waits for must not be in a buffer already
            stdin=subprocess.PIPE,
            stdout=stderr if port else subprocess.PIPE,
            stderr=stderr,
            cwd=directory,
            preexec_fn=_bound(cpu),
            env={**_environment(ours=command[0] == sys.executable), **more},
        )
    started = Child(process, log, port)
    try:
        yield started
    finally:
        started.stop()
        if process.stdout is not None:
            process.stdout.close()


def script(name: str, *arguments: str) -> list[str]:
    """Return the command that runs one of the scripts here."""
    return [sys.executable, str(_HERE / name), *arguments]


def _environment(*, ours: bool) -> dict[str, str]:
    """Return what a process is given; a path to our modules is nothing to the others' Python."""
    made = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return made if ours else {name: value for name, value in made.items() if name != "PYTHONPATH"}


def _bound(cpu: int | None) -> Callable[[], None]:
    """Return what a new process does first: it keeps to its core, if it has one, and asks to be killed when its parent ends."""
    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        pin(cpu)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return bind


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            for descendant in (task / "children").read_text().split():
                found += tree(int(descendant))
    return found


def _cpu_seconds(pid: int) -> float:
    """Return a process's CPU time. The clock's number is made of the process's as clock_getcpuclockid(3) does it."""
    try:
        return time.clock_gettime(~pid << 3 | _CPU_CLOCK)
    except OSError:
        return 0.0


def memory_kb(pid: int) -> float:
    """Return a process's resident memory in KiB; 0 when it is gone."""
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_KB
    except OSError:
        return 0
