"""What LiteLLM made of a call, remembered, so that the next call like it need not ask LiteLLM.

Strategy: where the body is ours, LiteLLM is called with a minimal message, the operator's `litellm_params` and nothing of what
the client wrote; it contributes the address, the headers and what the body lacks (`luthien_asgi.backend.sending.Made`). That is
a function of the call's arguments and of LiteLLM's settings: the key. So with one that is known our body is put into a copy of
what LiteLLM made last time. The first call of every key is LiteLLM's.

An error is LiteLLM's too: what came is handed to it in a plain call that sends nothing, so whatever it makes of an error, and
whoever it tells, is the same; and what was remembered is forgotten.

Not remembered are calls for which LiteLLM may do more, or something else each time:

- of providers that are not in `known.REMEMBERED`, and of Anthropic's without a key of a fixed value, for which it gets tokens;
- with parameters that are not plain JSON, or that a credential is made of (`known.PARAMETER_PREFIXES`);
- while a setting of LiteLLM's in `known.PLAIN_CALL_SETTINGS` is on: callbacks, rules, budgets, a cache, a secret manager, …

What a key cannot say (LiteLLM's table of models) is noticed after a minute (`luthien_asgi.backend.recent`). A key is a keyed
hash, so no credential is in it; a client's own credential is not in what is remembered either.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.backend import known
from luthien_asgi.backend.models import Deployment
from luthien_asgi.backend.recent import Recent
from luthien_asgi.backend.sending import Made

__all__ = ["Memory", "key_of"]

_HOLE: Final = "\0"
"""Stands for a client's own credential; no header can have it."""
_SALT: Final = secrets.token_bytes(32)
_SETTINGS_OF_ANTHROPICS_KEY: Final = ("anthropic_key", "api_key")
_VARIABLES_OF_ANTHROPICS_KEY: Final = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


class Memory:
    """What LiteLLM made, by key."""

    def __init__(self) -> None:
        self._recent = Recent[Made]()

    def get(self, key: bytes, credential: str | None) -> Made | None:
        """Return what was made for a key; `credential` is the client's own, where the call spends it."""
        made = self._recent.get(key)
        return made if made is None or credential is None else _with_hole(made, _HOLE, credential)

    def put(self, key: bytes, made: Made, credential: str | None) -> None:
        """Remember what was made for a key."""
        self._recent.put(key, made if credential is None else _with_hole(made, credential, _HOLE))

    def forget(self, key: bytes) -> None:
        """Have LiteLLM make the next one."""
        self._recent.forget(key)


def _with_hole(made: Made, old: str, new: str) -> Made:
    return replace(made, headers={name: value.replace(old, new) for name, value in made.headers.items()})


def key_of(litellm: Any, deployment: Deployment, arguments: Mapping[str, Any]) -> bytes | None:  # noqa: ANN401
    """Return what decides what LiteLLM makes of a call, as a hash; None where it may not be remembered."""
    variables = known.REMEMBERED.get(deployment.provider)
    if variables is None or not arguments.get("no-log") or _does_more(litellm):
        return None
    if any(name.startswith(known.PARAMETER_PREFIXES) for name in arguments):
        return None
    if deployment.provider == "anthropic" and not _has_fixed_key(litellm, arguments):
        return None
    settings = [getattr(litellm, name, None) for name in known.KEY_SETTINGS]
    ambient = [os.environ.get(name) for name in (*known.KEY_VARIABLES, *variables)]
    try:
        said = jsontext.dumps([deployment.provider, arguments, settings, ambient])
    except (TypeError, ValueError):
        return None
    return hashlib.blake2b(said, key=_SALT, digest_size=16).digest()


def _does_more(litellm: Any) -> bool:  # noqa: ANN401
    settings = vars(litellm)
    return any(map(settings.get, known.PLAIN_CALL_SETTINGS)) or logging.getLogger("LiteLLM").isEnabledFor(logging.DEBUG)


def _has_fixed_key(litellm: Any, arguments: Mapping[str, Any]) -> bool:  # noqa: ANN401
    """Tell whether the key is a text that somebody configured: without one LiteLLM exchanges an identity for a token."""
    found = [arguments.get("api_key")]
    found += [getattr(litellm, name, None) for name in _SETTINGS_OF_ANTHROPICS_KEY]
    found += [os.environ.get(name) for name in _VARIABLES_OF_ANTHROPICS_KEY]
    return any(isinstance(key, str) and key.strip() for key in found)
