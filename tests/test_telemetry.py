"""Telemetry, seen through the OpenTelemetry SDK's own exporters."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from anyio.lowlevel import checkpoint
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import NullObservability, ObservabilityContext
from luthien_asgi.errors import ApiError, BackendError
from luthien_asgi.recorder import Begin, Transaction, VerdictRecord
from luthien_asgi.telemetry import (
    NullTelemetry,
    OpenTelemetry,
    backend_attributes,
    default_telemetry,
    open_telemetry,
    report_end,
    usage_attributes,
)

SECRET = "sk-ant-api03-Zx81QpLm42vbNNtr"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
CALL = backend_attributes(provider="anthropic", model="claude", stream=True)


class Bench(NamedTuple):
    telemetry: OpenTelemetry
    tracer: trace.Tracer
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def begin(self, **extra: Any) -> ObservabilityContext:
        return self.telemetry.begin(transaction_id="t1", **extra)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        data = self.reader.get_metrics_data()
        metrics = [m for r in (data.resource_metrics if data else []) for s in r.scope_metrics for m in s.metrics]
        return [(dict(point.attributes or {}), point) for m in metrics if m.name == name for point in m.data.data_points]


@pytest.fixture
def bench() -> Iterator[Bench]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider(metric_readers=[reader])
    yield Bench(open_telemetry(tracer_provider=tracers, meter_provider=meters), tracers.get_tracer("host"), exporter, reader)
    meters.shutdown()
    tracers.shutdown()


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def everything(bench: Bench) -> str:
    data = bench.reader.get_metrics_data()
    return "".join(span.to_json() for span in bench.exporter.get_finished_spans()) + (data.to_json() if data else "")


# --- spans


def test_a_transaction_is_one_internal_span_with_its_id_and_ending(bench: Bench) -> None:
    """INTERNAL, because the HTTP server span is the host's; nothing is exported before the end."""
    obs = bench.begin(attributes={"gen_ai.request.model": "claude", "luthien.stream": True})
    obs.set("luthien.decoder", "anthropic")
    assert bench.spans() == {}
    obs.end("completed")
    span = bench.spans()["luthien.transaction"]
    assert (span.kind, span.parent, span.status.status_code) == (SpanKind.INTERNAL, None, StatusCode.UNSET)
    assert dict(attributes_of(span)) == {
        "luthien.transaction.id": "t1",
        "gen_ai.request.model": "claude",
        "luthien.stream": True,
        "luthien.decoder": "anthropic",
        "luthien.ending": "completed",
    }


def test_children_belong_to_the_transaction(bench: Bench) -> None:
    """Policy request and streaming are INTERNAL; the backend call is CLIENT, because it names its operation."""
    obs = bench.begin()
    with obs.span("luthien.policy.request"), obs.span("chat claude", CALL), obs.span("luthien.stream"):
        pass
    obs.end("completed")
    spans = bench.spans()
    parent = spans["luthien.transaction"].context
    assert parent is not None
    kinds = {"luthien.policy.request": SpanKind.INTERNAL, "chat claude": SpanKind.CLIENT, "luthien.stream": SpanKind.INTERNAL}
    for name, kind in kinds.items():
        assert spans[name].kind is kind, name
        assert spans[name].parent is not None, name
        assert spans[name].parent.span_id == parent.span_id, name  # type: ignore[union-attr]
    assert attributes_of(spans["chat claude"])["gen_ai.provider.name"] == "anthropic"


async def test_spans_of_concurrent_tasks_and_transactions_do_not_mix(bench: Bench) -> None:
    """Each child is its own transaction's, although tasks interleave and close in another task's lifetime."""
    gate = asyncio.Event()

    async def stream(obs: ObservabilityContext, name: str) -> None:
        with obs.span(name):
            await gate.wait()
            with obs.span(f"{name}.inner"):
                await checkpoint()

    one, two = bench.begin(name="one"), bench.begin(name="two")
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for obs, name in ((one, "a"), (two, "b"), (one, "c")):
            tasks.create_task(stream(obs, name))
        await checkpoint()
        gate.set()
    assert not trace.get_current_span().get_span_context().is_valid
    one.end("completed")
    two.end("completed")
    spans = bench.spans()
    for child, parent in {"a": "one", "a.inner": "one", "b": "two", "b.inner": "two", "c": "one", "c.inner": "one"}.items():
        assert spans[child].parent.span_id == spans[parent].context.span_id, child  # type: ignore[union-attr]


