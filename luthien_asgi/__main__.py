"""`python -m luthien_asgi` is `luthien-asgi`."""

from __future__ import annotations

import sys

from luthien_asgi.cli import main

if __name__ == "__main__":
    sys.exit(main())
