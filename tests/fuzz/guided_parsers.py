"""Targets: the smaller parsers of what others wrote, each against its promise and, where there is one, a reader of another kind.

Strategy: events, JSON, headers, a provider's error, a configuration file, a record, another worker's question, an operator's
answer. What is not theirs to read they refuse with the one error that they promise.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
from guided_shapes import vary_json, vary_text
from guided_target import Target
from starlette.datastructures import Headers

from luthien_asgi import Approvals, jsontext
from luthien_asgi.approval_routes import _decision, printable
from luthien_asgi.approvals import _bounded, _encode
from luthien_asgi.auth import KeyAuth, credential_of
from luthien_asgi.backend.recover import error_from_body
from luthien_asgi.errors import ApiError, BackendError, ConfigError, RequestError
from luthien_asgi.jsonl import read_transactions
from luthien_asgi.loopback import LoopbackGuard
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.anthropic import AnthropicWire
from luthien_asgi.wire.openai import OpenAIWire
from luthien_asgi.wire.responses import ResponsesWire
from luthien_asgi.wire.sse import SSEDecoder, SSEEvent
from luthien_asgi.yaml_lines import read

__all__ = ["TARGETS"]

_WIRES: Final[Mapping[str, Any]] = {"openai": OpenAIWire(), "anthropic": AnthropicWire(), "responses": ResponsesWire()}
_SETTINGS: Final = StreamSettings()
_REQUESTS: Final = {name: ChatRequest(wire=name, body={"model": "m"}) for name in _WIRES}  # type: ignore[arg-type]

# --- server-sent events ----------------------------------------------------------------------------------------------------


def check_sse(data: bytes) -> None:
    """Raise unless the events are those of the standard, whatever the packets; the first byte says where they are cut."""
    cut, stream = data[0] if data else 0, data[1:]
    random = Random(cut)
    places = sorted({0, len(stream), *(random.randrange(len(stream) + 1) for _ in range(cut % 12))})
    packets = [stream[begin:end] for begin, end in pairwise(places)]
    expected = _by_the_standard(stream)
    for cuts in ([stream], packets, [stream[at : at + 1] for at in range(len(stream))] if len(stream) < 300 else packets):
        decoder = SSEDecoder(1 << 20)
        events = [event for packet in cuts for event in decoder.feed(packet)] + decoder.close()
        said = [event for event in events if event.data is not None]
        assert said == expected, f"{said!r:.300} and not {expected!r:.300}"


def check_sse_limit(data: bytes) -> None:
    """Raise unless an event beyond the limit ends the stream, and what is kept stays within it."""
    limit, stream = 1 + (data[0] if data else 0), data[1:]
    decoder, step = SSEDecoder(limit), 1 + len(stream) // 50
    try:
        for at in range(0, len(stream), step):
            for event in decoder.feed(stream[at : at + step]):
                assert event.data is None or len(event.data) <= limit
            assert decoder._tail_size <= limit + 1 + step
    except BackendError:
        return


def _by_the_standard(stream: bytes) -> list[SSEEvent]:
    """Read events line by line, as the standard's algorithm does, with the differences that `wire.sse` lists."""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    found: list[SSEEvent] = []
    name, data = b"", list[bytes]()
    for line in [*lines, b""]:
        if not line:
            if data:
                found.append(SSEEvent(name.decode("utf-8", "replace"), b"\n".join(data)))
            name, data = b"", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data.append(value)
    return found


# --- JSON ------------------------------------------------------------------------------------------------------------------


def check_jsontext(data: bytes) -> None:
    """Raise unless what is read is what the standard library reads, and comes back the same; nothing but a `ValueError`."""
    try:
        value = jsontext.loads(data)
    except ValueError:
        assert not _is_plain_json(data), "JSON was refused"
        return
    assert jsontext.depth_of(value, 50) <= 51
    written = jsontext.dumps(value)
    assert b"\n" not in written
    again = jsontext.loads(written)
    assert again == value, f"{again!r:.200} and not {value!r:.200}"
    assert json.loads(data.decode()) == value or _holds_huge(value)


