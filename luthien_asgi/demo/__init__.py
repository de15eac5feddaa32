"""The demonstration: a scripted model on loopback, a policy in front of it, and two clients that talk to it.

Nothing has to be configured and nothing leaves the machine. The model is scripted; the HTTP, LiteLLM and the policy are real.
"""

from __future__ import annotations

from luthien_asgi.demo.run import serve, show, show_policy

__all__ = ["serve", "show", "show_policy"]
