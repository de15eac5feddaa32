"""What can go wrong with an HTTP response as a whole: its headers, how its body is coded, and where it ends.

They go where the faults of an answer go, and together with those: `Answer("Hi", faults=[Gzip(), LongLine(after=2)])` is a bomb.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ContentType", "Gzip", "HeaderBomb", "Headers", "HttpFault", "Informational", "Trailing", "WrongLength"]


@dataclass(frozen=True, slots=True)
class ContentType:
    """Another content type than the body has, or with None no such header."""

    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gzip:
    """The header says gzip. The body is, each event flushed by itself; or, `honest=False`, it is not."""

    honest: bool = True


@dataclass(frozen=True, slots=True, init=False)
class Headers:
    """More headers, as they are given: one that is there already is there twice then."""

    fields: tuple[tuple[str, str], ...]

    def __init__(self, *fields: tuple[str, str]) -> None:
        object.__setattr__(self, "fields", fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderBomb:
    """Headers of so many bytes in all, `line` bytes each."""

    size: int = 16 * 1024 * 1024
    line: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Informational:
    """Responses with a status of 1xx before the one that counts."""

    status: int = 103
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongLength:
    """A Content-Length that is wrong by so many bytes, in the place of chunked coding.

    With too large a number the connection is closed where the body ends. With too small a one it stays open, and what is over
    follows the response.
    """

    by: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailing:
    """Bytes after the response's end, on a connection that stays open: what a client that uses it again takes for an answer.

    They come so many seconds after it; in the meantime the client may have put the connection by.
    """

    seconds: float = 0.0
    data: bytes = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


HttpFault = ContentType | Gzip | Headers | HeaderBomb | Informational | WrongLength | Trailing
