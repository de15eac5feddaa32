"""Fuzz a parser with coverage as the guide (atheris), and keep the inputs that reach something new.

    python tests/fuzz/coverage_guided.py --target NAME --seconds 600 --corpus DIR
    python tests/fuzz/coverage_guided.py --all --seconds 60 --corpus DIR [--log FILE]
    python tests/fuzz/coverage_guided.py --list
    python tests/fuzz/coverage_guided.py --target NAME --replay FILE
    python tests/fuzz/coverage_guided.py --target NAME --minimise FILE

Each target has a folder of its own in DIR, which grows; the committed corpus and the recorded streams are what it begins with. An
exception, a broken promise, or a cost beyond the input's length is kept in DIR/NAME-found, one input a kind, and the run goes on;
a hang and what kills the process end it. In the end what was found is made smaller and shown, and the exit status is 1.

Atheris has wheels for some versions of Python only; where there is none a run says so and ends with status 0. `--replay` needs
none.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from guided_shapes import repeated

_HANG: Final = 60
"""Seconds that one input may take before it is killed and called a hang."""
_MEGABYTES: Final = 2048
_REPEATED: Final = 0.05
"""Of the variations by shape, those that are a piece many times."""
_WAYS: Final = {"shape": 0.65, "bytes": 0.35}
"""Shares of a run: our variations, which keep an input's structure, and libFuzzer's own with the dictionary."""


def main() -> int:
    """Run, and return the exit status."""
    asked = _arguments()
    if asked.replay or asked.minimise or asked.list:
        return _without_a_guide(asked)
    if importlib.util.find_spec("atheris") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        print(f"skipped: atheris is not installed, and may have no wheel for Python {version} on {sys.platform}")
        return 0
    if asked.all:
        return max([_in_a_process(asked, name) for name in _names()])
    if asked.way:
        _fuzz(asked)
    return _guided(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="the target to fuzz")
    parser.add_argument("--all", action="store_true", help="every target, one after the other, each in a process of its own")
    parser.add_argument("--list", action="store_true", help="show the names of the targets")
    parser.add_argument("--seconds", type=int, default=60, help="how long, each target")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 for another one each time")
    parser.add_argument(
        "--corpus", type=Path, default=Path("fuzz-corpus"), help="folder of what was found to reach something new"
    )
    parser.add_argument("--log", type=Path, help="file that gets a line for each run: when, target, seconds, CPU seconds, result")
    parser.add_argument("--replay", type=Path, help="try one input")
    parser.add_argument("--minimise", type=Path, help="make an input that fails smaller, in place")
    parser.add_argument("--way", choices=list(_WAYS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.list and not asked.all and not asked.target:
        parser.error("one of --target, --all and --list is needed")
    return asked


def _names() -> list[str]:
    from guided_targets import TARGETS

    return list(TARGETS)


def _in_a_process(asked: argparse.Namespace, name: str) -> int:
    command = [sys.executable, __file__, "--target", name, "--seconds", str(asked.seconds), "--seed", str(asked.seed)]
    command += ["--corpus", str(asked.corpus), *(["--log", str(asked.log)] if asked.log else [])]
    return subprocess.run(command, check=False).returncode


# --- with a guide ----------------------------------------------------------------------------------------------------------


def _guided(asked: argparse.Namespace) -> int:
    """Fuzz one target in processes of their own, which libFuzzer ends when it finds something, and report what was found."""
    grown, found = asked.corpus / asked.target, asked.corpus / f"{asked.target}-found"
    for folder in (grown, found):
        folder.mkdir(parents=True, exist_ok=True)
    start, begun, status = time.time(), time.monotonic(), 0
    for way, share in _WAYS.items():
        seconds = max(1, round(asked.seconds * share))
        command = [sys.executable, __file__, "--target", asked.target, "--seconds", str(seconds), "--seed", str(asked.seed)]
        status = subprocess.run([*command, "--corpus", str(asked.corpus), "--way", way], check=False).returncode
        if status:
            break
    new = sorted(path for path in found.iterdir() if path.stat().st_mtime >= start)
    result = f"found {len(new)}" if new else "clean" if status == 0 else f"status {status}"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {asked.target} {time.monotonic() - begun:.0f} s, {cpu:.0f} s CPU, {result}"
    print(line)
    if asked.log:
        with asked.log.open("a") as log:
            log.write(line + "\n")
    for path in new:
        _minimise(asked.target, path)
    return 1 if new or status else 0


def _fuzz(asked: argparse.Namespace) -> None:
    """Fuzz one target in one way; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["luthien_asgi"]):
        from guided_targets import CORPUS, TARGETS
    target, folder = TARGETS[asked.target], asked.corpus
    seeds, dictionary = folder / f"{target.name}-seeds", folder / f"{target.name}.dict"
    seeds.mkdir(exist_ok=True)
    for seed in target.seeds():
        (seeds / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in dict.fromkeys(target.words)))
    options = {
        "max_total_time": asked.seconds, "seed": asked.seed, "timeout": _HANG, "rss_limit_mb": _MEGABYTES,
        "max_len": target.longest, "artifact_prefix": f"{folder}/{target.name}-found/", "dict": dictionary,
    }  # fmt: skip
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items())]
    folders = [str(folder / target.name), str(seeds), str(CORPUS / target.name)]
    shaped = {"custom_mutator": _mutator(target)} if asked.way == "shape" else {}
    atheris.Setup([*arguments, *folders], _keeping(target.name, folder / f"{target.name}-found"), **shaped)
    atheris.Fuzz()


