"""What credentials look like, by the vendors' own documentation.

Strategy: a table of expressions, one a vendor. A key with a prefix of its own is known by that; one without (AWS's secret, a
bearer token) by the word before it, and then the group `value` is the key and the word stays. Behind a letter or a digit a prefix
is not enough: there it is the form of the whole key. All lengths are bounded or of one character class, so no text makes the
search slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FIRST", "GLUED", "HINT", "KEYS", "NAMED_KEYS", "PRIVATE_KEY", "SECOND"]

KEYS: Final[Mapping[str, str]] = {
    "OpenAI, Anthropic, OpenRouter, DeepSeek and others": r"sk-(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{16,}",
    "AWS access key": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "GitHub": r"(?:gh[oprsu]_|github_pat_)[A-Za-z0-9_]{20,}",
    "GitLab": r"gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]+){0,3}",
    "Slack": r"(?:xox[abceoprs](?:\.xox[bp])?|xapp)-[A-Za-z0-9-]{10,}",
    "Slack webhook": r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,}",
    "Google": r"AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]+)*|GOCSPX-[A-Za-z0-9_-]{20,}",
    "Stripe": r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{24,}",
    "npm": r"npm_[A-Za-z0-9]{30,}",
    "PyPI": r"pypi-(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{32,}",
    "Hugging Face": r"(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "SendGrid": r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "Twilio": r"(?:AC|SK)[0-9a-f]{32}(?![A-Za-z0-9])",
    "JWT": r"eyJ(?:(?<![A-Za-z0-9_-]eyJ)[A-Za-z0-9_-]{8,}+|[A-Za-z0-9_-]{8,1024}+)\.[A-Za-z0-9_-]{4,}+(?:\.[A-Za-z0-9_-]*){1,3}",
    "Groq, xAI, Perplexity, NVIDIA, Replicate, Fireworks": r"(?:gsk_|xai-|pplx-|nvapi-|r8_|fw_)[A-Za-z0-9_-]{20,}",
    "DigitalOcean, Databricks": r"do[oprt]_v1_[0-9a-f]{32,}|dapi[0-9a-f]{32}(?:-\d)?",
    "Shopify, Square": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}",
    "Docker, Vault, Postman, New Relic": r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}|hv[bsr]\.[A-Za-z0-9_-]{20,}"
    r"|PMAK-[0-9a-f]{20,}(?:-[0-9a-f]+)?|NRAK-[A-Z0-9]{20,}",
    "Notion, Linear, Supabase, Sentry, Pinecone": r"(?:ntn|lin_api|sbp|sntrys|pcsk)_[A-Za-z0-9_=+/-]{20,}",
    "Atlassian, age": r"AT[AC]TT3[A-Za-z0-9_=-]{20,}|AGE-SECRET-KEY-1[0-9A-Z]{50,}",
}
"""Keys that a prefix gives away."""

_MIXED: Final = r"(?=[A-Za-z]{0,64}[0-9])(?=[a-z0-9]{0,64}[A-Z])"
GLUED: Final[Mapping[str, str]] = {
    "Anthropic, OpenRouter": r"sk-(?:ant-[a-z]{2,10}[0-9]{2}-[A-Za-z0-9_-]{16,}|or-v1-[0-9a-f]{32,})",
    "OpenAI": r"sk-[A-Za-z0-9_-]{16,128}?T3BlbkFJ[A-Za-z0-9_-]{16,}",
    "AWS access key": r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|(?<![A-Z])(?:ASIA|ABIA|ACCA)(?=[A-Z]{0,15}[0-9])[A-Z0-9]{16}(?![A-Za-z0-9])",
    "GitHub": r"gh[oprsu]_(?=[A-Za-z]{0,35}[0-9])[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{20,}",
    "GitLab": r"glpat-[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]+){0,3}",
    "Slack": r"xox[abceoprs]-[0-9]{6,}-[A-Za-z0-9-]{10,}",
    "Google": r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])|GOCSPX-[A-Za-z0-9_-]{20,}",
    "Stripe": rf"[sr]k_(?:live|test)_{_MIXED}[A-Za-z0-9]{{20,}}|whsec_[A-Za-z0-9+/=]{{24,}}",
    "npm, PyPI": r"npm_(?=[A-Za-z]{0,35}[0-9])[A-Za-z0-9]{36}(?![A-Za-z0-9_])|pypi-AgEI[A-Za-z0-9_-]{32,}",
    "Hugging Face": r"hf_[A-Za-z0-9]{34}(?![A-Za-z0-9_])",
    "SendGrid": r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
    "JWT": r"eyJ[A-Za-z0-9_-]{8,256}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{16,}",
    "Groq, xAI, Perplexity, NVIDIA": r"(?:gsk_|xai-|pplx-)(?=[A-Za-z]{0,39}[0-9])[A-Za-z0-9]{40,}|nvapi-[A-Za-z0-9_-]{60,}",
    "DigitalOcean, Shopify, Docker": r"do[oprt]_v1_[0-9a-f]{64}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}(?![A-Za-z0-9])"
    r"|dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}",
    "Supabase, Postman, Sentry": r"sbp_[0-9a-f]{40}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|sntrys_eyJ[A-Za-z0-9_=+/-]{20,}",
    "Atlassian, age": r"AT[AC]TT3[A-Za-z0-9_=-]{60,}|AGE-SECRET-KEY-1[0-9A-Z]{58}",
}
"""The same keys where a letter or a digit is before them: only what is told by its form alone. Words end like the beginnings of
the others (`task-…`, `laughs_…`, `HMAC…`, `berlin_api_…`), and names and hashes follow them.
"""

_IS: Final = r"""\\{0,3}["']?\s{0,4}[:=]\s{0,4}\\{0,3}["']?"""

NAMED_KEYS: Final[Mapping[str, str]] = {
    "AWS secret": r"(?i:secret[_ -]?(?:access[_ -]?)?key)" + _IS + r"(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    "Azure storage": r"(?i:account[_ -]?key)" + _IS + r"(?P<value>[A-Za-z0-9+/]{86}==)",
    "Twilio token": r"(?i:twilio[\w .-]{0,24}token)" + _IS + r"(?P<value>[0-9a-f]{32})(?![A-Za-z0-9])",
    "bearer token": r"(?i:bearer)[\s:]{1,4}(?P<value>(?=[^\s0-9]{0,256}[0-9])[A-Za-z0-9._~+/-]{16,}=*)",
    "basic authorization": r"(?i:authorization)" + _IS + r"(?i:basic)\s{1,4}(?P<value>[A-Za-z0-9+/]{8,}=*)",
}
"""Keys that the word before them gives away."""

HINT: Final = (
    r"sk-|AKIA|ASIA|ABIA|ACCA|gh[oprsu]_|github_pat_|gl[a-z]{2,5}-|xox|xapp-|hooks\.slack|AIza|ya29|GOCSPX|[sr]k_(?:live|test)"
    r"|whsec_|npm_|pypi-|hf_|api_org_|SG\.|(?:AC|SK)[0-9a-f]{32}|eyJ|gsk_|xai-|pplx-|nvapi-|r8_|fw_|_v1_|dapi|shp|sq0|dckr_"
    r"|hv[bsr]\.|PMAK|NRAK|ntn_|lin_api|sbp_|sntrys|pcsk|TT3|AGE-S|(?i:secret|account.?key|twilio|bearer|basic)"
)
"""What every text with a key in it matches, and few others do: looked for first, because it is quick."""

FIRST: Final = "[sSkAGgxhyrwnpePNdflatTbB]"
SECOND: Final = "[kKSBCITGhilotaOpyfrsvwbqcndMRUuEeW8H]"
"""The two characters that a key, or the word before one, begins with: most texts are passed over because of them."""

_DASHES: Final = "-----"
_GAP: Final = r"(?:\s|\\+[nrt]|[>|\"',+#*]|(?<=[\s>|#*])\d{1,6}(?=[\s:|→])|[:→])"
"""What stands between the lines of a key that is quoted: white space, also as an escape, numbers of lines, marks."""

_MARK: Final = rf"[A-Z0-9 ]{{0,30}}PRIVATE KEY(?: BLOCK)?{_DASHES}"
_LINE: Final = r"(?:[A-Za-z-]{4,20}: [^\n\\]{1,200}|[A-Za-z0-9+/=]{16,})"
_LAST: Final = r"[A-Za-z0-9+/=]{1,15}(?![A-Za-z0-9+/=])"

PRIVATE_KEY: Final = (
    rf"{_DASHES}BEGIN {_MARK}"
    rf"(?:[\s\S]{{0,16384}}?{_DASHES}END {_MARK}|(?:{_GAP}*+{_LINE})*+(?:{_GAP}*+{_LAST})?)"
)
"""A private key from its first line to its last; one that breaks off, as far as it looks like one."""
