"""The policies that ship with the package: small, useful, and examples of how to write one's own."""

from __future__ import annotations

from luthien_asgi.policies.allow_models import AllowModels
from luthien_asgi.policies.deny_tools import DenyTools
from luthien_asgi.policies.guard_shell import GuardShell
from luthien_asgi.policies.guard_sql import GuardSql
from luthien_asgi.policies.limit_output import LimitOutput
from luthien_asgi.policies.plain_rules import PlainRules
from luthien_asgi.policies.redact import Redact
from luthien_asgi.policies.replace_text import ReplaceText
from luthien_asgi.policies.tool_call_judge import ToolCallJudge
from luthien_asgi.policies.trusted_monitor import TrustedMonitor
from luthien_asgi.policies.upper_case import UpperCase

__all__ = [
    "AllowModels",
    "DenyTools",
    "GuardShell",
    "GuardSql",
    "LimitOutput",
    "PlainRules",
    "Redact",
    "ReplaceText",
    "ToolCallJudge",
    "TrustedMonitor",
    "UpperCase",
]
