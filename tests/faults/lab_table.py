"""All rows of the matrix, in their order."""

from __future__ import annotations

from typing import Final

import lab_client_rows
import lab_policy_rows
import lab_provider_rows
import lab_recorder_rows
from lab_rows import Row

GROUPS: Final = ("provider", "client", "policy", "recorder")


def all_rows() -> list[Row]:
    """Return every row."""
    modules = (lab_provider_rows, lab_client_rows, lab_policy_rows, lab_recorder_rows)
    return [row for module in modules for row in module.rows()]
