"""One call of `litellm.acompletion`, from the arguments to an open answer.

Strategy: `plan` says with which arguments LiteLLM is called and which body leaves; `place` makes the call and finds the best way
to read what it returned. Both know one attempt; `luthien_asgi.backend.service` decides on a second.

The ways to read, best first:

- the provider's bytes: Anthropic's own API, and every stream that LiteLLM reads as an OpenAI-style one;
- a whole JSON body, from a provider that ignored `stream` or was asked without it;
- LiteLLM's own iteration, noted as `fallback: …`. It invents a finish reason for a stream that was cut off, and loses what it has
  no field for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from luthien_asgi import jsontext
from luthien_asgi.backend import known
from luthien_asgi.backend.arguments import allow_unlisted, minimal_arguments, openai_arguments, secrets_of, visible
from luthien_asgi.backend.attempt import Call, Engine, Plan
from luthien_asgi.backend.bridge import NOTE, takes_bridge, with_bridge
from luthien_asgi.backend.capture import raw_response
from luthien_asgi.backend.foreign import check_files, check_foreign
from luthien_asgi.backend.model_table import (
    check_chat,
    check_provider,
    is_adaptive,
    supported_params,
    without_unknown,
)
from luthien_asgi.backend.models import Deployment
from luthien_asgi.backend.own_body import own_arguments, own_fields, way_of
from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.backend.recover import error_from_body, kept_headers, network_error, recover
from luthien_asgi.backend.rewrite import anthropic_rewrite, openai_rewrite, sent_headers
from luthien_asgi.backend.stream import BodySource, ChunkStream, IterationSource, RawSource, StreamInfo
from luthien_asgi.errors import BackendError
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.bodies import anthropic_body_chunks, openai_body_chunks
from luthien_asgi.wire.openai_decoder import OpenAIDecoder
from luthien_asgi.wire.split import split_chunk
from luthien_asgi.wire.thought_signatures import for_backend
from luthien_asgi.wire.to_anthropic import DEFAULT_MAX_TOKENS, Converted, to_anthropic
from luthien_asgi.wire.to_openai import to_openai

__all__ = ["anthropic_body", "place", "plan"]


def plan(engine: Engine, deployment: Deployment, call: BackendCall, *, extra: Mapping[str, Any]) -> Plan:
    """Return the first attempt. Raises `RequestError` for a request that the provider's wire has no words for."""
    check_provider(engine.litellm, deployment)
    if deployment.provider not in known.BRIDGED_PROVIDERS:
        check_chat(engine.modes, deployment)
    credential = call.credential if deployment.passthrough else None
    shape = partial(_plan_anthropic if deployment.wire == "anthropic" else _plan_openai, engine, deployment, call, credential)
    planned: Plan = shape()
    arguments = {**planned.arguments, **extra}
    if extra:
        # A Router learns of failures through LiteLLM's callbacks, which `no-log` would silence.
        arguments.pop("no-log", None)
    key = arguments.get("api_key") or ""  # one that was found in the environment is not among the deployment's
    planned = replace(planned, arguments=arguments, secrets=(*secrets_of(deployment, call.credential), key))
    return planned if deployment.stream else planned.without_streaming("the model's setting")


def _plan_openai(engine: Engine, deployment: Deployment, call: BackendCall, credential: str | None) -> Plan:
    is_claude = deployment.provider in known.CLAUDE_HOSTS and "claude" in deployment.model
    extras = deployment.provider in known.TOP_K_PROVIDERS
    converted = to_openai(
        call.request,
        extras=extras,
        keep_thinking=is_claude,
        keep_cache_control=is_claude,
        custom_tools=deployment.provider in known.CUSTOM_TOOL_PROVIDERS,
    )
    params, ignored = without_unknown(engine.litellm, deployment, converted)
    if messages := params.get("messages"):
        params["messages"] = for_backend(messages, signed=deployment.provider in known.GEMINI_HOSTS)
    timeout = max(engine.settings.first_chunk_timeout, engine.settings.stall_timeout)
    if bridged := _plan_bridge(engine, deployment, params, ignored, credential=credential, timeout=timeout):
        return bridged
    if (way := way_of(engine.litellm, deployment, credential)) is not None:
        foreign = call.request.wire != "openai"
        arguments = own_arguments(deployment, params, way=way, converted=foreign, credential=credential, timeout=timeout)
        rewrite = openai_rewrite(own_fields(params, converted=foreign)) if way.name != "extra_body" else None
        return Plan(deployment=deployment, arguments=arguments, rewrite=rewrite, ignored=ignored)
    arguments = openai_arguments(deployment, params, credential=credential, stream=True, timeout=timeout)
    check_files(params)
    if deployment.provider in known.OTHER_WIRES:
        check_foreign(params)
    else:
        allow_unlisted(arguments, supported_params(engine.litellm, deployment))
    return Plan(deployment=deployment, arguments=arguments, ignored=ignored)