def test_no_span_becomes_the_current_one(bench: Bench) -> None:
    """Nothing is attached to the context of whoever runs: the host's active span stays the active one."""
    with bench.tracer.start_as_current_span("host") as host:
        obs = bench.begin()
        with obs.span("luthien.stream"):
            assert trace.get_current_span() is host
        obs.end("completed")
        assert trace.get_current_span() is host


@pytest.mark.parametrize("name", ["traceparent", "Traceparent"])
def test_a_requests_traceparent_is_the_parent_when_the_host_has_no_span(bench: Bench, name: str) -> None:
    """W3C trace context; nothing else of the headers is kept."""
    bench.begin(headers={name: TRACEPARENT, "authorization": f"Bearer {SECRET}", "baggage": "user=alice"}).end("completed")
    span = bench.spans()["luthien.transaction"]
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, "00f067aa0ba902b7")
    assert span.parent.is_remote
    assert SECRET not in everything(bench)
    assert "alice" not in everything(bench)


def test_the_hosts_span_wins_over_the_header(bench: Bench) -> None:
    """The host's instrumentation has read the header already."""
    with bench.tracer.start_as_current_span("host") as host:
        bench.begin(headers={"traceparent": TRACEPARENT}).end("completed")
    assert bench.spans()["luthien.transaction"].parent == host.get_span_context()


@pytest.mark.parametrize(
    "value", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-" + TRACE_ID + "-00f067aa0ba902b7-01"]
)
def test_a_malformed_traceparent_starts_a_new_trace(bench: Bench, value: str) -> None:
    """It is no error."""
    bench.begin(headers={"traceparent": value}).end("completed")
    assert bench.spans()["luthien.transaction"].parent is None


def test_an_exception_leaves_its_type_and_not_its_words(bench: Bench) -> None:
    """An API error's type, another exception's class; the exception passes."""
    obs = bench.begin()
    with pytest.raises(BackendError), obs.span("chat claude", CALL):
        raise BackendError(f"your key {SECRET}", status=529)
    with pytest.raises(KeyError), obs.span("luthien.stream"):
        raise KeyError(SECRET)
    obs.end("failed", error="overloaded_error")
    spans = bench.spans()
    assert attributes_of(spans["chat claude"])["error.type"] == "overloaded_error"
    assert attributes_of(spans["luthien.stream"])["error.type"] == "KeyError"
    assert attributes_of(spans["luthien.transaction"])["error.type"] == "overloaded_error"
    assert {span.status.status_code for span in spans.values()} == {StatusCode.ERROR}
    assert all(not span.events and not span.status.description for span in spans.values())
    assert SECRET not in everything(bench)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_a_cancelled_span_is_ended_and_is_no_error(bench: Bench, error: type[BaseException]) -> None:
    """A client that leaves is nobody's failure."""
    obs = bench.begin()
    with pytest.raises(error), obs.span("chat claude", CALL):
        raise error
    obs.end("client_disconnected")
    for span in bench.spans().values():
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in attributes_of(span)
    assert attributes_of(bench.spans()["chat claude"])["luthien.cancelled"] is True


def test_a_second_end_changes_nothing(bench: Bench) -> None:
    """One transaction, one termination."""
    obs = bench.begin()
    obs.end("failed", error="api_error")
    obs.end("completed")
    assert len(bench.exporter.get_finished_spans()) == 1
    assert [(attributes, point.value) for attributes, point in bench.points("luthien.stream.terminations")] == [
        ({"reason": "failed", "error.type": "api_error"}, 1)
    ]


@pytest.mark.parametrize(
    "name",
    [
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "gen_ai.tool.definitions",
        "luthien.policy.reason",
        "error.message",
        "gen_ai.tool.call.arguments",
        "http.request.body",
        "content",
        "api_key",
    ],
)
def test_attributes_that_carry_content_are_dropped(bench: Bench, name: str) -> None:
    """Wherever they are given."""
    obs = bench.begin(attributes={name: "canary"})
    obs.set(name, "canary")
    obs.event("e", {name: "canary"})
    with obs.span("s", {name: "canary"}):
        pass
    obs.end("completed")
    assert "canary" not in everything(bench)


