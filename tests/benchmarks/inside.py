"""The bars of policies that need no server: what one adds to a chunk in the executor, and what a held block weighs.

Strategy: 3 % of a delta is a microsecond, which a server's CPU time does not show. So the executor is measured alone, in a
process of its own, the policies taking turns, and what one adds is set against the cost of a delta in the server, from the burst
of the same run. A held block is weighed by tracemalloc when its policy is asked: counted is the most that there was until then of
all that the answer made, its text for the policy included.

Run as `python inside.py ROUNDS BYTES`: the numbers as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Final

from policies import POLICIES
from results import Verdict, spread
from rich.table import Table

__all__ = ["measure"]

_LAYERS: Final = ("none", "hookless", "tools", "replace")
_BARS: Final = {"tools": 1.03, "hookless": 1.01}
"""No measurable cost is less than one in a hundred."""
_CHUNKS: Final = 10_000
_TOKEN: Final = 4
_HELD_BAR: Final = 3.0
_LIMIT: Final = 600.0
_HUGE: Final = 1 << 40


def measure(delta_cost: float, *, rounds: int, held: int) -> tuple[list[Table], list[Verdict]]:
    """Return the tables and the verdicts. `delta_cost`: the CPU microseconds of a delta that comes alone, without a policy.

    `held`: the bytes of a held block.
    """
    command = [sys.executable, __file__, str(rounds), str(held)]
    run = subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT, cwd=Path(__file__).parent)
    found = json.loads(run.stdout)
    return _told(found["costs"], found["weights"], delta_cost)


def _told(costs: Mapping[str, list[float]], weights: Mapping[str, float], delta_cost: float) -> tuple[list[Table], list[Verdict]]:
    added = {
        name: [mine - base for mine, base in zip(costs[name], costs["none"], strict=True)] for name in _LAYERS if name != "none"
    }
    title = f"In the executor alone: {_CHUNKS} chunks of text; a delta in the server costs {delta_cost:.1f} µs"
    table = Table("policy", "CPU µs a chunk (min, max)", "over none", "added / server's delta", title=title)
    for name in _LAYERS:
        extra = added.get(name, [0.0])
        table.add_row(name, spread(costs[name], digits=2), spread(extra, digits=2), f"{1 + median(extra) / delta_cost:.3f}")
    verdicts = [
        Verdict(f"inside: {name} over no policy, a delta, at most {bar}", f"{ratio:.3f}", ratio <= bar)
        for name, bar in _BARS.items()
        for ratio in [1 + median(added[name]) / delta_cost]
    ]
    held = Table("held block", "its bytes times", title="Memory of a held block when its policy is asked")
    for name, weight in weights.items():
        held.add_row(name, f"{weight:.2f}")
        verdicts.append(Verdict(f"held: {name}, at most {_HELD_BAR:.0f} times its bytes", f"{weight:.2f}", weight <= _HELD_BAR))
    return [table, held], verdicts


# --- in the process of its own -----------------------------------------------------------------------------------------------


class _Stream:
    """A backend's stream, and the opening of it: its chunks are made when they are asked for."""

    wire = decoder = "openai"
    headers: Mapping[str, str] = {}
    sent: Mapping[str, Any] = {}
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, chunks: Iterable[Any]) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Any:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    def take_ready(self) -> Any:
        return next(self._chunks, None)

    async def stream(self) -> _Stream:
        return self

    async def aclose(self) -> None:
        pass


def _chunk(delta: Mapping[str, Any], finish: str | None = None) -> Any:
    from luthien_asgi.backend.chunks import build

    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return build({"id": "x", "created": 1, "model": "m", "choices": [choice]})


