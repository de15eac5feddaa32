"""Every number that bounds a wait or a size, with its name, unit and reason."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

__all__ = ["Limits", "StreamSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """Times in seconds, sizes in bytes or items. All of them bound one transaction.

    Raises `ValueError` when a value is not positive (`usage_timeout`, `drain_timeout` and `commit_after` may be 0).
    """

    start_timeout: float = 120.0
    """Wait of a request for a backend that is getting ready: importing LiteLLM takes 2 to 10 s on two cores, more on less."""
    first_chunk_timeout: float = 600.0
    """Silence of the backend before its first event. Reasoning models think for minutes first (the SDKs wait 600 s)."""
    stall_timeout: float = 120.0
    """Silence of the backend between two events while we read; a provider's ping counts as an event."""
    total_timeout: float = 3600.0
    """The whole transaction, from the call of the backend to the last byte."""
    body_timeout: float = 60.0
    """The client's request body, from its first byte to its last."""
    policy_timeout: float = 30.0
    """One policy hook's run time without `ctx.keepalive()`."""
    auth_timeout: float = 10.0
    """An authenticator of your own, until it says who asks; then the request gets a 503."""
    usage_timeout: float = 5.0
    """Wait for the usage chunk after the backend's finish reason."""
    queue_timeout: float = 60.0
    """Wait for room in a full queue before the circuit breaker opens (`QueueFullError`)."""
    send_timeout: float = 60.0
    """One `send` to the client's connection."""
    record_timeout: float = 10.0
    """Wait for the recorder: a begin, an end where there is no room, or one that is to be on the disk. Then it is an error."""
    drain_timeout: float = 25.0
    """Time that running answers get after the server was asked to stop. gunicorn and Kubernetes kill after 30 s."""
    close_timeout: float = 0.5
    """Closing the backend's connection when a transaction ends early (gunicorn gives a request 3 s after a disconnect), and what
    somebody else's code (a hook, an authenticator, a recorder) has to end once it was cancelled, before it is given up."""
    loop_block_warning: float = 0.5
    """A block of the event loop from which on the log names who blocks it. Time in which the loop stood still counts for none of
    the limits here."""
    ping_interval: float = 10.0
    """Longest silence towards the client. Load balancers cut at 60 s, Claude Code loses patience at about 15 s."""
    commit_after: float = 10.0
    """When the backend's first event takes longer, a streaming answer is begun with status 200 and pings."""
    queue_size: int = 10_000
    """Items in each of the two queues."""
    queue_bytes: int = 8 * 1024 * 1024
    """Bytes of content in each queue, and of content held for a policy's verdict."""
    answer_bytes: int = 64 * 1024 * 1024
    """Content of one whole answer: what a client that does not stream makes us keep."""
    policy_threads: int = 8
    """Threads for hooks marked `@blocking`, for all transactions together."""
    answer_blocks: int = 10_000
    """Blocks (texts, thoughts, tool calls …) of one answer under a policy: each costs more than its text."""
    hook_items: int = 100_000
    """Chunks, texts or blocks that one call of a hook may return: a generator need not have an end."""
    resamples: int = 8
    """Answers of one transaction that policies may have dropped (`Resample`, `Defer`), all policies together."""
    openai_ping: Literal["comment", "chunk", "off"] = "comment"
    """Shape of the keepalive frame for OpenAI clients: a comment line is the only one that every SDK ignores."""
    empty_notice: str = "[The answer was removed by a policy.]"
    """Text of an answer that a policy emptied: providers refuse an empty assistant message in the next turn."""
    message_mark: Literal["off", "transaction"] = "off"
    """`transaction`: what the gateway says in a policy's name ends with the transaction's id, which the model never knew."""

    def __post_init__(self) -> None:
        may_be_zero = {"usage_timeout", "drain_timeout", "commit_after"}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                msg = f"{field.name} must be a number, not {value!r}"
                raise ValueError(msg)  # noqa: TRY004 - one kind of error for whoever reads a configuration
            if not value >= 0 or (value == 0 and field.name not in may_be_zero):
                msg = f"{field.name} must be positive, not {value!r}"
                raise ValueError(msg)
        if self.openai_ping not in {"comment", "chunk", "off"}:
            msg = f"openai_ping must be comment, chunk or off, not {self.openai_ping!r}"
            raise ValueError(msg)
        if self.message_mark not in {"off", "transaction"}:
            msg = f"message_mark must be off or transaction, not {self.message_mark!r}"
            raise ValueError(msg)
        if not self.empty_notice.strip():
            msg = "empty_notice must not be blank: providers refuse blank assistant text"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may send, and in `frame_bytes` a provider.

    Exceeding one is an error in the client's format whose message names the limit: 413 for `body_bytes`, 431 for
    `header_bytes`, 429 for `streams`, `client_streams` and `unauthenticated`, 502 (or the error event) for `frame_bytes`, 400 for
    the others.
    """

    body_bytes: int = 32 * 1024 * 1024
    """Request body, counted while it arrives (32 MB is the Anthropic API's own limit)."""
    json_depth: int = 64
    """Nesting of the request body."""
    json_items: int = 200_000
    """Commas and opening brackets of the request body outside its strings, so of its values: counted before they are made. A
    million of them are 200 MB and a second of the event loop; ten thousand messages with a thousand tools are 100 000."""
    messages: int = 10_000
    """Messages of one request."""
    parts: int = 5_000
    """Content parts of all messages of one request: each costs the provider's SDK some 0.1 ms on the event loop."""
    choices: int = 128
    """`n`: the OpenAI API's own limit."""
    tools: int = 1_000
    """Tools of one request."""
    frame_bytes: int = 16 * 1024 * 1024
    """One event of the provider's stream."""
    header_bytes: int = 64 * 1024
    """Headers of a request, with 32 bytes for each more than is in it (as HTTP/2 counts them, RFC 9113, 6.5.2): h11's limit, and
    more than proxies let through. The server has held them by then, and its own limit comes before this one."""
    streams: int = 1_000
    """Transactions at the same time in one process, of clients that are known; the next gets a 429."""
    client_streams: int = 1_000
    """Transactions of one client at the same time in one process, where its key says nothing else: as many as there are for all,
    so that a gateway with one key has the use of them; the next gets a 429."""
    unauthenticated: int = 1_000
    """Requests at the same time in one process for which an authenticator is being asked, each for `auth_timeout` at most; as
    many for the operators'. The next gets a 429. Keys are looked up at once, so this is for authenticators that wait."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                msg = f"{field.name} must be a positive whole number, not {value!r}"
                raise ValueError(msg)
