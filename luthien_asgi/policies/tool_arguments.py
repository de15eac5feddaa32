"""A tool call's arguments as the policies that judge them read them: in one way only, or not at all.

Strategy: whoever runs the tool may read sloppy JSON otherwise than we do. What has more than one reading (no JSON, a name twice
in one object) is an error here, and a denial in the policy.
"""

from __future__ import annotations

import json
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block

__all__ = ["ArgumentsError", "read_arguments"]

LONGEST: Final = 1_000_000
"""Characters of one call's arguments; a longer call is not judged, so it is denied."""
DEEPEST: Final = 64
"""Nesting of one call's arguments (the limit of a request's nesting, by default)."""


class ArgumentsError(ValueError):
    """Arguments that have no certain reading; the message says why and quotes nothing of them."""


def read_arguments(block: Block) -> Any:  # noqa: ANN401 - any JSON value
    """Return a call's parsed arguments: `{}` when the model wrote none; of a custom tool its text. Raises `ArgumentsError`."""
    if len(block.text) > LONGEST:
        msg = f"the arguments are longer than {LONGEST} characters"
        raise ArgumentsError(msg)
    if block.custom:
        return block.text
    if not block.text.strip():
        return {}
    try:
        value = jsontext.loads(block.text)
    except ValueError:
        msg = "the arguments are not JSON"
        raise ArgumentsError(msg) from None
    if jsontext.depth_of(value, DEEPEST) > DEEPEST:
        msg = f"the arguments are nested more than {DEEPEST} deep"
        raise ArgumentsError(msg)
    _require_one_reading(block.text)
    return value


def _require_one_reading(text: str) -> None:
    try:
        json.loads(text, object_pairs_hook=_once, parse_int=str)
    except ArgumentsError:
        raise
    except (ValueError, RecursionError):
        msg = "the arguments are not JSON to every reader"
        raise ArgumentsError(msg) from None


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        msg = "the arguments have a name twice in one object"
        raise ArgumentsError(msg)