async def _process(policy: Any, chunks: Iterable[Any]) -> float:
    """Let an answer through; return the CPU seconds. Raises `RuntimeError` for one that failed."""
    from luthien_asgi.backend.chunks import build
    from luthien_asgi.context import NullObservability, PolicyContext
    from luthien_asgi.executor import PolicyExecutor
    from luthien_asgi.hooks import HookCaller
    from luthien_asgi.pipeline import Pipeline
    from luthien_asgi.queues import End, StreamQueue
    from luthien_asgi.recorder import Begin, Transaction
    from luthien_asgi.request import ChatRequest
    from luthien_asgi.settings import StreamSettings

    request = ChatRequest(wire="openai", body={"model": "m", "messages": []})
    log = Transaction(Begin(id="t", at=0, wire="openai", path="/", model="m", stream=True, client="", request={}))
    settings = StreamSettings(queue_size=_HUGE, queue_bytes=_HUGE, answer_bytes=_HUGE)
    hooks = HookCaller(timeout=60, threads=1)
    pipeline = Pipeline.of(policy)
    executor = PolicyExecutor(pipeline=pipeline, hooks=hooks, make_chunk=build, settings=settings, wants_blocks=False)
    out: StreamQueue[Any] = StreamQueue(max_items=_HUGE, max_bytes=_HUGE, timeout=1)
    context = PolicyContext(transaction_id="t", request=request)
    began = time.process_time()
    await executor.process(_Stream(chunks), out, client="openai", ctx=context, obs=NullObservability(), log=log)
    spent = time.process_time() - began
    terminal = (await out.get_ready())[-1]
    if terminal != End():
        raise RuntimeError(repr(terminal))
    return spent


async def _costs(rounds: int) -> dict[str, list[float]]:
    words = [_chunk({"content": f"word{number % 97} "}) for number in range(_CHUNKS)]
    answer = [_chunk({"role": "assistant"}), *words, _chunk({}, "stop")]
    policies = {name: POLICIES[name]() if name in POLICIES else None for name in _LAYERS}
    found: dict[str, list[float]] = {name: [] for name in _LAYERS}
    gc.freeze()
    for number in range(rounds + 1):
        for name in _LAYERS if number % 2 == 0 else reversed(_LAYERS):
            cost = await _process(policies[name], answer) * 1e6 / _CHUNKS
            if number:  # the first round warms up
                found[name].append(cost)
    return found


def _weigher(weights: list[float]) -> Any:
    from luthien_asgi import BlockKind, Deny, Hold, Policy

    class Weigher(Policy):
        """Says what memory is in use for each byte of a block that is held."""

        handles: ClassVar = {BlockKind.TOOL_CALL: Hold(), BlockKind.TEXT: Hold()}
        verdicts = (Deny,)

        def on_block_complete(self, block: Any, ctx: Any) -> Any:
            weights.append(tracemalloc.get_traced_memory()[1] / len(block.text))
            return Deny("no")

    return Weigher()


def _call(text: str) -> Any:
    return _chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})


def _answer(make: Callable[[str], Any], *, held: int, size: int) -> Iterator[Any]:
    yield _chunk({"role": "assistant"})
    if make is _call:
        yield _chunk({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]})
    for number in range(held // size):
        yield make(f"{number % 10_000:04}" * (size // 4))
    yield _chunk({}, "stop")


async def _weights(held: int) -> dict[str, float]:
    found = {}
    forms = {"a tool call": _call, "a text": lambda text: _chunk({"content": text})}
    for name, make in forms.items():
        for size, cut in ((_TOKEN, "a token each"), (16_384, "16 KiB each")):
            weights: list[float] = []
            gc.collect()
            tracemalloc.start()
            await _process(_weigher(weights), _answer(make, held=held, size=size))
            tracemalloc.stop()
            found[f"{name} in fragments of {cut}"] = weights[0]
    return found


if __name__ == "__main__":
    _chunk({})  # imports LiteLLM
    asked_rounds, asked_bytes = map(int, sys.argv[1:])
    sys.stdout.write(json.dumps({"costs": asyncio.run(_costs(asked_rounds)), "weights": asyncio.run(_weights(asked_bytes))}))
