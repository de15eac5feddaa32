"""Every name that LiteLLM gives a meaning to, walked from the LiteLLM and the SDK that are installed.

Strategy: signatures (what its functions take by name), its own lists and models of settings, and what its sources pick out of
`**kwargs` and the dicts that they become. So a name that a new release learns is here the day that the release is installed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from luthien_asgi.backend.hygiene import load_now

_HOLDERS = (
    "kwargs",
    "params",
    "litellm_params",
    "litellm_params_dict",
    "optional_params",
    "optional_param_args",
    "non_default_params",
    "passed_params",
    "special_params",
    "extra_body",
    "data",
    "metadata",
    "litellm_metadata",
    "model_call_details",
    "secret_fields",
    "headers",
    "extra_headers",
)
"""Variables in which LiteLLM's sources keep what somebody gave it by name."""
_HOLDER = rf"(?<![\w])(?:{'|'.join(_HOLDERS)})"
_PICKED = re.compile(rf"""{_HOLDER}\s*(?:\.(?:get|pop|setdefault)\(\s*|\[\s*)["']([\w.-]+)["']""")
_ASKED_FOR = re.compile(rf"""["']([\w.-]+)["']\s+(?:not\s+)?in\s+{_HOLDER}\b""")
_ELSEWHERE = frozenset({"proxy", "tests", "integrations", "enterprise"})
"""Packages of LiteLLM that a call of `acompletion` has no part in: its own gateway, and its loggers."""


@cache
def litellm_names() -> frozenset[str]:
    """The names, some 1 600 in LiteLLM 1.106."""
    load_now()
    return frozenset({*_of_signatures(), *_of_lists(), *_of_models(), *_of_sources()})


def _of_signatures() -> Iterator[str]:
    import litellm
    from litellm.litellm_core_utils.get_litellm_params import get_litellm_params
    from openai.resources.chat.completions import AsyncCompletions

    functions: tuple[Any, ...] = (
        litellm.acompletion,
        litellm.completion,
        litellm.aresponses,
        litellm.anthropic_messages,
        litellm.get_optional_params,
        litellm.Router.__init__,
        get_litellm_params,
        AsyncCompletions.create,
    )
    for function in functions:
        yield from (name for name in inspect.signature(function).parameters if name not in {"self", "args", "kwargs"})


def _of_lists() -> Iterator[str]:
    from litellm import constants
    from litellm.types import utils

    yield from utils.all_litellm_params
    yield from constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES
    yield from constants.OPENAI_CHAT_COMPLETION_PARAMS


def _of_models() -> Iterator[str]:
    import pydantic
    from litellm.types import router

    for found in vars(router).values():
        if inspect.isclass(found) and issubclass(found, pydantic.BaseModel):
            yield from found.model_fields


def _of_sources() -> Iterator[str]:
    import litellm

    root = Path(str(litellm.__file__)).parent
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] in _ELSEWHERE:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        yield from _PICKED.findall(text)
        yield from _ASKED_FOR.findall(text)
