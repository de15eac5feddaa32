"""What the gateway says in a policy's name can be told from what the model says."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from luthien_asgi import Block, BlockKind, Deny, Hold, Policy, Stop, StreamContext, StreamSettings, Together
from luthien_asgi.request import WireName
from luthien_asgi.testing import ToolCall, chunks, run_policy

CLIENTS: tuple[WireName, ...] = ("openai", "anthropic", "responses")


class Judge(Policy):
    """Says the same about each block that it holds."""

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold(), BlockKind.TEXT: Hold()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Any:
        return self.verdict


class Empties(Judge):
    """Leaves nothing, without a word."""

    def __init__(self) -> None:
        super().__init__(Deny(""))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "policy",
    [Judge(Deny("No.")), Judge(Stop("No.")), Together([Judge(Deny("No."))]), Empties()],
    ids=["deny", "stop", "together", "empty"],
)
async def test_a_message_has_the_id_that_the_header_has(policy: Any, stream: bool, client: WireName) -> None:
    """Each one; the model's own words about a denial have none."""
    answer = chunks("It was denied.", ToolCall("call_1", "bash"))
    settings = StreamSettings(message_mark="transaction", empty_notice="No.")
    run = await run_policy(policy, answer, client=client, stream=stream, settings=settings)
    mark = f"\n[x-luthien-transaction: {run.headers['x-luthien-transaction']}]"
    assert "denied" not in run.text
    assert set(run.text.replace(f"No.{mark}", "|").split()) == {"|"}


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_message_is_as_the_policy_wrote_it_where_nobody_asked_for_more(client: WireName) -> None:
    """And what passes is never marked."""
    run = await run_policy(Judge(Deny("No.")), chunks("Hi"), client=client)
    assert run.text == "No."
    passed = await run_policy(Judge(None), chunks("Hi"), client=client, settings=StreamSettings(message_mark="transaction"))
    assert passed.text == "Hi"


def test_a_mark_is_one_of_two() -> None:
    """With the name of the setting."""
    with pytest.raises(ValueError, match="message_mark must be off or transaction, not 'id'"):
        StreamSettings(message_mark="id")  # type: ignore[arg-type]
