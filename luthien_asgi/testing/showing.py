"""What `luthien-asgi validate` prints: values first, so that it can be JSON or text.

Nothing that a stream says reaches the terminal raw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from luthien_asgi.logs import one_line as printable
from luthien_asgi.testing.inspecting import Inspection
from luthien_asgi.testing.violations import quoted

__all__ = ["as_json", "as_text", "printable"]

_SHOWN: Final = 5
"""Violations of one rule that are shown as text; JSON has them all."""
_PARTS: Final = 50
"""Blocks, choices or items that are shown as text."""
_FORMS: Final = {"stream": "stream", "events": "log of events", "body": "body"}


def as_json(name: str, found: Inspection) -> dict[str, Any]:
    """Return the inspection as a value for JSON."""
    return {
        "file": name,
        "wire": found.wire,
        "form": found.form,
        "errors": _count(found, "error"),
        "warnings": _count(found, "warning"),
        "violations": [asdict(violation) for violation in found.violations],
        "summary": found.summary,
    }


def as_text(name: str, found: Inspection) -> Iterator[str]:
    """Yield the lines that a person reads."""
    yield f"{printable(name)}: {found.wire} {_FORMS[found.form]}"
    shown: Counter[str] = Counter()
    for violation in found.violations:
        shown[violation.rule] += 1
        if shown[violation.rule] <= _SHOWN:
            yield f"  {printable(str(violation))}"
    yield from (f"  … and {number - _SHOWN} more of {rule}" for rule, number in shown.items() if number > _SHOWN)
    yield from (f"  {printable(line)}" for line in _held(found.summary))
    errors, warnings = _count(found, "error"), _count(found, "warning")
    yield f"  {errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def _count(found: Inspection, severity: str) -> int:
    return sum(violation.severity == severity for violation in found.violations)


def _held(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary.get("model") is not None:
        yield f"model: {quoted(summary['model'])}"
    for word in ("choices", "blocks", "items"):
        parts = summary.get(word) or []
        yield from (f"{word[:-1]} {place}: {_described(part)}" for place, part in enumerate(parts[:_PARTS]))
        if len(parts) > _PARTS:
            yield f"… and {len(parts) - _PARTS} more {word}"
    for word in ("stop_reason", "status"):
        if word in summary:
            yield f"{word}: {quoted(summary[word])}"
    usage = summary.get("usage")
    if isinstance(usage, dict):
        yield "usage: " + ", ".join(f"{quoted(k)[1:-1]} {v}" for k, v in usage.items() if isinstance(v, int))[:300]
    if summary.get("error") is not None:
        yield f"error: {_error(summary['error'])}"
    yield f"ended: {summary.get('ended')}"


def _described(part: Mapping[str, Any]) -> str:
    words = [quoted(part[name])[1:-1] for name in ("type", "name") if isinstance(part.get(name), str)]
    characters = part.get("characters")
    if isinstance(characters, dict):
        words += [f"{number} characters of {name}" for name, number in characters.items() if number]
        words += [f"tool call {quoted(call['name'])}, {call['characters']} characters" for call in part["tool_calls"][:_PARTS]]
        words.append(f"finish_reason {quoted(part['finish_reason'])}")
    elif isinstance(characters, int):
        words.append(f"{characters} characters")
    return ", ".join(words)


def _error(error: object) -> str:
    if not isinstance(error, dict):
        return quoted(error)
    return ", ".join(f"{name} {quoted(error[name])}" for name in ("type", "code", "message") if error.get(name) is not None)
