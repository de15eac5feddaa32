"""Errors are values: a status, a type in the Anthropic API's words, a message for the client."""

from __future__ import annotations

import pytest

from luthien_asgi import errors
from luthien_asgi.errors import (
    ApiError,
    BackendError,
    ConfigError,
    PolicyTimeout,
    RequestDenied,
    StreamStateError,
    type_of_status,
)


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
        (418, "invalid_request_error"),
        (415, "invalid_request_error"),
        (599, "api_error"),
        (0, "api_error"),
    ],
)
def test_a_status_has_a_type(status: int, type_: str) -> None:
    """Known ones their own, unknown ones the nearest general one."""
    assert type_of_status(status) == type_
    assert ApiError("x", status=status).type == type_


@pytest.mark.parametrize(
    ("name", "status", "type_"),
    [
        ("ApiError", 500, "api_error"),
        ("RequestError", 400, "invalid_request_error"),
        ("RequestDenied", 403, "permission_error"),
        ("BackendError", 502, "api_error"),
        ("BackendTimeout", 504, "timeout_error"),
        ("PolicyError", 500, "api_error"),
        ("PolicyTimeout", 504, "timeout_error"),
        ("QueueFullError", 503, "overloaded_error"),
    ],
)
def test_each_class_has_its_status(name: str, status: int, type_: str) -> None:
    """Without arguments an error has its class's status and the type that goes with it."""
    error = getattr(errors, name)("what happened")
    assert (error.status, error.type, error.message, str(error)) == (status, type_, "what happened", "what happened")
    assert isinstance(error, ApiError)


def test_a_given_status_and_type_win_and_stay_with_the_one_error() -> None:
    """The next error of the class has the class's own again."""
    error = BackendError(
        "slow down", status=429, type="engine_overloaded", code="rpm", param="model", headers={"retry-after": "3"}
    )
    assert (error.status, error.type, error.code, error.param) == (429, "engine_overloaded", "rpm", "model")
    assert error.headers == {"retry-after": "3"}
    assert BackendError("x").status == 502


def test_headers_are_a_copy_and_never_shared() -> None:
    """A header added to one error is on no other."""
    given = {"retry-after": "3"}
    first, second = ApiError("x", headers=given), ApiError("x")
    first.headers["a"] = "b"
    assert given == {"retry-after": "3"}
    assert second.headers == ApiError("y").headers == {}


def test_what_the_client_must_not_see_is_no_api_error() -> None:
    """A wrong configuration and a defect of the encoder are not answers."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(StreamStateError, RuntimeError)
    assert not any(issubclass(kind, ApiError) for kind in (ConfigError, StreamStateError))


def test_timeouts_and_denials_can_be_caught_by_their_family() -> None:
    """A policy's timeout is a policy's error, a denial is not the client's mistake."""
    assert issubclass(PolicyTimeout, errors.PolicyError)
    assert issubclass(errors.BackendTimeout, BackendError)
    assert not issubclass(RequestDenied, errors.RequestError)
