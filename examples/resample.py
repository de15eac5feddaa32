r"""An answer that calls a tool with broken arguments is thrown away, and the model is asked again, with a hint.

Try it without a key; the model's first answer is broken, its second one good:

    from luthien_asgi.testing import ToolCall, chunks, run_policy_sync
    from resample import WholeArguments
    script = [chunks("First.", ToolCall("c1", "pay", '{"amount": ')), chunks("Then.", ToolCall("c2", "pay", '{"amount": 5}'))]
    run = run_policy_sync(WholeArguments(), script)
    print(run.text, run.tool_calls[0].arguments, len(run.record.samples))

You see `Then. {'amount': 5} 1`: the client gets the second answer alone, the record has what was dropped.
Use it in a configuration file beside it, `policy: {class: resample.WholeArguments}`, and then

    luthien-asgi serve --config luthien.yaml
    curl -N localhost:4000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "fast", "stream": true, "messages": [{"role": "user", "content": "Pay Ada."}], "tools": [...]}'

The trap: what has left cannot be taken back, so nothing of an answer leaves before its last block is judged, and the client gets
pings meanwhile. With `rest = True` text streams, and only the calls are taken from the new answer. What is asked again may fail
again: after `n` times the call is denied, with `message`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from luthien_asgi import Block, BlockKind, Hold, Policy, Resample, StreamContext

HINT = "Write the arguments of tool calls as complete JSON."


class WholeArguments(Policy):
    """Ask again for an answer that has a tool call whose arguments are not JSON."""

    handles: ClassVar[Mapping[BlockKind, Hold]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Resample,)

    def __init__(self, *, attempts: int = 2) -> None:
        self.attempts = attempts

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Resample | None:
        try:
            block.arguments  # noqa: B018 - it is parsed when it is asked for
        except ValueError:
            return Resample(n=self.attempts, instructions=HINT, message=f"[{block.name} could not be called.]")
        return None
