"""The rules of the three wires, by name: what each says, and how bad it is to break it.

What breaks an official SDK says so. What a validator calls `provider` is milder, where real providers are known to do it.
"""

from __future__ import annotations

from typing import Final

from luthien_asgi.testing.violations import Rule, rules

__all__ = [
    "ANTHROPIC_BODY_RULES",
    "ANTHROPIC_RULES",
    "OPENAI_BODY_RULES",
    "OPENAI_RULES",
    "RESPONSES_BODY_RULES",
    "RESPONSES_RULES",
]

_FRAMING: Final = (
    Rule("utf-8", "a stream is UTF-8"),
    Rule("byte-order-mark", "a stream begins without a byte order mark"),
    Rule(
        "sse-field", "a line is `event:`, `data:`, a comment, or nothing: clients ignore the rest in silence", provider="warning"
    ),
    Rule("id-or-retry", "there is no `id:` and no `retry:`: openai-python takes a lone one for an event", provider="warning"),
    Rule("no-data", "an event has data: openai-python parses the empty data of one without it as JSON"),
    Rule("blank-line", "one blank line ends an event, and there are no others", provider="warning"),
    Rule("event-too-large", "an event has at most 32 MiB here; more is not looked at"),
    Rule("unfinished-event", "the stream does not end within an event", provider="warning"),
    Rule("too-many", "the list of violations has an end", "warning", "warning"),
)
"""What is alike on every wire."""

_BODY: Final = (
    Rule("json", "the data is one JSON object, nested less than 200 levels deep"),
    Rule("field", "every field that the protocol requires is there, and has the type that it says"),
    Rule("unknown-field", "a field that the protocol does not know", "warning", "warning"),
    Rule("unknown-value", "a reason, status or tier that the protocol does not know", "warning", "warning"),
    Rule("too-many", "the list of violations has an end", "warning", "warning"),
)
"""What is alike in every body and every event."""
_TYPES: Final = Rule("unknown-type", "an event, block, delta, item or call of a type that is not known", "warning", "warning")
_STREAM: Final = (
    *_FRAMING,
    *_BODY,
    Rule("after-end", "nothing follows the end of the answer: neither after its last event nor after an error"),
    Rule("not-ended", "a stream ends with its last event or with an error event"),
)
"""What is alike on every wire's streams."""

_OPENAI_SHARED: Final = (
    Rule("tool-finish", "the finish reason is `tool_calls` only where a tool call was sent"),
    Rule("tool-id", "every tool call has an id of its own"),
    Rule("tool-json", "a tool call's arguments are a JSON object; models may break it, and clients fail", "warning", "warning"),
    Rule("usage-total", "total_tokens is the sum of the other two", "warning", "warning"),
    Rule("own-field", "no field of a gateway's own: thinking_blocks, provider_specific_fields", provider="warning"),
)
OPENAI_RULES: Final = rules(
    *_STREAM,
    *_OPENAI_SHARED,
    Rule("event-name", "this wire has no `event:` lines", provider="warning"),
    Rule("done", "`[DONE]` ends a stream that has no error; some clients wait for it", provider="warning"),
    Rule(
        "object", "every chunk is a `chat.completion.chunk`: openai-python leaves a first one without it out", provider="warning"
    ),
    Rule("identity", "id, model and created are one for the whole stream", provider="warning"),
    Rule("no-choice", "a chunk without a choice has the usage (Azure sends filter results so)", provider="warning"),
    Rule("choice-order", "choices begin in their order, from 0: openai-python raises IndexError", provider="warning"),
    Rule("role-missing", "the first delta of a choice has the role", provider="warning"),
    Rule("role-repeated", "no other delta has it: openai-python adds up `assistantassistant`", provider="warning"),
    Rule("after-finish", "nothing of a choice follows its finish reason", provider="warning"),
    Rule("finish-repeated", "a choice has one finish reason", provider="warning"),
    Rule("finish-null", "finish_reason is there in every choice, null until the last", provider="warning"),
    Rule("finish-missing", "every choice has a finish reason before the end: openai-node raises"),
    Rule("tool-index", "tool calls are numbered 0, 1, 2 … as they begin: SDKs raise IndexError or lose the call"),
    Rule("tool-open", "a call's first fragment has id, type, name and arguments (`input` for custom ones)"),
    Rule(
        "tool-continued",
        "later fragments have index and arguments only: openai-python adds ids, names, types up",
        provider="warning",
    ),
    Rule("list-delta", "a list in a delta comes once: openai-python cannot add up entries without an index", provider="warning"),
    Rule("usage-null", "earlier chunks have `usage: null` if and only if usage was asked for", provider="warning"),
    Rule("usage-choices", "the usage chunk has `choices: []`: other clients count it twice", provider="warning"),
    Rule("usage-repeated", "usage comes once", provider="warning"),
    Rule("usage-last", "no chunk follows the usage: openai-python forgets the usage then", provider="warning"),
    Rule("usage-missing", "usage that was asked for comes, where the provider said any", "warning", "warning"),
    Rule("error-after-finish", "an answer has its finish or an error, never both", provider="warning"),
)
OPENAI_BODY_RULES: Final = rules(
    *_BODY,
    _TYPES,
    *_OPENAI_SHARED,
    Rule("choice-order", "choices are numbered 0, 1, 2 …"),
    Rule("no-choice", "a completion has a choice"),
)

