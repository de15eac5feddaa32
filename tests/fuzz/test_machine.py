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


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
def test_a_client_that_reads_again_too_late_is_told_that_the_answer_failed(client: str, backend: str) -> None:
    """After `queue_timeout` and before `send_timeout`: all that was written for it comes, and the error of its format."""
    machine = AnswerMachine()
    machine.begin(client=client, backend=backend, stream=True, text="observe", thinking="pass", call="pass", opened=True)
    try:
        machine.the_client_stops_or_begins_to_read()
        machine.it_says_a_lot(packets=60)
        machine.time_passes(seconds=22.0)
        machine.the_client_stops_or_begins_to_read()
        machine.time_passes(seconds=1.0)
        machine.it_ends_once()
        assert machine.task.done()
        assert machine.client.watch.complete
        assert machine.client.watch.finish() == []
        assert [end.ending for end in machine.recorder.ended] == ["failed"]
        assert b"The client did not take the answer in time." in machine.client.bytes
    finally:
        machine.teardown()


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
