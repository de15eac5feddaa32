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
4. The three narrow warning filters of LiteLLM (by message, about its own pydantic models) stay, and those of urllib3 and
   requests, about their own warnings.
5. The garbage collector rests meanwhile. It would go through what is there already six times, holding everything up for 0.2 s
   each, and find nothing: a fifth of the import's time. What was made goes to the oldest generation unseen. With `freeze`, for a
   process that is ours, it leaves the collector's sight for good (`gc.freeze`), and so does whatever else is alive then.
6. The tokenizer's table (110 MB, 0.4 s) is read only for those who need it: LiteLLM fetches it at the first call of nearly every
   provider but OpenAI and Azure, in the event loop, to price what nobody reads.
7. Connections to providers are not bounded: how many answers run at a time is for `Limits.streams` to say. What waits for a
   connection that another answer has looks like a silent provider, and fails as one.
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
        # Of LiteLLM's own, 1 000 and 500, the second leaves half of `Limits.streams` to wait unseen; 0 would be aiohttp's 100.
        "AIOHTTP_CONNECTOR_LIMIT": "1000000000",
        "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "1000000000",
    }
)
_WRITTEN: Final = ("TIKTOKEN_CACHE_DIR",)
"""What LiteLLM writes into the environment itself."""
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


async def load(*, tokenizer: bool = False, freeze: bool = False) -> Any:  # noqa: ANN401 - a module without types
    """Return the module `litellm`, imported in a thread of its own so that the event loop goes on (2 to 10 s on two cores).

    Two concurrent first calls import once. A cancelled caller leaves at once; the import ends in its thread, and the interpreter
    does not end before it: one that ends in the middle of an import may wait for the import's locks for ever.
    """
    if _finished(tokenizer=tokenizer):
        return _load_once()
    future: Future[Any] = Future()
    thread = threading.Thread(target=_load_into, args=(future, tokenizer, freeze), name="luthien-import-litellm")
    thread.start()
    litellm = await asyncio.wrap_future(future)
    thread.join()  # it has nothing left to do
    return litellm


def _finished(*, tokenizer: bool) -> bool:
    return bool(_load_once.cache_info().currsize and (_read_encoding.cache_info().currsize or not tokenizer))


def _load_into(future: Future[Any], tokenizer: bool, freeze: bool) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(load_now(tokenizer=tokenizer, freeze=freeze))
    except BaseException as error:
        future.set_exception(error)


def load_now(*, tokenizer: bool = False, freeze: bool = False) -> Any:  # noqa: ANN401
    """Return the module `litellm`; the first call imports it and blocks meanwhile. Safe from any thread."""
    if not _finished(tokenizer=tokenizer):
        with _ONE_AT_A_TIME, _collector_at_rest(freeze=freeze):
            _load_once()
            if tokenizer:
                _read_encoding()
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
    if not host_was_first:
        _silence(litellm)
    return litellm


@cache
def _read_encoding() -> None:
    with _environment(), contextlib.suppress(Exception):
        importlib.import_module("litellm").token_counter(model="gpt-4o", text="a")


@contextlib.contextmanager
def _collector_at_rest(*, freeze: bool) -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        if freeze:
            gc.freeze()
        elif not gc.get_freeze_count():
            # There and back is a way into the oldest generation; what a host has frozen itself would come back too.
            gc.freeze()
            gc.unfreeze()
    finally:
        if was_on:
            gc.enable()


def _silence(litellm: Any) -> None:  # noqa: ANN401
    litellm.suppress_debug_info = litellm.disable_hf_tokenizer_download = True
    if "LITELLM_LOG" not in os.environ:
        for name in _LITELLM_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _read_beta_headers() -> None:
    with contextlib.suppress(ImportError, AttributeError):
        importlib.import_module("litellm.anthropic_beta_headers_manager")._load_beta_headers_config()  # noqa: SLF001 - see 2


def _build_schemas(litellm: Any) -> None:  # noqa: ANN401
    """Let pydantic build the classes now: it warns at the first object of each, also a host that makes errors of warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm.ModelResponse(stream=False)
        litellm.ModelResponseStream(choices=[{"index": 0, "delta": {"content": ""}}], usage={})


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set what LiteLLM is to see, and put back what was there before. Other variables are not touched: the host goes on."""
    before = {name: os.environ.get(name) for name in (*ENVIRONMENT, *_WRITTEN)}
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, was in before.items():
            if was is not None:
                os.environ[name] = was
            else:
                os.environ.pop(name, None)


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
