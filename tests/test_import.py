"""Importing the package costs next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import luthien_asgi", ["litellm", "starlette", "sse_starlette", "openai", "httpx", "uvicorn", "rich", "yaml"]),
        ("from luthien_asgi import LuthienMiddleware, LiteLLMBackend, JsonlRecorder", ["litellm", "openai", "sse_starlette"]),
        ("import luthien_asgi.server", ["litellm", "openai", "starlette"]),
        ("import luthien_asgi.testing", ["litellm", "openai", "pytest"]),
    ],
)  # fmt: skip
def test_an_import_leaves_the_heavy_modules_alone(statement: str, heavy: list[str]) -> None:
    """Nothing that takes long is in sys.modules afterwards."""
    code = f"{statement}\nimport sys\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
