"""Tells a person at a terminal that something takes a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

__all__ = ["working"]


@contextmanager
def working(message: str, *, console: Console) -> Iterator[None]:
    """Show a message while the block runs: a spinner on a terminal, one line when it begins and one when it is done elsewhere."""
    began = time.monotonic()
    if console.is_terminal:
        with console.status(f"{escape(message)} …"):
            yield
        console.print(f"{message}: {time.monotonic() - began:.1f} s", markup=False, highlight=False)
        return
    console.print(f"{message} …", markup=False, highlight=False)
    yield
    console.print(f"{message}: done after {time.monotonic() - began:.1f} s", markup=False, highlight=False)
