r"""Settings for gunicorn, with its own ASGI worker or with uvicorn's.

Run it:

    export LUTHIEN_CONFIG=luthien.yaml
    gunicorn --config examples/gunicorn.conf.py luthien_asgi.server:app
    gunicorn --config examples/gunicorn.conf.py -k uvicorn_worker.UvicornWorker luthien_asgi.server:app

Call it:

    curl -N localhost:4000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "fast", "stream": true, "messages": [{"role": "user", "content": "Say hello."}]}'

The trap: gunicorn kills a worker `graceful_timeout` seconds after it was asked to stop, so that is how long answers can have: the
setting `drain_timeout` (25 s) and 5 s more, or they get less. And `timeout` does not bound an answer: a worker that streams tells
gunicorn that it is alive.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from luthien_asgi.server import app, preload

bind = os.environ.get("BIND", "127.0.0.1:4000")
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "asgi"
graceful_timeout = 40


def on_starting(server: object) -> None:
    """Import LiteLLM once, before the workers are forked: a worker then has 55 MB of its own, not 280.

    And have them share the last good configuration: one that starts while the file is bad would not boot, and end them all.
    """
    logging.getLogger("gunicorn.error").info("importing LiteLLM, which takes some seconds")
    preload()
    app.share_last_good()


def post_worker_init(worker: Any) -> None:  # noqa: ANN401 - a worker of gunicorn, which has no types
    """Hand on how long gunicorn waits when it stops a worker: answers that still run then end with an error, not with a kill."""
    app.stop_within(worker.cfg.graceful_timeout)
