"""Nothing that a client writes becomes an argument of the gateway's own call.

Each name that the installed LiteLLM gives a meaning to is sent from a client of each format: at the top of the body, in every
object in it, as a header, in the query. What comes of it is a 400 that names it, or the API's own field at the provider; never
another address, key, header, call, file or answer.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile_names import litellm_names
from hostile_stage import FORMATS, KEY, KINDS, SAID, Got, Stage, question
from hostile_watch import Seen, watching

from luthien_asgi.testing import ProviderRequest
from luthien_asgi.wire.parameters import PARAMETERS

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]

STEERING = """
    api_base api_key api_version api_type base_url allowed_openai_params additional_drop_params azure_ad_token_provider
    cache caching callbacks client context_window_fallback_dict custom_llm_provider custom_prompt_dict deployment_id drop_params
    extra_body extra_headers extra_query failure_callback fallbacks guardrails headers hf_model_name
    litellm_call_id litellm_credential_name litellm_metadata litellm_params litellm_session_id litellm_trace_id logger_fn
    max_retries mock_response mock_timeout mock_tool_calls model_info model_list no-log num_retries organization preset_cache_key
    prompt_id prompt_variables provider_specific_header proxy_server_request region_name request_timeout retry_policy
    retry_strategy secret_fields shared_session ssl_verify stream_timeout success_callback tags text_completion timeout
    use_litellm_proxy user_continue_message verbose vertex_credentials vertex_project aws_access_key_id aws_profile_name
    aws_web_identity_token aws_bedrock_runtime_endpoint azure_ad_token client_secret _skip_mcp_handler
""".split()  # noqa: SIM905 - a list of names to be read
"""Names that would do harm, whatever a release of LiteLLM says of them: a client is refused each, in every format."""
IN_ALL_CALLS = frozenset({"content-length", "traceparent", "x-stainless-retry-count"})
"""Headers that differ from call to call."""


def accepted(wire: str) -> set[str]:
    """The documented parameters of a client format."""
    return {name for name, row in PARAMETERS[wire].items() if row.accepted}


def unaffected(stage: Stage, seen: Seen) -> None:
    """Nobody was called, looked up, opened or run but what a plain request does."""
    assert set(seen.connected) <= stage.allowed
    assert set(seen.looked_up) <= {"127.0.0.1"}
    assert seen.ran == []
    assert stage.canary.called == []


def test_the_walk_finds_what_matters() -> None:
    """The names are found in signatures, lists and sources; the worst of them by each that knows it."""
    names = litellm_names()
    assert len(names) > 800
    assert {*STEERING} - names == set()


@pytest.mark.parametrize("wire", FORMATS)
def test_no_steering_name_is_a_parameter(wire: str) -> None:
    """The worst are in no table of parameters."""
    assert accepted(wire) & {*STEERING} == set()


@pytest.mark.parametrize("wire", FORMATS)
def test_each_name_that_is_no_parameter_of_the_api_is_a_400_that_names_it(stage: Stage, wire: str) -> None:
    """At the top of the body: nothing is called, whatever the name means to LiteLLM."""
    names = sorted({*litellm_names(), *STEERING} - accepted(wire))
    with watching() as seen:
        for name in names:
            got = stage.ask(wire, question(wire, "openai", **{name: stage.canary.url}))
            assert (got.status, name in got.error()) == (400, True), (name, got.body)
    assert stage.calls() == []
    unaffected(stage, seen)


def telling(shape: str, url: str) -> list[Any]:
    """Values of a shape that would show."""
    text: list[Any] = [url, f"os.environ/{url}", "/etc/hostname"]
    number: list[Any] = [7, 10**9]
    nested: list[Any] = [{"api_base": url, "url": url, "type": "text", "tags": [url]}]
    listed: list[Any] = [[url], nested]
    return {
        "text": text,
        "flag": [True, False],
        "whole": number,
        "number": [*number, 0.001],
        "list": listed,
        "object": nested,
        "text or list": [*text, *listed],
        "text or object": [*text, *nested],
    }.get(shape, [*text, *nested])


def call_of(stage: Stage, wire: str, body: Mapping[str, Any], **more: Any) -> tuple[Got, ProviderRequest | None]:
    """Ask, and return what the client got and the one call that was made, if any."""
    got = stage.ask(wire, body, **more)
    calls = stage.calls()
    assert len(calls) <= 1, [call.path for call in calls]
    return got, calls[0] if calls else None


def envelope(call: ProviderRequest) -> Any:
    """All of a call but its body."""
    return call.method, call.path, call.query, {name: value for name, value in call.headers.items() if name not in IN_ALL_CALLS}


def plain_call(stage: Stage, wire: str, kind: str) -> ProviderRequest:
    """The call that a plain question becomes; made twice, since LiteLLM has more to do for the first."""
    for _ in range(2):
        got, call = call_of(stage, wire, question(wire, kind))
    assert call is not None, got.body
    assert KEY in json.dumps(dict(call.headers)) or kind == "foreign"
    return call


def tried(stage: Stage, way: tuple[str, str], body: Mapping[str, Any], plain: ProviderRequest) -> Got:
    """Ask something hostile: where it gets through, it changed nothing of the call but the body."""
    wire, kind = way
    got, call = call_of(stage, wire, body)
    if call is not None:
        assert envelope(call) == envelope(plain), wire
        assert (call.body["model"], call.body["stream"]) in {(plain.body["model"], True), (plain.body["model"], False)}
    if got.status == 200 and kind != "foreign":
        assert SAID in got.body.decode()
    return got


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wire", FORMATS)
def test_each_parameter_of_the_api_is_no_more_than_that(stage: Stage, wire: str, kind: str) -> None:
    """Where LiteLLM knows a parameter by the same name, its value is the provider's to judge, and changes nothing else."""
    plain = plain_call(stage, wire, kind)
    with watching() as seen:
        for name in sorted(accepted(wire) - {"model"}):
            for value in telling(PARAMETERS[wire][name].shape, stage.canary.url):
                body = question(wire, kind) | {name: value}
                got = tried(stage, (wire, kind), body, plain)
                assert got.status in {200, 400, 404, 502}, (name, got.body)
    unaffected(stage, seen)


