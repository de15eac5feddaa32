"""A policy that says which models may be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from luthien_asgi.context import PolicyContext
from luthien_asgi.names import shown_name
from luthien_asgi.policies.checks import checked_message, checked_names, first_match
from luthien_asgi.policy import Deny, Policy
from luthien_asgi.request import ChatRequest

__all__ = ["AllowModels"]

_MESSAGE: Final = "The model {model} may not be used here."


class AllowModels(Policy):
    """Refuse requests for models that are not allowed, with a 403.

    `allow` are the names of the models that may be asked for (all, when it is left out), `deny` those that may not, whatever
    `allow` says. Names are those that clients ask for (`model_name` in the configuration) and may hold `*`, `?` and `[…]`; upper
    and lower case do not count, since to some providers they do not. `message` is the error; `{model}` in it becomes the name.

    The name is judged before the model is called, so a refused request costs nothing; it is judged when tokens are counted, too.
    Which deployment a name stands for is the configuration's business (`model_list`), and no client can name another.
    """

    def __init__(self, *, allow: Sequence[str] | None = None, deny: Sequence[str] = (), message: str = _MESSAGE) -> None:
        if allow is None and not deny:
            msg = "give allow or deny: without either every model may be used"
            raise ValueError(msg)
        self.allow = _folded(checked_names(allow, "allow", "model names")) if allow is not None else None
        self.deny = _folded(checked_names(deny, "deny", "model names"))
        self.message = checked_message(message)

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> Deny | None:
        """Refuse a request whose model is denied, or not allowed."""
        del ctx
        name = request.model.casefold()
        if (rule := first_match([name], self.deny)) is not None:
            return self._refused(request, f"the model's name matches {rule!r}")
        if self.allow is not None and first_match([name], self.allow) is None:
            return self._refused(request, "the model is not among those allowed")
        return None

    def _refused(self, request: ChatRequest, reason: str) -> Deny:
        return Deny(self.message.replace("{model}", shown_name(request.model)), reason=reason)


def _folded(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.casefold() for name in names)
