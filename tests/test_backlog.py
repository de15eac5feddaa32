"""What a rewriting policy keeps back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi.backlog import Backlog


@given(st.lists(st.text("ab", max_size=5)), st.data())
def test_beginnings_are_taken_off_whatever_the_cuts_are(fragments: list[str], data: st.DataObject) -> None:
    """What was added and what was taken are one text, or the first difference is told."""
    backlog, text = Backlog(), ""
    for fragment in fragments:
        backlog.add(fragment)
        text += fragment
        size = data.draw(st.integers(0, len(text)))
        assert backlog.take(text[:size])
        text = text[size:]
        assert bool(backlog) is bool(text)
    wrong = data.draw(st.text("abc"))
    if not text.startswith(wrong):
        assert not backlog.take(wrong)
    else:
        assert backlog.clear() == text
        assert not backlog


def test_more_than_there_is_cannot_be_taken() -> None:
    """It is no beginning."""
    backlog = Backlog()
    backlog.add("ab")
    assert not backlog.take("abc")
    assert backlog.clear() == ""