def test_values_are_scrubbed_cut_and_flat(bench: Bench) -> None:
    """A key in a model's name is masked, a long text is cut, and an object is no attribute."""
    obs = bench.begin(
        attributes={"gen_ai.request.model": SECRET, "a": "x" * 1000, "b": {"c": "canary"}, "d": None, "e": b"canary"}
    )
    obs.set("gen_ai.response.finish_reasons", ["stop", {"f": "canary"}])  # type: ignore[arg-type]
    obs.end("completed")
    attributes = attributes_of(bench.spans()["luthien.transaction"])
    assert attributes["gen_ai.request.model"] == "[redacted]"
    assert attributes["a"] == "x" * 256
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert not {"b", "d", "e"} & set(attributes)


def test_names_are_scrubbed_too(bench: Bench) -> None:
    """Of spans, events and attributes: a policy may call them after what it saw; and the type of an error."""
    obs = bench.begin(attributes={f"a.{SECRET}": 1})
    obs.set(f"b.{SECRET}", 1)
    obs.event(SECRET, {f"c.{SECRET}": 1})
    with obs.span(f"chat {SECRET}", {f"d.{SECRET}": 1}) as span:
        span.set(f"e.{SECRET}", 1)
    with pytest.raises(ApiError), obs.span("judge"):
        raise ApiError("no", type=SECRET)
    obs.end("failed", error=SECRET)
    assert "Zx81QpLm42vbNNtr" not in everything(bench)
    assert "chat [redacted]" in bench.spans()


# --- metrics


def test_the_backend_call_has_a_duration(bench: Bench) -> None:
    """In seconds, with the conventions' buckets and dimensions; an error's type is one of them."""
    obs = bench.begin()
    with obs.span("luthien.policy.request"):
        pass
    with obs.span("chat claude", CALL):
        obs.set("gen_ai.response.model", "claude-1")
    obs.end("completed")
    ((attributes, point),) = bench.points("gen_ai.client.operation.duration")
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude",
        "gen_ai.response.model": "claude-1",
    }
    assert point.count == 1
    assert 0 <= point.sum < 5
    assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (0.01, 81.92)
    assert attributes_of(bench.spans()["chat claude"])["gen_ai.response.model"] == "claude-1"


def test_a_failed_call_counts_its_errors_type(bench: Bench) -> None:
    """On the call's duration and on the request's."""
    obs = bench.begin()
    with pytest.raises(BackendError), obs.span("chat claude", CALL):
        raise BackendError("x", status=429)
    obs.end("failed", error="rate_limit_error")
    for name in ("gen_ai.client.operation.duration", "gen_ai.server.request.duration"):
        ((attributes, _),) = bench.points(name)
        assert attributes["error.type"] == "rate_limit_error", name


def test_a_transaction_without_a_call_has_no_call_duration(bench: Bench) -> None:
    """A denied request costs no backend, and has a duration of its own."""
    bench.begin().end("denied", error="permission_error")
    assert bench.points("gen_ai.client.operation.duration") == []
    assert len(bench.points("gen_ai.server.request.duration")) == 1
    assert [attributes for attributes, _ in bench.points("luthien.stream.terminations")] == [
        {"reason": "denied", "error.type": "permission_error"}
    ]


