"""JSON as providers and clients write it, lone surrogates included.

msgspec does the work. What it refuses and RFC 8259 allows, `"\\ud83d"` alone (half an emoji, cut by a provider between two
chunks), goes through the standard library: so a pair split over two chunks survives.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec

__all__ = ["depth_of", "dumps", "loads"]

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def loads(data: bytes | str) -> Any:  # noqa: ANN401 - JSON is any shape
    """Parse one JSON text.

    Raises `ValueError` on anything that is not JSON: syntax, NaN and Infinity, numbers beyond a double, bytes that are not
    UTF-8, nesting beyond the interpreter's recursion limit.
    """
    try:
        return _decode(data)
    except RecursionError:
        msg = "JSON is nested too deeply"
        raise ValueError(msg) from None
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
        raise ValueError(msg) from None
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


def depth_of(value: Any, limit: int) -> int:  # noqa: ANN401
    """Return the nesting of a parsed value, or `limit + 1` as soon as it is deeper than `limit`."""
    level, depth = [value], 0
    while level:
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return depth
        depth += 1
        if depth > limit:
            return depth
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return depth
