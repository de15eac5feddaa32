"""How many decisions a person may be asked for, measured in what was scored."""

from __future__ import annotations

import threading
from typing import Final

from luthien_asgi.policies.checks import checked_number, checked_whole

__all__ = ["AuditBudget"]

_ROUNDING: Final = 1e-9
"""Shares like 0.1 add up to a little less than they should."""


class AuditBudget:
    """A share of the calls that were scored: each one scored earns `share` of an audit, and an audit spends a whole one.

    Unspent audits are saved up to `burst`, with which it begins: so of any n calls in a row at most `burst + n * share` are
    audited. Calls are counted and not hours, so that the same calls have the same audits; and a share, unlike a number, is the
    same for one process and for several that each count their own.

    This is the one thing that a monitor knows beyond a transaction, and it is an object of its own for that reason: a policy
    holds configuration alone. Hand one budget to several policies, and they share it. Raises `ValueError`.
    """

    def __init__(self, share: float, *, burst: int = 1) -> None:
        self.share = checked_number(share, "audit_budget", low=0, high=1)
        self.burst = checked_whole(burst, "burst", low=1)
        self._lock = threading.Lock()
        self._saved = float(self.burst) if self.share else 0.0

    def earn(self) -> None:
        """Count a call that was scored."""
        with self._lock:
            self._saved = min(self._saved + self.share, float(self.burst))

    def spend(self) -> bool:
        """Take one audit; tell whether there was one."""
        with self._lock:
            if self._saved < 1 - _ROUNDING:
                return False
            self._saved -= 1
            return True
