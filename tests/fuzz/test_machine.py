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
