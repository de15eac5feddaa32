"""JSON as providers and clients write it, lone surrogates included.

msgspec does the work. What it refuses and RFC 8259 allows, `"\\ud83d"` alone (half an emoji, cut by a provider between two
chunks), goes through the standard library: so a pair split over two chunks survives.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import msgspec

__all__ = ["NestingError", "depth_of", "dumps", "has_more_items", "loads"]

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_CONTAINERS: Final = frozenset({dict, list})
_STRING: Final = re.compile(rb'"[^"]*"')


class NestingError(ValueError):
    """JSON that is nested beyond the interpreter's recursion limit."""


def loads(data: bytes | str) -> Any:  # noqa: ANN401 - JSON is any shape
    """Parse one JSON text.

    Raises `ValueError` on anything that is not JSON: syntax, NaN and Infinity, numbers beyond a double or of more digits than the
    interpreter converts, bytes that are not UTF-8; `NestingError` for nesting beyond the interpreter's recursion limit.
    """
    try:
        return _decode(data)
    except RecursionError:
        msg = "JSON is nested too deeply"
        raise NestingError(msg) from None
    except UnicodeDecodeError:
        msg = "JSON is not UTF-8"
        raise ValueError(msg) from None
    except (msgspec.MsgspecError, UnicodeEncodeError):  # the latter for a lone surrogate in a `str`
        return _loads_slowly(data)


def _loads_slowly(data: bytes | str) -> Any:  # noqa: ANN401
    try:
        # The standard library guesses the encoding of bytes; JSON on these wires is UTF-8 and nothing else.
        text = data if isinstance(data, str) else data.decode("utf-8")
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        msg = "JSON is nested too deeply"
        raise NestingError(msg) from None
    except UnicodeDecodeError:
        msg = "JSON is not UTF-8"
        raise ValueError(msg) from None


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        msg = "a number is beyond what a double holds"
        raise ValueError(msg)
    return value


def _refuse_constant(name: str) -> None:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def dumps(value: Any) -> bytes:  # noqa: ANN401
    """Write a value as compact JSON, one line, UTF-8; lone surrogates become `\\uXXXX` escapes."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def has_more_items(data: bytes, limit: int) -> bool:
    """Tell whether a JSON text has more than `limit` commas and opening brackets outside its strings.

    There are never more values than that, and one: so this bounds what parsing makes of a text before it makes it. It is a few
    passes in C over the bytes; of a text that is no JSON it is as much as a parser sees of it before its error.
    """
    if len(data) <= limit or _marks(data) <= limit:
        return False
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is left of quotes begins and ends strings
    if bare.count(b'"') > 4 * (limit + 1):  # each value is a string at most, and has a name at most
        return True
    return _marks(_STRING.sub(b"", bare)) > limit


def _marks(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def depth_of(value: Any, limit: int) -> int:  # noqa: ANN401
    """Return the nesting of a parsed value, or `limit + 1` as soon as it is deeper than `limit`."""
    level, depth = [value] if type(value) in _CONTAINERS else [], 0
    while level and depth <= limit:
        depth += 1
        insides = (item.values() if type(item) is dict else item for item in level)
        level = [child for inside in insides for child in inside if type(child) in _CONTAINERS]
    return depth