def record(**verdict: Any) -> Transaction:
    log = Transaction(
        Begin(id="t1", at=0, wire="openai", path="/", model="claude", stream=True, client="alice", request={"messages": "canary"})
    )
    log.status, log.decoder = 200, "anthropic"
    log.final_blocks.append(Block(kind=BlockKind.TEXT, text="canary"))
    log.usage = {
        "prompt_tokens": 70,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    if verdict:
        log.verdicts.append(VerdictRecord(**verdict))
    return log


def test_a_records_end_becomes_usage_verdicts_and_the_ending(bench: Bench) -> None:
    """Tokens by kind, one event and one count a verdict, and neither content nor the policy's reason."""
    log = record(
        policy="Judge", hook="on_block_complete", verdict="deny", action="allow", reason="canary", kind="tool_call", tool="canary"
    )
    report_end(bench.begin(attributes=CALL), log.end("stopped"))
    span = bench.spans()["luthien.transaction"]
    attributes = attributes_of(span)
    assert {name: value for name, value in attributes.items() if name.startswith("gen_ai.usage")} == {
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.reasoning.output_tokens": 4,
    }
    assert (attributes["luthien.ending"], attributes["http.response.status_code"]) == ("stopped", 200)
    assert [(event.name, (event.attributes or {})["luthien.policy.verdict"]) for event in span.events] == [
        ("luthien.policy.action", "deny")
    ]
    ((action, count),) = bench.points("luthien.policy.actions")
    assert action == {
        "luthien.policy.name": "Judge",
        "luthien.policy.hook": "on_block_complete",
        "luthien.policy.verdict": "deny",
        "luthien.policy.action": "allow",
        "luthien.policy.mode": "enforce",
        "luthien.block.type": "tool_call",
    }
    assert count.value == 1
    tokens = {attributes["gen_ai.token.type"]: point for attributes, point in bench.points("gen_ai.client.token.usage")}
    assert {kind: point.sum for kind, point in tokens.items()} == {"input": 70, "output": 9}
    assert tokens["input"].explicit_bounds[-1] == 67108864
    assert "canary" not in everything(bench)


def test_what_passed_unchecked_is_counted_and_named(bench: Bench) -> None:
    """An error that was let through is an action like every other, and the span says whose it was."""
    log = record(policy="Judge", hook="on_block_complete", verdict="error", action="allow", mode="enforce", kind="tool_call")
    log.let_through("Judge")
    log.drop_sample(model="m", policy="Judge", verdict="resample")
    report_end(bench.begin(), log.end("completed"))
    attributes = attributes_of(bench.spans()["luthien.transaction"])
    assert (attributes["luthien.policy.unchecked"], attributes["luthien.samples.dropped"]) == ("Judge", 1)
    ((action, count),) = bench.points("luthien.policy.actions")
    assert (action["luthien.policy.verdict"], action["luthien.policy.action"], count.value) == ("error", "allow", 1)


def test_a_failed_records_end_has_the_errors_type_and_not_its_words(bench: Bench) -> None:
    """The span fails with the type the client was told."""
    error = {"type": "overloaded_error", "message": "canary", "code": None}
    report_end(bench.begin(), record().end("failed", error))
    span = bench.spans()["luthien.transaction"]
    assert attributes_of(span)["error.type"] == "overloaded_error"
    assert span.status.status_code is StatusCode.ERROR
    assert "canary" not in everything(bench)


# --- names and choices


def test_usage_that_is_missing_or_odd_gives_no_attribute() -> None:
    """Nothing is invented."""
    assert usage_attributes(None) == {}
    assert usage_attributes({"prompt_tokens": None, "prompt_tokens_details": None, "completion_tokens": "9"}) == {}


def test_a_calls_attributes_are_parameters_and_no_content() -> None:
    """The sampling parameters of the request as sent, and nothing else of it."""
    body = {"temperature": 0.5, "max_tokens": 10, "messages": ["canary"], "stop": "canary", "top_p": "odd", "seed": None}
    assert backend_attributes(provider="openai", model="m", stream=False, body=body) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 10,
    }


def test_null_telemetry_does_nothing() -> None:
    """And the default is OpenTelemetry where its API is installed, as here."""
    assert isinstance(NullTelemetry().begin(transaction_id="t", headers={}), NullObservability)
    assert isinstance(default_telemetry(), OpenTelemetry)


def test_without_a_provider_the_api_alone_does_no_harm() -> None:
    """OpenTelemetry's API is installed and nobody configured an SDK: everything is a no-op."""
    obs = default_telemetry().begin(transaction_id="t", headers={"traceparent": TRACEPARENT})
    with obs.span("chat m", CALL):
        obs.set("a", 1)
    obs.end("completed")


LATE = """
from luthien_asgi.context import NullObservability
from luthien_asgi.telemetry import default_telemetry
from opentelemetry import {signal}
from opentelemetry.sdk.{signal} import {provider}
telemetry = default_telemetry()
assert isinstance(telemetry.begin(transaction_id="t"), NullObservability)
{signal}.set_{which}_provider({provider}())
assert not isinstance(telemetry.begin(transaction_id="t"), NullObservability)
"""


@pytest.mark.parametrize("which", [("trace", "TracerProvider", "tracer"), ("metrics", "MeterProvider", "meter")])
def test_a_provider_that_is_set_later_is_told_from_then_on(which: tuple[str, str, str]) -> None:
    """Each alone: there may be metrics without spans. Providers are set once in a process, so this one has its own."""
    signal, provider, kind = which
    code = LATE.format(signal=signal, provider=provider, which=kind)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from luthien_asgi.telemetry import NullTelemetry, default_telemetry, open_telemetry
assert isinstance(default_telemetry(), NullTelemetry)
try:
    open_telemetry()
except ImportError as error:
    assert "luthien-asgi[otel]" in str(error), error
else:
    raise SystemExit("no ImportError")
"""


def test_where_opentelemetry_is_missing_the_default_is_null_and_asking_for_it_says_what_to_install() -> None:
    """The module imports without it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{WITHOUT}"], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
