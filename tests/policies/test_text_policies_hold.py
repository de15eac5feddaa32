"""The policies of texts keep what every policy promises, in every format, form and cut."""

from __future__ import annotations

import pytest

from luthien_asgi.policies import Redact, ReplaceText
from luthien_asgi.testing import assert_policy_holds

KEY = "a key of sixteen characters or more"
MAIL = "alice@example.com"


@pytest.mark.parametrize(
    ("policy", "examples"),
    [
        (ReplaceText(replacements=[["swordfish", "***"], ["fish", "meat"]]), ["swordfish", "fishsword"]),
        (ReplaceText(replacements=[{"pattern": r"\bsword(\w*)\b", "new": r"\1"}], where="both"), ["swordfish sword"]),
        (ReplaceText(replacements=[["swordfish", "tuna"]], match_case=True), ["SWORDFISH Swordfish"]),
    ],
)
def test_replace_text_holds(policy: ReplaceText, examples: list[str]) -> None:
    """Strings, expressions, cases."""
    assert_policy_holds(policy, examples=examples, canary="swordfish" if policy.where == "response" else "", cuts=1)


@pytest.mark.parametrize(
    "policy", [Redact(where="response", key=KEY), Redact(where="both", key=KEY, restore=True, thinking="pass")]
)
def test_redact_holds(policy: Redact) -> None:
    """What is masked does not reach the client in any field; what is restored does, whole."""
    masked = Redact(key=KEY).mask(MAIL)
    request = {"metadata": {"from": MAIL}} if policy.where == "both" else None
    canary = "" if policy.where == "both" else MAIL
    assert_policy_holds(policy, examples=[MAIL, f"<{masked}>, 4111 1111 1111 1111"], canary=canary, request=request, cuts=1)