# --- below the top ---------------------------------------------------------------------------------------------------------


def rich(wire: str, kind: str) -> dict[str, Any]:
    """A request with every kind of object in it that LiteLLM looks into."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    text = {"openai": "text", "anthropic": "text", "responses": "input_text"}[wire]
    message: dict[str, Any] = {"role": "user", "content": [{"type": text, "text": "hi"}]}
    function: dict[str, Any] = {"name": "f", "description": "d", "parameters": schema}
    more: Mapping[str, Any] = {
        "openai": {
            "messages": [message],
            "metadata": {"a": "b"},
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
            "stream_options": {"include_usage": True},
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        "anthropic": {
            "messages": [message],
            "max_tokens": 50,
            "metadata": {"user_id": "u"},
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "f", "description": "d", "input_schema": schema}],
            "tool_choice": {"type": "tool", "name": "f"},
        },
        "responses": {
            "input": [{"type": "message", **message}],
            "metadata": {"a": "b"},
            "reasoning": {"effort": "low"},
            "stream_options": {"include_obfuscation": False},
            "text": {"format": {"type": "json_schema", "name": "s", "schema": schema}},
            "tools": [{"type": "function", **function}],
            "tool_choice": {"type": "function", "name": "f"},
        },
    }[wire]
    return {"model": kind, **more}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all objects below the top."""
    if isinstance(value, dict):
        if at:
            yield at
        for name, item in value.items():
            yield from places(item, (*at, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from places(item, (*at, place))


def planted(body: Mapping[str, Any], at: Sequence[Any], names: Sequence[str], value: Any) -> dict[str, Any]:
    """The body with names of LiteLLM's in one of its objects."""
    copied = copy.deepcopy(dict(body))
    holder: Any = copied
    for step in at:
        holder = holder[step]
    for name in names:
        holder.setdefault(name, value)
    return copied


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wire", FORMATS)
def test_names_in_the_objects_of_a_request_steer_nothing(stage: Stage, wire: str, kind: str) -> None:
    """All names in each object; those whose type is checked there (`tool_calls` that are no list) are tried alone."""
    plain = plain_call(stage, wire, kind)
    body = rich(wire, kind)
    values = [stage.canary.url, True, {"url": stage.canary.url}] if kind == "mapped" else [stage.canary.url]
    answered = set()
    with watching() as seen:
        for at, value in itertools.product(places(body), values):
            got, refused = peeled(stage, plain, (wire, kind), body, at, value)
            for name in refused:
                tried(stage, (wire, kind), planted(body, at, [name], value), plain)
            if got.status == 200:
                answered.add(at)
    unaffected(stage, seen)
    assert kind == "foreign" or len(answered) >= AT_LEAST[wire], answered


AT_LEAST: Mapping[str, int] = {"openai": 5, "anthropic": 5, "responses": 5}
"""Objects in which the names did not matter to anybody, so that the question was answered."""
BY_A_RULE = 20


def peeled(
    stage: Stage, plain: ProviderRequest, way: tuple[str, str], body: Mapping[str, Any], at: tuple[Any, ...], value: Any
) -> tuple[Got, list[str]]:
    """Plant the names in one object, but those that are refused there; return the last answer, and them.

    Where every unknown name is refused by a rule (a conversion has no words for it), the worst stand for the others.
    """
    refused: list[str] = []
    names = sorted({*litellm_names(), *STEERING})
    while True:
        got = tried(stage, way, planted(body, at, names, value), plain)
        more = [name for name in names if got.status == 400 and name in _named(got)]
        if not more:
            return got, refused
        refused += more
        if len(refused) > BY_A_RULE:
            return got, [*refused, *STEERING]
        names = [name for name in names if name not in more]


def _named(got: Got) -> set[str]:
    """The fields that an error names: quoted, or last in a path."""
    error = got.json()["error"]
    paths = f"{error.get('param') or ''} {error['message']}"
    return {*re.findall(r"'([^' ]+)'", paths), *re.findall(r"[.]([\w-]+)(?=[ :]|$)", paths)}


# --- beside the body -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "mapped", "anthropic"])
@pytest.mark.parametrize("wire", FORMATS)
def test_headers_and_query_of_a_client_reach_nobody(stage: Stage, wire: str, kind: str) -> None:
    """The names as headers, with and without LiteLLM's own prefix, and in the query: the call is the plain one."""
    plain = plain_call(stage, wire, kind)
    mark = "hostile-value"
    names = sorted(name for name in {*litellm_names(), *STEERING} if name.isascii() and name.lower() not in OF_HTTP)
    with watching() as seen:
        for start in range(0, len(names), 20):
            batch = names[start : start + 20]
            headers = {f"{prefix}{name.replace('_', '-')}": mark for name in batch for prefix in ("", "x-litellm-")}
            query = "?" + "&".join(f"{name}={mark}" for name in batch)
            got, call = call_of(stage, wire, question(wire, kind), headers=headers, query=query)
            assert call is not None, (batch, got.body)
            allowed = {"anthropic-beta", "anthropic-version"} if kind == "anthropic" else set[str]()
            assert {name for name, value in call.headers.items() if mark in value} <= allowed
            assert (call.path, call.query, call.body) == (plain.path, plain.query, plain.body)
            assert SAID in got.body.decode()
    unaffected(stage, seen)


OF_HTTP = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""Headers with which the request itself would be another."""


def test_a_file_that_a_client_names_is_not_opened(stage: Stage, tmp_path: Path) -> None:
    """Credentials by path, at the top and in every object."""
    secret = tmp_path / "credentials.json"
    secret.write_text('{"type": "service_account"}')
    with watching() as seen:
        for wire in FORMATS:
            for kind in KINDS:
                for at in places(rich(wire, kind)):
                    stage.ask(wire, planted(rich(wire, kind), at, ["vertex_credentials", "file", "path", "file_id"], str(secret)))
                stage.ask(wire, question(wire, kind, vertex_credentials=str(secret)))
    stage.calls()
    assert str(secret) not in seen.opened
