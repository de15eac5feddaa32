"""Real clients through real gateways. The same cases as `run.py`, where they can be read about in the README beside it."""

from __future__ import annotations

import pytest
from acceptance.clients import CLIENTS
from acceptance.installs import NODE_CLIENTS, MissingError
from acceptance.stage import Stage

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    "client",
    [pytest.param(name, marks=pytest.mark.clients_node if name in NODE_CLIENTS else pytest.mark.clients) for name in CLIENTS],
)
def test_a_client_runs_its_tool_loop(client: str, set_stage: Stage) -> None:
    """Allowed commands ran, denied ones did not, every request was answered once, and every history was accepted."""
    if not CLIENTS[client].cases:
        pytest.skip(f"{client}: the gateway does not answer its API")
    try:
        reports = list(set_stage.reports(client, CLIENTS[client].cases))
    except MissingError as error:
        pytest.skip(f"{client}: {error}")
    assert {report.case.name: report.problems for report in reports if report.problems} == {}
    assert len(reports) == len(CLIENTS[client].cases)
