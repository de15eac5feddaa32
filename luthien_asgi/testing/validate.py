"""Is this stream legal? A validator for each of the three wires: bytes in, in any cut, violations out.

    for violation in validate_stream("openai", body):
        print(violation)                         # event 4, byte 812: error: role-repeated: the role of choice 0 again

`StreamValidator` does it while the bytes come. Time is linear in the stream; memory is that of the texts that must be compared,
and of one event of at most `framing.MAX_EVENT` bytes. Nothing in a stream makes a validator raise.

The rules and their names are `RULES`. `strict=True` holds a stream to what a gateway should emit: nothing that is illegal, and
nothing that breaks an official SDK. `strict=False` is for a provider's own stream: what real ones are known to do is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from luthien_asgi import jsontext
from luthien_asgi.testing.framing import Frame, Framing
from luthien_asgi.testing.reading_events import Grammar, too_deep
from luthien_asgi.testing.responses_body import check_responses_body, check_responses_error
from luthien_asgi.testing.rules import (
    ANTHROPIC_BODY_RULES,
    ANTHROPIC_RULES,
    OPENAI_BODY_RULES,
    OPENAI_RULES,
    RESPONSES_BODY_RULES,
    RESPONSES_RULES,
)
from luthien_asgi.testing.validate_anthropic import AnthropicGrammar, check_anthropic_body, check_anthropic_error
from luthien_asgi.testing.validate_openai import OpenAIGrammar, check_openai_body, check_openai_error
from luthien_asgi.testing.validate_responses import ResponsesGrammar
from luthien_asgi.testing.violations import Rule, Sink, Violation, quoted

__all__ = [
    "BODY_RULES",
    "RULES",
    "BodyReport",
    "StreamValidator",
    "ValidatedWire",
    "check_body",
    "check_stream",
    "read_body",
    "validate_body",
    "validate_stream",
]

ValidatedWire = Literal["openai", "anthropic", "responses"]

RULES: Final[Mapping[ValidatedWire, Mapping[str, Rule]]] = {
    "openai": OPENAI_RULES,
    "anthropic": ANTHROPIC_RULES,
    "responses": RESPONSES_RULES,
}
"""The rules of a stream, by wire and name."""
BODY_RULES: Final[Mapping[ValidatedWire, Mapping[str, Rule]]] = {
    "openai": OPENAI_BODY_RULES,
    "anthropic": ANTHROPIC_BODY_RULES,
    "responses": RESPONSES_BODY_RULES,
}
"""The rules of a body that is not a stream, by wire and name."""
_CheckError = Callable[[Mapping[str, Any], Sink], None]
_CheckBody = Callable[[Mapping[str, Any], Sink], Mapping[str, Any]]
_BODIES: Final[Mapping[ValidatedWire, tuple[_CheckBody, _CheckError]]] = {
    "openai": (check_openai_body, check_openai_error),
    "anthropic": (check_anthropic_body, check_anthropic_error),
    "responses": (check_responses_body, check_responses_error),
}


class StreamValidator:
    """Validates one stream while it comes. Feed it bytes, then call `end`.

    `include_usage` is what an OpenAI request said in `stream_options`. With None (it is not known) the first chunk shows it.
    """

    def __init__(self, wire: ValidatedWire, *, strict: bool = True, include_usage: bool | None = None) -> None:
        self.wire: ValidatedWire = wire
        self.events = 0
        """Events that came, `[DONE]` among them, comments not."""
        self.comments = 0
        self._sink = Sink(RULES[wire], strict=strict)
        self._framing = Framing(self._sink)
        self._grammar = _grammar(wire, self._sink, include_usage)

    @property
    def violations(self) -> list[Violation]:
        """Every violation so far."""
        return list(self._sink.violations)

    def feed(self, data: bytes) -> list[Violation]:
        """Take the stream's next bytes and return what is wrong in what is complete now."""
        known = len(self._sink.violations)
        self._take(self._framing.feed(data))
        return self._sink.violations[known:]

    def take_event(self, frame: Frame) -> list[Violation]:
        """Take an event that was not framed, such as a line of a log, and return what is wrong with it."""
        known = len(self._sink.violations)
        self._take([frame])
        return self._sink.violations[known:]

    def end(self) -> list[Violation]:
        """The stream is over: return what is missing. Not for a stream that the client itself broke off."""
        known = len(self._sink.violations)
        self._take(self._framing.end())
        self._grammar.end()
        return self._sink.violations[known:]

    def summary(self) -> Mapping[str, Any]:
        """Return what the stream held, as JSON: identity, blocks or choices or items, finish, usage, error, and how it ended."""
        return {**self._grammar.summary(), "events": self.events, "comments": self.comments}

    def _take(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._sink.place = frame.place
            if frame.comment:
                self.comments += 1
            else:
                self.events += 1
                self._grammar.take(frame)


def _grammar(wire: ValidatedWire, sink: Sink, include_usage: bool | None) -> Grammar:
    if wire == "openai":
        return OpenAIGrammar(sink, include_usage=include_usage)
    return AnthropicGrammar(sink) if wire == "anthropic" else ResponsesGrammar(sink)


def validate_stream(
    wire: ValidatedWire, data: bytes, *, strict: bool = True, include_usage: bool | None = None
) -> list[Violation]:
    """Return what is wrong with a whole stream, in its order."""
    validator = StreamValidator(wire, strict=strict, include_usage=include_usage)
    return [*validator.feed(data), *validator.end()]


def check_stream(wire: ValidatedWire, data: bytes, *, strict: bool = True, include_usage: bool | None = None) -> None:
    """Raise `ValueError` with every error in a stream; warnings are let pass."""
    _raise(validate_stream(wire, data, strict=strict, include_usage=include_usage), f"the {wire} stream is not legal")


class BodyReport:
    """What is wrong with a body, and what it held."""

    __slots__ = ("summary", "violations")

    def __init__(self, violations: list[Violation], summary: Mapping[str, Any]) -> None:
        self.violations = violations
        self.summary = summary


def read_body(wire: ValidatedWire, body: bytes | Mapping[str, Any], *, strict: bool = True) -> BodyReport:
    """Validate the body of a response that is not streamed: an answer, or an error."""
    sink = Sink(BODY_RULES[wire], strict=strict)
    parsed = _parsed(body, sink)
    if parsed is None:
        return BodyReport(sink.violations, {"ended": "unreadable"})
    whole, error = _BODIES[wire]
    if (said := parsed.get("error")) and not isinstance(parsed.get("output"), list):
        error(parsed, sink)
        return BodyReport(sink.violations, {"error": said, "ended": "an error"})
    return BodyReport(sink.violations, whole(parsed, sink))


def _parsed(body: bytes | Mapping[str, Any], sink: Sink) -> Mapping[str, Any] | None:
    if not isinstance(body, bytes):
        return body
    try:
        value = jsontext.loads(body)
    except ValueError as error:
        sink.report("json", f"the body is not JSON ({error}): {quoted(body)}")
        return None
    if not isinstance(value, dict) or too_deep(body, value):
        sink.report("json", f"the body must be an object, and not nested deeply: {quoted(value)}")
        return None
    return value


def validate_body(wire: ValidatedWire, body: bytes | Mapping[str, Any], *, strict: bool = True) -> list[Violation]:
    """Return what is wrong with the body of a response that is not streamed: an answer, or an error."""
    return read_body(wire, body, strict=strict).violations


def check_body(wire: ValidatedWire, body: bytes | Mapping[str, Any], *, strict: bool = True) -> None:
    """Raise `ValueError` with every error in a body; warnings are let pass."""
    _raise(validate_body(wire, body, strict=strict), f"the {wire} body is not legal")


def _raise(violations: Iterable[Violation], what: str) -> None:
    errors = [str(violation) for violation in violations if violation.severity == "error"]
    if errors:
        msg = f"{what}:\n" + "\n".join(errors)
        raise ValueError(msg)