def _is_plain_json(data: bytes) -> bool:
    try:
        value = json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return not _holds_huge(value) and jsontext.depth_of(value, 200) <= 200


def _refuse(name: str) -> None:
    raise ValueError(name)


def _holds_huge(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_huge, value.values()))
    if isinstance(value, list):
        return any(map(_holds_huge, value))
    return isinstance(value, float) and math.isinf(value)


# --- headers ---------------------------------------------------------------------------------------------------------------

_KEYS: Final = {"alice": "correct-horse-battery", "bob": "ключ-из-восьми"}
_REFUSED: Final = frozenset({401, 403, 415})
_TOKEN: Final = re.compile(rb"[\w!#$%&'*+.^`|~-]+")


def check_auth(data: bytes) -> None:
    """Raise unless headers are refused with a status of their own, or are a client's who sent its key and no other one."""
    headers = _headers(data)
    for auth in (KeyAuth(_KEYS), LoopbackGuard()):
        try:
            said: Any = auth(headers)
        except ApiError as error:
            assert error.status in _REFUSED
            assert not any(key in error.message for key in _KEYS.values())
            continue
        name = said if isinstance(said, str) else said.name
        assert name == "local" or _key_of(name) in data, f"{name} was let in without a key"
    try:
        credential = credential_of(headers, auth=KeyAuth(_KEYS))
    except ApiError as error:
        assert error.status in _REFUSED
        return
    assert credential is None or credential.encode("latin-1") not in map(str.encode, _KEYS.values())


def _key_of(name: str) -> bytes:
    return _KEYS[name].encode()


def _headers(data: bytes) -> Headers:
    """Return headers as a parser of HTTP gives them: names that are tokens, in lower case, no line break or NUL in a value."""
    lines = [line.partition(b":") for line in re.split(rb"[\r\n\0]+", data)]
    return Headers(raw=[(name.lower(), value.strip()) for name, _, value in lines if _TOKEN.fullmatch(name)])


# --- a provider's error ----------------------------------------------------------------------------------------------------


def check_provider_error(data: bytes) -> None:
    """Raise unless a provider's error response becomes an error in every format, without the credential in use."""
    head, _, body = data.partition(b"\n\n")
    first, _, rest = head.partition(b"\n")
    status = int(first) if re.fullmatch(rb"\d{3}", first) else 500
    headers = dict(_headers(rest).items())
    secret = "sk-secret-0123456789abcdef"
    for backend in ("openai", "anthropic"):
        error = error_from_body(status, body, headers=headers, secrets=[secret], wire=backend)  # type: ignore[arg-type]
        assert 400 <= error.status < 600
        for name, wire in _WIRES.items():
            said = jsontext.dumps(wire.error_body(error, request_id="r")).decode()
            assert isinstance(json.loads(said)["error"]["message"], str)
            assert secret not in said, f"the credential is in what a client of {name} gets"
            sent = wire.response_headers(error.headers, request_id="r")
            assert all(_TOKEN.fullmatch(key.encode()) and not re.search(r"[\r\n\0]", value) for key, value in sent.items())
            assert secret not in str(sent)
            frames = wire.encoder(_REQUESTS[name], settings=_SETTINGS, id="t", created=7).fail(error)
            assert secret.encode() not in b"".join(frames)


# --- files -----------------------------------------------------------------------------------------------------------------


@cache
def _file() -> Path:
    handle, name = tempfile.mkstemp(prefix="luthien-fuzz-")
    os.close(handle)
    return Path(name)


def check_yaml(data: bytes) -> None:
    """Raise unless a configuration file is read, with a line for everything that is wrong in it, or refused."""
    _file().write_bytes(data)
    try:
        document = read(_file(), environ={"A": "value"})
    except ConfigError as error:
        assert str(_file()) in str(error)
        return
    lines = data.count(b"\n") + data.count(b"\r") + data.count(b"\xc2\x85") + data.count(b"\xe2\x80") + 1
    for problem in document.problems:
        assert 1 <= problem.line <= lines + 1, f"line {problem.line} of {lines}"
        problem.text("x")