def _plan_bridge(
    engine: Engine,
    deployment: Deployment,
    params: Mapping[str, Any],
    ignored: Sequence[str],
    *,
    credential: str | None,
    timeout: float,
) -> Plan | None:
    """Return the attempt for a model of the Responses API, None for one of chat completions."""
    if deployment.provider not in known.BRIDGED_PROVIDERS:
        return None
    arguments = openai_arguments(deployment, params, credential=credential, stream=True, timeout=timeout)
    if not takes_bridge(engine.modes, deployment, arguments):
        check_chat(engine.modes, deployment)
        return None
    allow_unlisted(arguments, supported_params(engine.litellm, deployment))
    return Plan(deployment=deployment, arguments=with_bridge(arguments), ignored=ignored, notes=(NOTE,))


def _plan_anthropic(engine: Engine, deployment: Deployment, call: BackendCall, credential: str | None) -> Plan:
    timeout = max(engine.settings.first_chunk_timeout, engine.settings.stall_timeout)
    converted = anthropic_body(engine, deployment, call)
    arguments = minimal_arguments(deployment, credential=credential, stream=True, timeout=timeout)
    rewrite = anthropic_rewrite(converted.params, sent_headers(deployment, call), call.query)
    return Plan(deployment=deployment, arguments=arguments, rewrite=rewrite, ignored=tuple(converted.ignored))


def anthropic_body(engine: Engine, deployment: Deployment, call: BackendCall) -> Converted:
    """Return the request as an Anthropic body; one of the Anthropic format as it is. Raises `RequestError`."""
    longest = int(deployment.params.get("max_tokens") or DEFAULT_MAX_TOKENS)
    return to_anthropic(call.request, default_max_tokens=longest, adaptive_thinking=is_adaptive(engine.litellm, deployment.model))


async def place(engine: Engine, attempt: Plan) -> ChunkStream:
    """Make the call and return the answer, open. Raises `ApiError`; when cancelled it leaves no connection open."""
    call = Call(engine, attempt)
    try:
        return await _opened(engine, attempt, await call.answer(), call)
    except BaseException as error:
        await call.discard()
        if isinstance(error, Exception):
            raise recover(error, secrets=attempt.secrets, wire=attempt.deployment.wire) from None
        raise


async def _opened(engine: Engine, attempt: Plan, answer: Any, call: Call) -> ChunkStream:  # noqa: ANN401
    if attempt.rewrite is not None and call.sent is None:
        raise BackendError("LiteLLM did not send the request as it was planned")
    response = raw_response(answer, call)
    if response is not None and response.status_code >= 400:
        # LiteLLM makes an empty answer of one error, that of a limit too small for a single token.
        raise error_from_body(response.status_code, response.content, headers=response.headers, secrets=attempt.secrets)
    if not attempt.streams:
        body, raw = _body_of(answer, response, attempt)
        return _whole(engine, attempt, body, response, call, extras=raw)
    decoder = _decoder(engine, attempt, answer)
    if response is None or decoder is None:
        return _iterated(engine, attempt, answer, call)
    if _is_json(response):
        return _whole(engine, attempt, await _read_body(response, engine.limits.frame_bytes), response, call)
    return ChunkStream(RawSource(response, decoder), _info(engine, attempt, attempt.deployment.wire, response, call))


