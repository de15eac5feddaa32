"""What `luthien_asgi.testing` exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

from luthien_asgi import testing


def test_the_public_names_are_sorted_and_there() -> None:
    """`__all__` is the list to look at, and each name in it exists and is described."""
    assert sorted(testing.__all__) == testing.__all__
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)


def test_importing_the_kit_needs_neither_litellm_nor_pytest() -> None:
    """LiteLLM takes seconds: only the first chunk pays for it. The kit works under any test runner."""
    code = "import sys, luthien_asgi.testing; print({'litellm', 'pytest', 'httpx', 'openai', 'anthropic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
