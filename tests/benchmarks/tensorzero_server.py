"""TensorZero's gateway, as its wheel carries it, in a process of its own. Run by that environment's Python, with a configuration.

The first line of its output is the port; it ends with its standard input.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

import tensorzero

gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
sys.stdout.write(f"{urlsplit(gateway.base_url).port}\n")
sys.stdout.flush()
while os.read(sys.stdin.fileno(), 1):
    pass
os._exit(0)
