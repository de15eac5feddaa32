"""What a person decides on shows every character that is in it."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from io import StringIO

import pytest
from rich.console import Console

from luthien_asgi.approval_routes import printable as as_json
from luthien_asgi.demo.screen import Scene
from luthien_asgi.invisible import is_visible, shows_all
from luthien_asgi.logs import one_line, printable
from luthien_asgi.testing import showing

UNSEEN = {
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "arabic mark": "\u061c",
    "choseong filler": "\u115f",
    "jungseong filler": "\u1160",
    "khmer vowel": "\u17b4",
    "mongolian selector": "\u180b",
    "mongolian separator": "\u180e",
    "zero width space": "\u200b",
    "joiner": "\u200d",
    "override": "\u202e",
    "word joiner": "\u2060",
    "unassigned": "\u2065",
    "isolate": "\u2066",
    "hangul filler": "\u3164",
    "selector": "\ufe0f",
    "byte order mark": "\ufeff",
    "halfwidth filler": "\uffa0",
    "special": "\ufff0",
    "shorthand": "\U0001bca0",
    "musical control": "\U0001d173",
    "tag": "\U000e0041",
    "selector supplement": "\U000e0100",
    "unassigned tag": "\U000e0fff",
    "braille blank": "\u2800",
    "khitan filler": "\U00016fe4",
    "null notehead": "\U0001d159",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "escape": "\x1b",
    "half an emoji": "\ud83d",
}
NAMED = re.compile(
    r"VARIATION SELECTOR|HANGUL .*FILLER|KHITAN .*FILLER|"
    r"ZERO WIDTH|INVISIBLE|INHERENT|GRAPHEME JOINER|WORD JOINER|PATTERN BLANK|^TAG |NULL NOTEHEAD"
)
SEEN = "rm -rf / café 日本語 한글 العربية ⠃ 🙂 ﬁ e\u0301"


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nobody_sees_is_written_as_its_escape(name: str) -> None:
    """In the listing of approvals, in the log, in the demonstration and in what `validate` prints."""
    letter = UNSEEN[name]
    text = f"rm{letter}-rf"
    assert not is_visible(letter)
    assert not shows_all(text)
    listed = as_json({"command": text}).decode()
    assert json.loads(listed) == {"command": text}
    scene = Scene(text, text)
    scene.add("model", "text", text)
    screen = Console(width=100, file=StringIO())
    screen.print(scene)
    assert isinstance(screen.file, StringIO)
    for shown in (listed, printable(text), one_line(text), showing.printable(text), screen.file.getvalue()):
        assert letter not in shown
        assert "\\" in shown


def test_what_unicode_names_as_unseen_is_not_visible() -> None:
    """By the characters' names and categories; what is visible stays as it is."""
    for code in range(sys.maxunicode + 1):
        name, category = unicodedata.name(chr(code), ""), unicodedata.category(chr(code))
        if category in {"Cc", "Cf", "Zl", "Zp", "Cs"} or NAMED.search(name):
            assert not is_visible(chr(code)), name
    assert all(is_visible(letter) for letter in SEEN)
    assert printable(SEEN) == one_line(SEEN) == SEEN
    assert SEEN in as_json(SEEN).decode()
