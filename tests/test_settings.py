"""Settings: every number has a name, a unit, a reason, and a check."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from typing import Any

import pytest

from luthien_asgi import settings
from luthien_asgi.settings import Limits, StreamSettings

TIMES = [field.name for field in dataclasses.fields(StreamSettings) if isinstance(field.default, int | float)]
LIMITS = [field.name for field in dataclasses.fields(Limits)]
MAY_BE_ZERO = {"usage_timeout", "drain_timeout", "commit_after"}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf, True, None, [1]])
def test_a_number_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    """Negative, not a number, a truth value or missing: the error names the setting."""
    with pytest.raises(ValueError, match=name):
        StreamSettings(**{name: value})


@pytest.mark.parametrize("name", TIMES)
def test_zero_is_refused_where_it_would_mean_never(name: str) -> None:
    """Only what may be switched off may be 0."""
    if name in MAY_BE_ZERO:
        assert getattr(StreamSettings(**{name: 0}), name) == 0
    else:
        with pytest.raises(ValueError, match=name):
            StreamSettings(**{name: 0})


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "10"])
def test_a_limit_is_a_positive_whole_number(name: str, value: Any) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})
    assert getattr(Limits(**{name: 7}), name) == 7


@pytest.mark.parametrize("value", ["", "Comment", "data", 1, None])
def test_the_ping_is_one_of_three(value: Any) -> None:
    """A shape that is none is refused."""
    with pytest.raises(ValueError, match="openai_ping"):
        StreamSettings(openai_ping=value)


@pytest.mark.parametrize("value", ["", "  \n"])
def test_a_blank_notice_is_refused(value: str) -> None:
    """Providers refuse a blank assistant message, which is what the notice is there to avoid."""
    with pytest.raises(ValueError, match="empty_notice"):
        StreamSettings(empty_notice=value)


@pytest.mark.parametrize("name", ["first_chunk_timout", "timeout"])
def test_a_misspelt_setting_is_an_error(name: str) -> None:
    """It is not swallowed."""
    with pytest.raises(TypeError, match=name):
        StreamSettings(**{name: 1})


@pytest.mark.parametrize("kind", [StreamSettings, Limits])
def test_settings_cannot_be_changed_afterwards(kind: type[Any]) -> None:
    """They are shared by all requests."""
    made = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(kind)[0].name, 1)


@pytest.mark.parametrize("kind", [StreamSettings, Limits])
def test_every_setting_says_what_it_is_for(kind: type[Any]) -> None:
    """A docstring follows each field."""
    body = ast.parse(inspect.getsource(settings)).body
    node = next(item for item in body if isinstance(item, ast.ClassDef) and item.name == kind.__name__)
    followers = {
        item.target.id: after
        for item, after in zip(node.body, node.body[1:], strict=False)
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    assert set(followers) == {field.name for field in dataclasses.fields(kind)}
    assert all(isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) for after in followers.values())


def test_the_defaults_fit_each_other() -> None:
    """A ping comes before the clients' patience of 15 s ends, and a clean-up before gunicorn's 3 s do."""
    defaults = StreamSettings()
    assert defaults.ping_interval < 15
    assert defaults.close_timeout < 3
    assert defaults.stall_timeout < defaults.total_timeout
    assert defaults.queue_size == 10_000
    assert defaults.queue_bytes == 8 * 1024 * 1024