def _keeping(name: str, found: Path) -> Callable[[bytes], None]:
    """Return what tries an input, and keeps the first one of each kind that fails."""
    kinds: set[str] = set()

    def tried(data: bytes) -> None:
        if (failure := _failure(name, data)) and (kind := _kind(failure)) not in kinds:
            kinds.add(kind)
            (found / hashlib.sha256(kind.encode()).hexdigest()[:12]).write_bytes(data)

    return tried


def _mutator(target: Any) -> Any:
    """Return a mutator that keeps the structure most of the time, and makes some inputs long."""

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        made = repeated(data, random, longest) if random.random() < _REPEATED else target.vary(data, random)
        return bytes(made[:longest])

    return mutated


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" if byte < 32 or byte > 126 or byte in b'"\\' else chr(byte) for byte in word)


# --- without one -----------------------------------------------------------------------------------------------------------


def _without_a_guide(asked: argparse.Namespace) -> int:
    if asked.list:
        print("\n".join(_names()))
        return 0
    if asked.minimise:
        _minimise(asked.target, asked.minimise)
        return 0
    failure = _failure(asked.target, asked.replay.read_bytes())
    print(failure or "it passes")
    return 1 if failure else 0


def _failure(name: str, data: bytes) -> str:
    """Return what is wrong with an input, its traceback first, or nothing."""
    from guided_target import attempt
    from guided_targets import TARGETS

    try:
        attempt(TARGETS[name], data)
    except Exception:
        return traceback.format_exc()
    return ""


def _kind(failure: str) -> str:
    """Return what stays the same of a failure when its input gets smaller: the place, and the first words."""
    lines = failure.strip().splitlines()
    place = [line.strip() for line in lines if line.strip().startswith("File ")][-1:]
    return " ".join([*place, lines[-1][:40] if lines else ""])


def _minimise(name: str, path: Path) -> None:
    data = path.read_bytes()
    failure = _failure(name, data)
    if not failure:
        print(f"{path} passes outside of a run: it may need the run's memory or time")
        return
    kind, step = _kind(failure), max(1, len(data) // 2)
    while step:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + step :]
            if _kind(_failure(name, shorter)) == kind:
                data = shorter
            else:
                at += step
        step //= 2
    path.write_bytes(data)
    print(f"{path}: {len(data)} bytes: {data!r:.500}\n{_failure(name, data)}")


if __name__ == "__main__":
    sys.exit(main())