_ANTHROPIC_SHARED: Final = (
    Rule(
        "after-tool",
        "only tool_use follows tool_use (server tools are exempt): the API refuses the next turn",
        provider="warning",
    ),
    Rule(
        "tool-stop",
        "stop_reason is tool_use if a tool call survived, and only then; max_tokens and the like stand",
        provider="warning",
    ),
    Rule("tool-id", "every tool call has an id of its own"),
    Rule("empty-text", "no text block is empty: the API refuses it in the next turn", provider="warning"),
    Rule("unsigned", "thinking is signed: the API refuses it in the next turn otherwise", "warning", "warning"),
    Rule("stop-sequence", "stop_sequence says which, if and only if stop_reason is stop_sequence", provider="warning"),
)
ANTHROPIC_RULES: Final = rules(
    *_STREAM,
    _TYPES,
    *_ANTHROPIC_SHARED,
    Rule("tool-json", "a call's input is a JSON object when its block stops: both SDKs raise, unless it was cut off"),
    Rule("event-name", "`event:` is the data's type: SDKs skip an event without its name"),
    Rule("message-first", "message_start comes before everything but a ping or an error: SDKs raise"),
    Rule("message-twice", "there is one message_start: the TypeScript SDK raises at two", provider="warning"),
    Rule("message-fresh", "message_start has no content and no stop reason yet", provider="warning"),
    Rule("block-index", "blocks are numbered 0, 1, 2 …: SDKs raise IndexError or drop the text"),
    Rule("block-overlap", "a block starts when the one before it has stopped"),
    Rule("block-not-open", "a delta or a stop is for the block that is open: SDKs raise"),
    Rule(
        "block-unstopped", "every block has stopped before message_delta (cut off calls have not, at the API)", provider="warning"
    ),
    Rule("block-fresh", 'a block starts empty: text, thinking and signature are "", input is {}', provider="warning"),
    Rule("delta-fits", "a delta's type fits its block's type"),
    Rule("signature", "a signature comes once, and ends its thinking: anthropic-python replaces an earlier one"),
    Rule("message-delta", "one message_delta comes, before message_stop", provider="warning"),
    Rule("after-message-delta", "nothing but message_stop follows message_delta"),
    Rule("stop-reason", "message_delta says the stop reason"),
    Rule("usage-zero", "message_start counts the input, if only as an estimate: clients show it", provider="warning"),
    Rule("usage-missing", "message_delta has usage: both SDKs raise"),
)
ANTHROPIC_BODY_RULES: Final = rules(
    *_BODY,
    _TYPES,
    *_ANTHROPIC_SHARED,
    Rule("stop-reason", "a message says its stop reason"),
)

_RESPONSES_SHARED: Final = (
    Rule("call-id", "every call has a call_id of its own"),
    Rule(
        "tool-json", "a function call's arguments are a JSON object; models may break it, and clients fail", "warning", "warning"
    ),
    Rule("status", "the response's status is that of its event"),
    Rule("usage-missing", "a completed response has usage", provider="warning"),
    Rule("usage-total", "total_tokens is the sum of the other two", "warning", "warning"),
)
RESPONSES_RULES: Final = rules(
    *_STREAM,
    _TYPES,
    *_RESPONSES_SHARED,
    Rule("event-name", "`event:` is the data's type"),
    Rule("created-first", "response.created comes first: openai-python raises"),
    Rule("created-twice", "there is one response.created"),
    Rule("sequence", "sequence_number is 0, 1, 2 …", provider="warning"),
    Rule("identity", "the response's id, model and created_at are one for the whole stream", provider="warning"),
    Rule("item-index", "items are numbered 0, 1, 2 … as they are added: openai-python raises"),
    Rule("item-not-open", "an event is for an item that was added and is not done, by index and id"),
    Rule("item-changed", "a done item has the type, id, call_id and name with which it was added"),
    Rule("part-index", "parts of an item are numbered 0, 1, 2 … as they are added: openai-python raises"),
    Rule("part-not-open", "an event is for a part that was added and is not done: openai-python raises"),
    Rule("delta-fits", "an event fits the type of its item or part"),
    Rule("text-done", "the done text is that of the deltas"),
    Rule("part-done", "the done part has the text of its deltas"),
    Rule("item-done", "the done item has the texts of its deltas, and all its parts are done"),
    Rule("item-unfinished", "every item is done before the response is completed"),
    Rule("output", "the last response repeats the done items: clients take them from there", provider="warning"),
)
RESPONSES_BODY_RULES: Final = rules(*_BODY, _TYPES, *_RESPONSES_SHARED)
