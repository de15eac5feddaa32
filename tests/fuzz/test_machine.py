"""Random interleavings of provider, policy, client and clock: a moderate number here, more with `LUTHIEN_FUZZ_EXAMPLES`."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from machine import LETS_PASS, AnswerMachine

TestAnswers = pytest.mark.lets_pass(*LETS_PASS)(pytest.mark.broken_off(AnswerMachine.TestCase))
TestAnswers.settings = settings(
    max_examples=int(os.environ.get("LUTHIEN_FUZZ_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.broken_off
@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
def test_a_client_that_does_not_read_stops_the_reading_of_the_provider(client: str) -> None:
    """One row of what the machine does, so that its bound is known to be reached: it was read far, and no further."""
    machine = AnswerMachine()
    machine.begin(client=client, backend="openai", stream=True, text="pass", thinking="pass", call="pass", opened=True)
    try:
        machine.it_says_a_lot(packets=5)
        machine.the_client_stops_or_begins_to_read()
        machine.it_says_a_lot(packets=60)
        machine.what_is_kept_is_bounded()
        response = machine.backend.response
        assert response is not None
        assert response.waiting
    finally:
        machine.teardown()