def check_record(data: bytes) -> None:
    """Raise unless every line of a record that is one is read, whatever stands in the others."""
    _file().write_bytes(data)
    log = logging.getLogger("luthien_asgi")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        for transaction in read_transactions(_file()):
            assert isinstance(transaction["id"], str)
            assert transaction["begin"] is not None or transaction["end"] is not None
    finally:
        log.setLevel(level)


# --- approvals -------------------------------------------------------------------------------------------------------------


def check_relay(data: bytes) -> None:
    """Raise unless another worker's line is answered with one line, or refused with a `ValueError`."""
    desk = Approvals(timeout=1.0)
    try:
        said = desk._served(data)
    except ValueError:
        return
    assert b"\n" not in said
    msgspec.json.decode(said)


def check_decision(data: bytes) -> None:
    """Raise unless an operator's answer is a decision, or a `RequestError`."""
    try:
        decision = _decision(data, by="operator:a")
    except RequestError as error:
        assert error.status == 400
        return
    bounded = _bounded(decision)
    printable({"reason": bounded.reason})
    assert b"\n" not in _encode(bounded)


def _nothing() -> Iterable[bytes]:
    return ()


def _target(name: str, check: Any, *, words: Sequence[bytes] = (), vary: Any = vary_text, **bounds: Any) -> Target:
    return Target(name=name, check=check, seeds=_nothing, vary=vary, words=words, **bounds)


def _quoted(*names: str) -> Iterator[bytes]:
    return (b'"%s"' % name.encode() for name in names)


_EVENTS: Final = (
    b"data: ",
    b"data:",
    b"event: ",
    b": ",
    b"id: ",
    b"retry: ",
    b"\n\n",
    b"\r\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
)
_JSON: Final = (b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-0", b"\\ud83d", b"\\udc00", b"[[", b'{"a":', b"\xed\xa0\xbd")
_HEADERS: Final = (
    b"authorization: Bearer ", b"x-api-key: ", b"x-luthien-key: ", b"host: ", b"origin: http://", b"sec-fetch-site: cross-site",
    b"content-type: application/json", b"correct-horse-battery", b"[::1]", b"127.0.0.1", b"localhost", b"content-length: 1",
    b"transfer-encoding: chunked", b"\xd0\xba", b"127.1", b"2130706433", b"localhost.", b"@", b"%", b"[", b"\xc2\xa0",
)  # fmt: skip
_ERRORS: Final = (
    b"retry-after: ", b"x-ratelimit-", b"x-should-retry: ", b"sk-secret-0123456789abcdef", b"529", b"307",
    *_quoted("error", "message", "type", "code", "param", "detail", "overloaded_error", "rate_limit_error", "request_id"),
)  # fmt: skip
_YAML: Final = (
    b"&a ", b"*a", b"<<: ", b"!!int ", b"!!python/object:os.system ", b"? ", b"- ", b"|\n", b">-\n", b"os.environ/A", b"---\n",
    b"...\n", b"%YAML 1.1\n", b"0o7", b"0x", b"1:60", b"2024-06-01", b".nan", b".inf", b"\xc2\x85", b"\xe2\x80\xa8", b"{", b"[",
    b"=",
)  # fmt: skip
_RECORD: Final = ("type", "begin", "end", "id", "at", "request", "ending", "final_blocks", "interrupted")
_RELAY: Final = ("id", "decision", "allowed", "by", "reason", "allow", "deny")

TARGETS: Final = [
    _target("sse", check_sse, words=_EVENTS),
    _target("sse_limit", check_sse_limit, words=_EVENTS),
    _target("jsontext", check_jsontext, words=_JSON, vary=vary_json(())),
    _target("auth", check_auth, words=_HEADERS),
    _target("provider_error", check_provider_error, words=_ERRORS),
    _target("yaml", check_yaml, words=_YAML, per_byte=2e-3),
    _target("record", check_record, words=[*_quoted(*_RECORD), b"\n"]),
    _target("relay", check_relay, words=[*_quoted(*_RELAY)], vary=vary_json(_RELAY)),
    _target("decision", check_decision, words=[*_quoted(*_RELAY)], vary=vary_json(_RELAY)),
]
