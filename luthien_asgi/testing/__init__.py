"""For tests of policies, of apps with the middleware in them, and for demonstrations.

`run_policy` tests a policy in three lines; `ScriptedProvider` is a provider on loopback that answers as told, faults included;
`ASGIDriver` is an ASGI client that streams and leaves when told to. None of it needs pytest.
"""

from luthien_asgi.testing.accumulate import Accumulated, accumulate_anthropic, accumulate_openai
from luthien_asgi.testing.accumulate_responses import accumulate_responses
from luthien_asgi.testing.backend import ScriptedBackend, ScriptedStream
from luthien_asgi.testing.chunk_builders import build_chunk, chunks, finish, role, text_chunk, thinking_chunks, tool_chunks, usage
from luthien_asgi.testing.driver import ASGIDriver, DriverResponse, Fetched
from luthien_asgi.testing.events import SSEEvent, sse_events
from luthien_asgi.testing.exchange import ProviderRequest
from luthien_asgi.testing.faults import (
    Again,
    BadChunk,
    Delay,
    Disconnect,
    Drip,
    ErrorEvent,
    Failure,
    Garbage,
    Half,
    LongLine,
    RawStream,
    Reset,
    Stall,
    Truncate,
    recording,
)
from luthien_asgi.testing.http_faults import ContentType, Gzip, HeaderBomb, Headers, Informational, Trailing, WrongLength
from luthien_asgi.testing.judges import judge_says, verdict_on
from luthien_asgi.testing.kit import PolicyRun, run_policy, run_policy_sync
from luthien_asgi.testing.parts import Answer, Redacted, Refusal, Text, Thinking, ToolCall, Usage
from luthien_asgi.testing.proof import PolicyProof, assert_policy_holds
from luthien_asgi.testing.provider import ScriptedProvider
from luthien_asgi.testing.scripts import demo_script, tool_loop_script
from luthien_asgi.testing.strict import check_history
from luthien_asgi.testing.validate import StreamValidator, check_body, check_stream, validate_body, validate_stream
from luthien_asgi.testing.violations import Violation
from luthien_asgi.testing.watching import ResponseWatch

__all__ = [
    "ASGIDriver",
    "Accumulated",
    "Again",
    "Answer",
    "BadChunk",
    "ContentType",
    "Delay",
    "Disconnect",
    "Drip",
    "DriverResponse",
    "ErrorEvent",
    "Failure",
    "Fetched",
    "Garbage",
    "Gzip",
    "Half",
    "HeaderBomb",
    "Headers",
    "Informational",
    "LongLine",
    "PolicyProof",
    "PolicyRun",
    "ProviderRequest",
    "RawStream",
    "Redacted",
    "Refusal",
    "Reset",
    "ResponseWatch",
    "SSEEvent",
    "ScriptedBackend",
    "ScriptedProvider",
    "ScriptedStream",
    "Stall",
    "StreamValidator",
    "Text",
    "Thinking",
    "ToolCall",
    "Trailing",
    "Truncate",
    "Usage",
    "Violation",
    "WrongLength",
    "accumulate_anthropic",
    "accumulate_openai",
    "accumulate_responses",
    "assert_policy_holds",
    "build_chunk",
    "check_body",
    "check_history",
    "check_stream",
    "chunks",
    "demo_script",
    "finish",
    "judge_says",
    "recording",
    "role",
    "run_policy",
    "run_policy_sync",
    "sse_events",
    "text_chunk",
    "thinking_chunks",
    "tool_chunks",
    "tool_loop_script",
    "usage",
    "validate_body",
    "validate_stream",
    "verdict_on",
]
