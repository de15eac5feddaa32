"""What the demonstration shows: on the left what the model said, on the right what the client got."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from luthien_asgi.logs import printable

__all__ = ["Board", "Scene", "Side"]

Side = Literal["model", "client"]

_STYLES: Final = {
    "thinking": "dim italic",
    "tool_call": "bold yellow",
    "request": "dim",
    "judge": "italic magenta",
    "person": "italic cyan",
    "error": "bold red",
}


@dataclass(slots=True)
class _Piece:
    """One block on one side."""

    kind: str
    text: str


@dataclass(slots=True)
class Scene:
    """One turn of one conversation. The gateway's thread writes one side, the client's the other."""

    title: str
    question: str
    pieces: dict[Side, list[_Piece]] = field(default_factory=lambda: {"model": [], "client": []})
    received: bytes = b""
    """What the client got, as it came."""

    def begin(self, side: Side, kind: str, text: str = "") -> None:
        """Begin a block on one side."""
        self.pieces[side].append(_Piece(kind, text))

    def add(self, side: Side, kind: str, text: str) -> None:
        """Add to the last block of a side, or begin one if that is of another kind."""
        pieces = self.pieces[side]
        if not pieces or pieces[-1].kind != kind:
            self.begin(side, kind)
        pieces[-1].text += text

    def text_of(self, side: Side) -> str:
        """Return all that was written on one side, one block a line."""
        return "\n".join(piece.text for piece in self.pieces[side])

    def __rich__(self) -> RenderableType:
        """Return both sides next to each other."""
        table = Table("what the model said", "what the client got", box=ROUNDED, expand=True, header_style="dim")
        for column in table.columns:
            column.ratio = 1
        table.add_row(self._lines("model"), self._lines("client"))
        return Group(Rule(Text(printable(self.title), style="bold")), Text(printable(f"> {self.question}")), table)

    def _lines(self, side: Side) -> RenderableType:
        # The list is copied: the other thread may add to it meanwhile.
        return Group(*(Text(printable(piece.text), style=_STYLES.get(piece.kind, "")) for piece in [*self.pieces[side]]))


class Board:
    """The scenes so far. The one in progress is the last."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []

    def open(self, title: str, question: str) -> Scene:
        """Begin a scene and return it."""
        self.scenes.append(Scene(title, question))
        return self.scenes[-1]

    def model_says(self, kind: str, text: str, *, new: bool) -> None:
        """Write on the model's side of the scene in progress."""
        scene = self.scenes[-1]
        if new:
            scene.begin("model", kind)
        scene.add("model", kind, text)

    def reached_clients(self, text: str) -> bool:
        """Tell whether a text is on the client's side of any scene, or in what a client received."""
        return any(text in scene.text_of("client") or text.encode() in scene.received for scene in self.scenes)
