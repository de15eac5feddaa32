"""What is kept for a while."""

from __future__ import annotations

from luthien_asgi.backend.recent import Recent


def test_a_value_is_there_until_its_time_is_over() -> None:
    """Its age counts from when it was put, however often it is used."""
    now = 0.0
    recent = Recent[str](seconds=60, clock=lambda: now)
    recent.put("a", "x")
    now = 59.9
    assert recent.get("a") == "x"
    now = 60.0
    assert recent.get("a") is None
    recent.put("a", "y")
    assert recent.get("a") == "y"


def test_the_one_that_was_used_the_longest_ago_makes_room() -> None:
    """So a wildcard's many models push out each other, and not the one that everybody uses."""
    recent = Recent[int](most=2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]


def test_what_is_forgotten_is_gone() -> None:
    """Twice is once."""
    recent = Recent[int]()
    recent.put("a", 1)
    recent.forget("a")
    recent.forget("a")
    assert recent.get("a") is None
