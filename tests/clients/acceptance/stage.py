"""One acceptance run: the provider, the gateways, the clients' cases in front of them, and the reports that come of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from acceptance.cases import Case, commands_in, script
from acceptance.checks import Report, of_case, report
from acceptance.clients import CLIENTS, Gateways
from acceptance.gateway import gateways
from luthien_asgi.testing import ScriptedProvider

__all__ = ["Stage", "stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the clients run in front of."""

    provider: ScriptedProvider
    gateways: Gateways
    folder: Path

    def reports(self, client: str, wanted: Sequence[Case], *, latest: bool = False) -> Iterator[Report]:
        """Run a client's cases and judge each. Raises `MissingError` where the client cannot be installed."""
        for outcome in CLIENTS[client].outcomes(client, wanted, self.gateways, self.folder, latest=latest):
            case = outcome.case
            tap = self.gateways[case.scenario.gateway].tap
            exchanges = of_case(case, tap.exchanges())
            (self.folder / case.name / "exchanges.jsonl").write_text("".join(exchange.line() + "\n" for exchange in exchanges))
            requests = [request for request in self.provider.requests if case.name in commands_in(request.body)]
            yield report(outcome, exchanges, requests)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Set the stage in a folder, which keeps configurations, logs, records and transcripts."""
    with ScriptedProvider(script) as provider, gateways(provider.url, folder) as running:
        yield Stage(provider, running, folder)
