r"""A policy of your own: keys that the model writes into its text are masked, and counted in the record.

Try it in three lines, without a server or a provider:

    from luthien_asgi.testing import chunks, run_policy_sync
    from own_policy import MaskKeys
    print(run_policy_sync(MaskKeys(), chunks("your key is sk-", "abcdefgh12345678")).text)

Use it in a configuration file beside it, `policy: {class: own_policy.MaskKeys}`, and then

    luthien-asgi serve --config luthien.yaml
    curl -N localhost:4000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "fast", "stream": true, "messages": [{"role": "user", "content": "Make up an API key."}]}'

The trap: a key may be cut in two by any chunk, so a pattern cannot be searched in a chunk. `Hold` keeps the block back until it
is whole: safe and simple, but the text no longer streams. `ReplaceText` shows how to keep back only what is needed. The other
trap: one policy object serves all requests at once. What belongs to one of them goes into `ctx.scratchpad` or `ctx.state(...)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from luthien_asgi import Block, BlockKind, Hold, Policy, Replace, StreamContext


class MaskKeys(Policy):
    """Write `[key]` in place of what looks like an API key."""

    handles: ClassVar[Mapping[BlockKind, Hold]] = {BlockKind.TEXT: Hold(), BlockKind.REFUSAL: Hold()}

    def __init__(self, *, pattern: str = r"\bsk-[\w-]{16,}") -> None:
        self.pattern = re.compile(pattern)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Replace | None:
        masked, count = self.pattern.subn("[key]", block.text)
        if not count:
            return None
        ctx.scratchpad["masked"] = ctx.scratchpad.get("masked", 0) + count
        return Replace([block.with_text(masked)], reason=f"{count} masked, {ctx.scratchpad['masked']} in this answer")
