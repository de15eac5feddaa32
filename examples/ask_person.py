r"""A person decides about payments: the call waits, the client gets pings, and an operator answers from another terminal.

Use it in a configuration file beside it, and start the gateway where both are:

    policy: {class: ask_person.AskAboutPayments}
    approvals: {keys: {alice: os.environ/LUTHIEN_OPERATOR_KEY}, notify: ask_person.small_ones}

    luthien-asgi serve --config luthien.yaml
    curl -N localhost:4000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "fast", "stream": true, "messages": [{"role": "user", "content": "Pay Ada 500."}], "tools": [...]}'

You see pings. What waits, and the answer to it, in the other terminal:

    curl localhost:4000/luthien/approvals -H "authorization: Bearer $LUTHIEN_OPERATOR_KEY"
    curl localhost:4000/luthien/approvals/$ID -H "authorization: Bearer $LUTHIEN_OPERATOR_KEY" \
      -H 'content-type: application/json' -d '{"decision": "allow"}'

Then the client gets the call, or a message in its place. A payment of up to 50 is allowed at once, by the callback;
what nobody answers within two minutes is denied.

The trap: the call was written by a model that may want to persuade. Ask a question of your own, which it has no part in, and
give operators keys that no client has. Whatever the callback cannot read is for a person: None is no opinion.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from luthien_asgi import Approval, Block, BlockKind, Escalate, Hold, Policy, StreamContext


class AskAboutPayments(Policy):
    """Let a person decide about calls of the tool `pay`."""

    handles: ClassVar[Mapping[BlockKind, Hold]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Escalate,)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Escalate | None:
        return Escalate(f"Pay this for {ctx.client}?", timeout=120, default="deny") if block.name == "pay" else None


async def small_ones(approval: Approval) -> bool | None:
    """Allow payments of up to 50; leave the others to a person."""
    try:
        amount = json.loads(approval.content)["amount"]
    except (ValueError, LookupError, TypeError):
        return None
    return True if type(amount) is int and 0 < amount <= 50 else None
