"""The backend: LiteLLM's reach, the provider's own words. The only package that imports `litellm`, and lazily."""

from __future__ import annotations

from luthien_asgi.backend.protocol import Backend, BackendCall, BackendStream, Target
from luthien_asgi.backend.service import LiteLLMBackend

__all__ = ["Backend", "BackendCall", "BackendStream", "LiteLLMBackend", "Target"]
