"""The loggers of this package: what a client, a model or a provider wrote cannot make a line of the log, or a terminal's command.

Strategy: a filter on each of our loggers, before any handler has the record. Control characters of the message become escapes
and credentials a mask; the text of a traceback is written here, with each exception's own words on one line, and handed on as
`exc_text`, which formatters prefer. Lines that begin in the log are so ours and the traceback's, never those of a text.

The exception itself stays in `exc_info` for handlers that want the object; what they make of it is theirs.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Final

from luthien_asgi.invisible import is_visible, shows_all
from luthien_asgi.scrub import scrub

__all__ = ["logger_of", "one_line", "printable"]

_MESSAGE_CHARS: Final = 10_000
"""Longest message, or words of one exception, in the log: a provider's text may be megabytes."""
_CHAIN: Final = 20


def printable(text: str, *, keep: str = "\n") -> str:
    """Return a text in which what nobody sees is visible and does nothing: control characters, fillers, tags; `keep` stays."""
    if shows_all(text):
        return text
    return "".join(letter if is_visible(letter) or letter in keep else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


one_line = partial(printable, keep="")
"""Return a text on one line: line breaks are visible too, whichever of Unicode's."""


def logger_of(name: str) -> logging.Logger:
    """Return the logger of one of this package's modules."""
    logger = logging.getLogger(name)
    logger.addFilter(_FILTER)  # once: a logger has a filter or has it not
    return logger


class _Harmless(logging.Filter):
    """Lets every record through, without what could do harm in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        harmless = one_line(scrub(said[:_MESSAGE_CHARS]))
        if harmless != said:
            record.msg, record.args = harmless, ()
        if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = "".join(_traceback(traceback.TracebackException.from_exception(record.exc_info[1]))).rstrip("\n")
        return True


_FILTER: Final = _Harmless()


def _traceback(error: traceback.TracebackException, depth: int = 0) -> Iterator[str]:
    """Yield what Python writes about an exception and its causes; of each its words in one line."""
    if depth < _CHAIN:
        if error.__cause__ is not None:
            yield from _traceback(error.__cause__, depth + 1)
            yield "\nThe above exception was the direct cause of the following exception:\n\n"
        elif error.__context__ is not None and not error.__suppress_context__:
            yield from _traceback(error.__context__, depth + 1)
            yield "\nDuring handling of the above exception, another exception occurred:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from error.stack.format()
    words = "".join(error.format_exception_only()).removesuffix("\n")
    yield f"{one_line(scrub(words[:_MESSAGE_CHARS]))}\n"
    for inner in (error.exceptions or ()) if depth < _CHAIN else ():
        yield from _traceback(inner, depth + 1)
