"""Importing LiteLLM so that neither the network, the terminal nor an embedding host notices.

Strategy: LiteLLM reads its settings from the environment while it is imported. They are set around the import with `setdefault`
(an operator's own value wins) and taken back afterwards. Levels and handlers that the import gives to loggers that are not its
own, and the exception hook, are put back too.

Deliberate differences from a plain `import litellm`:

1. No file `.env` is read (`LITELLM_MODE=PRODUCTION`): configuration is the operator's, not the working directory's.
2. No price table, beta-header table or blog post is fetched. The beta-header table is read at the first Anthropic call and not at
   the import, so it is read here, while the environment still asks for the bundled one.
3. When nobody had imported LiteLLM before us, `litellm.suppress_debug_info` becomes True (it prints advertisements to stdout on
   each error), and its loggers say nothing unless `LITELLM_LOG` is set: they write requests and providers' raw errors, which hold
   content and may hold credentials. `litellm.disable_hf_tokenizer_download` becomes True: LiteLLM prices each call, and for a
   model with `llama` in its name it would fetch a tokenizer first, with the event loop waiting, some 20 s where there is no
   network. A host that imported LiteLLM first keeps its own values, prints, logs and fetches.
4. The three narrow warning filters of LiteLLM (by message, about its own pydantic models) stay.
5. What is alive after the import is frozen (`gc.freeze`), a host's objects of that moment too: they are freed by their counts as
   ever, but a cycle among them is not searched for any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import cache
from types import MappingProxyType
from typing import Any, Final

__all__ = ["load", "load_now"]

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "CRITICAL",
        # LiteLLM breaks off an answer that repeats a chunk this often; a table of zeros is a legal answer.
        "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",
    }
)
_WARM: Final = (
    "litellm.main",
    "litellm.types.utils",
    "litellm.llms.custom_httpx.http_handler",
    "litellm.llms.anthropic.chat.handler",
    "litellm.llms.openai.openai",
    "openai.resources.chat.completions",
    "openai.lib.streaming.chat",
)
_FOREIGN_LOGGERS: Final = ("", "httpx", "httpcore", "apscheduler.executors.default", "apscheduler.scheduler", "asyncio")
_LITELLM_LOGGERS: Final = ("LiteLLM", "LiteLLM Router")
_ONE_AT_A_TIME: Final = threading.Lock()


async def load() -> Any:  # noqa: ANN401 - a module without types
    """Return the module `litellm`, imported in a thread of its own so that the event loop goes on (7-10 s on two cores).

    Two concurrent first calls import once. A cancelled caller leaves at once; the import ends in its thread.
    """
    if _finished():
        return load_now()
    future: Future[Any] = Future()
    thread = threading.Thread(target=_load_into, args=(future,), name="luthien-import-litellm", daemon=True)
    thread.start()
    litellm = await asyncio.wrap_future(future)
    thread.join()  # it has nothing left to do
    return litellm


def _finished() -> bool:
    return _load_once.cache_info().currsize == 1


def _load_into(future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(load_now())
    except BaseException as error:
        future.set_exception(error)


def load_now() -> Any:  # noqa: ANN401
    """Return the module `litellm`; the first call imports it and blocks meanwhile. Safe from any thread."""
    if not _finished():
        with _ONE_AT_A_TIME:
            return _load_once()
    return _load_once()


@cache
def _load_once() -> Any:  # noqa: ANN401
    host_was_first = "litellm" in sys.modules
    with _environment(), _process_unchanged():
        litellm: Any = importlib.import_module("litellm")
        for name in _WARM:
            importlib.import_module(name)
        _read_beta_headers()
        _build_schemas(litellm)
        _read_encoding(litellm)
    # LiteLLM's modules are some 400 000 objects that stay: a full collection goes through them all, 200 ms in which nothing is
    # answered, several times a minute under load. Frozen, they are left out.
    gc.collect()
    gc.freeze()
    if not host_was_first:
        _silence(litellm)
    return litellm


def _silence(litellm: Any) -> None:  # noqa: ANN401
    litellm.suppress_debug_info = litellm.disable_hf_tokenizer_download = True
    if "LITELLM_LOG" not in os.environ:
        for name in _LITELLM_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _read_beta_headers() -> None:
    with contextlib.suppress(ImportError, AttributeError):
        importlib.import_module("litellm.anthropic_beta_headers_manager")._load_beta_headers_config()  # noqa: SLF001 - see 2


def _read_encoding(litellm: Any) -> None:  # noqa: ANN401
    """Let the tokenizer's table be read now (0.3 s): LiteLLM prices each call with it, the first one on the event loop."""
    with contextlib.suppress(Exception):
        litellm.token_counter(model="gpt-4o", text="a")


def _build_schemas(litellm: Any) -> None:  # noqa: ANN401
    """Let pydantic build the classes now: it warns at the first object of each, also a host that makes errors of warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm.ModelResponse(stream=False)
        litellm.ModelResponseStream(choices=[{"index": 0, "delta": {"content": ""}}], usage={})


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set what LiteLLM is to see, and take away again what was not there before: it sets a variable of its own, too."""
    before = dict(os.environ)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


@contextlib.contextmanager
def _process_unchanged() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _FOREIGN_LOGGERS]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    hook = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