def _decoder(engine: Engine, attempt: Plan, answer: Any) -> OpenAIDecoder | AnthropicDecoder | None:  # noqa: ANN401
    created = int(time.time())
    if attempt.deployment.wire == "anthropic":
        return AnthropicDecoder(engine.limits.frame_bytes, created)
    iterator = type(getattr(answer, "completion_stream", None))
    speaks_openai = attempt.rewrite is not None or any(base.__name__ in known.OPENAI_ITERATORS for base in iterator.__mro__)
    return OpenAIDecoder(engine.limits.frame_bytes, created) if speaks_openai else None


def _iterated(engine: Engine, attempt: Plan, answer: Any, call: Call) -> ChunkStream:  # noqa: ANN401
    find_response = partial(raw_response, answer, call)
    note = f"fallback: LiteLLM's own iteration for provider {attempt.deployment.provider or 'unknown'}"
    source = IterationSource(answer, split=partial(_split, seen=set()), find_response=find_response, secrets=attempt.secrets)
    info = _info(engine, attempt, "litellm", find_response(), call)
    return ChunkStream(source, replace(info, wire="openai", notes=(*info.notes, note)))


def _split(data: dict[str, Any], seen: set[int]) -> list[dict[str, Any]]:
    return split_chunk(data, seen, extras=False)


def _is_json(response: Any) -> bool:  # noqa: ANN401 - httpx.Response
    kind, _, _ = response.headers.get("content-type", "").partition(";")
    return bool(kind.strip().lower() == "application/json")


async def _read_body(response: Any, limit: int) -> dict[str, Any]:  # noqa: ANN401 - httpx.Response
    body = bytearray()
    try:
        async for part in response.aiter_bytes():
            body += part
            if len(body) > limit:
                break
    except Exception as error:
        raise network_error(error) or BackendError("the provider's answer could not be read") from None
    finally:
        await response.aclose()
    if len(body) > limit:
        raise BackendError(f"the provider sent an answer of more than {limit} bytes (frame_bytes)")
    return _json_object(bytes(body))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = jsontext.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BackendError("the provider's answer is not a JSON object")
    return document


def _body_of(answer: Any, response: Any, attempt: Plan) -> tuple[dict[str, Any], bool]:  # noqa: ANN401
    """Return the provider's body and True; where only LiteLLM's form of it is within reach, that and False."""
    if attempt.rewrite is not None and response is not None:
        return _json_object(response.content), True
    dumped: dict[str, Any] = answer.model_dump()
    return dumped, False


def _whole(
    engine: Engine,
    attempt: Plan,
    body: dict[str, Any],
    response: Any,  # noqa: ANN401 - httpx.Response
    call: Call,
    *,
    extras: bool = True,
) -> ChunkStream:
    created = int(time.time())
    if body.get("error"):
        raise error_from_body(502, jsontext.dumps(body), headers={}, secrets=attempt.secrets, wire=attempt.deployment.wire)
    is_anthropic = attempt.deployment.wire == "anthropic"
    chunks = anthropic_body_chunks(body, created) if is_anthropic else openai_body_chunks(body, created, extras=extras)
    info = _info(engine, attempt, "body", response, call)
    note = () if not attempt.streams else ("the provider ignored stream=True",)
    return ChunkStream(BodySource(chunks), replace(info, notes=(*info.notes, *note)))


def _info(engine: Engine, attempt: Plan, decoder: Any, response: Any, call: Call) -> StreamInfo:  # noqa: ANN401
    return StreamInfo(
        wire=attempt.deployment.wire,
        decoder=decoder,
        headers=kept_headers(response.headers, attempt.secrets) if response is not None else {},
        sent=call.sent if call.sent is not None else _sent(attempt, response),
        ignored=attempt.ignored,
        notes=attempt.notes,
        secrets=attempt.secrets,
        close_timeout=engine.settings.close_timeout,
    )


def _sent(attempt: Plan, response: Any) -> Mapping[str, Any]:  # noqa: ANN401
    with contextlib.suppress(Exception):
        sent = jsontext.loads(response.request.content)
        if isinstance(sent, dict):
            return sent
    return visible(attempt.arguments)
