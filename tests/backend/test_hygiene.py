"""An embedding host does not notice that LiteLLM is imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.litellm

BEFORE = """
import asyncio, json, logging, os, sys, threading
logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="host %(message)s")
def state():
    loggers = ["", "httpx", "asyncio"]
    return {
        "environment": dict(os.environ),
        "loggers": [(name, logging.getLogger(name).level, [id(h) for h in logging.getLogger(name).handlers]) for name in loggers],
        "hook": id(sys.excepthook),
        "threads": sorted(t.name for t in threading.enumerate()),
    }
"""


def run(code: Any, **environment: Any) -> Any:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM_")}
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", BEFORE + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env={**clean, **environment}, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_importing_the_package_does_not_import_litellm() -> None:
    """Neither the backend nor a configured one needs it before `start`."""
    run(
        """
        from luthien_asgi.backend import LiteLLMBackend
        LiteLLMBackend([{"model_name": "m", "litellm_params": {"model": "openai/x"}}]).target("m")
        assert not {"litellm", "openai", "httpx", "aiohttp"} & sys.modules.keys()
        """
    )


def test_a_host_that_never_used_litellm_notices_nothing() -> None:
    """Environment, loggers, hooks and threads are as before, nothing is printed, and two first calls import once."""
    done = run(
        """
        before = state()
        from luthien_asgi.backend import hygiene
        async def main():
            first, second = await asyncio.gather(hygiene.load(), hygiene.load())
            assert first is second is sys.modules["litellm"]
        asyncio.run(main())
        assert state() == before, (state(), before)
        litellm = sys.modules["litellm"]
        assert litellm.model_cost, "the bundled price table"
        assert litellm.callbacks == litellm.success_callback == litellm.failure_callback == []
        assert litellm.REPEATED_STREAMING_CHUNK_LIMIT > 1_000_000
        """
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("tokenizer", [False, True])
def test_nothing_else_of_the_process_changes(tokenizer: bool) -> None:
    """Signals, hooks, the collector, the socket module, open files; nor does anything reach for the network."""
    run(
        f"""
        import gc, signal, socket
        from luthien_asgi.backend import hygiene
        gc.disable(); gc.enable()
        def refuse(*a, **k): raise AssertionError("the network")
        socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
        def more():
            signals = [signal.getsignal(s) for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]
            hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
            hooks = hooks, logging.getLoggerClass(), logging.getLogRecordFactory()
            collector = gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), len(gc.callbacks)
            return signals, hooks, collector, socket.getdefaulttimeout(), sys.path[:], os.getcwd(), os.listdir("/proc/self/fd")
        before = more()
        hygiene.load_now(tokenizer={tokenizer})
        assert more() == before, (more(), before)
        """
    )


def test_no_stray_dotenv_is_read(tmp_path: Path) -> None:
    """A file in the working directory is nobody's configuration here."""
    (tmp_path / ".env").write_text("OPENAI_API_KEY=stray\nLITELLM_LOG=DEBUG\nHOST_SETTING=stray\n")
    run(
        f"""
        os.chdir({str(tmp_path)!r})
        sys.path.insert(0, "")
        before = dict(os.environ)
        from luthien_asgi.backend import hygiene
        hygiene.load_now(tokenizer=True)
        assert dict(os.environ) == before
        """
    )


def test_what_a_host_sets_meanwhile_stays(tmp_path: Path) -> None:
    """The import takes seconds, in which the host goes on: here a module in LiteLLM's place does what the host would."""
    (tmp_path / "litellm.py").write_text(
        "import importlib, os, sys\n"
        "os.environ['HOST_SETTING'] = 'new'\ndel os.environ['HOST_GONE']\n"
        "sys.path.remove(os.path.dirname(__file__))\ndel sys.modules['litellm']\nimportlib.import_module('litellm')\n"
    )
    run(
        f"""
        sys.path.insert(0, {str(tmp_path)!r})
        expected = dict(os.environ) | {{"HOST_SETTING": "new"}}
        del expected["HOST_GONE"]
        from luthien_asgi.backend import hygiene
        hygiene.load_now(tokenizer=True)
        assert dict(os.environ) == expected
        """,
        HOST_SETTING="old",
        HOST_GONE="old",
        TIKTOKEN_CACHE_DIR=str(tmp_path),
    )


def test_the_collector_of_a_host_is_as_it_was() -> None:
    """Off when it was off, and what the host froze stays frozen; nothing of ours is, unless that is asked for."""
    run(
        """
        import gc
        from luthien_asgi.backend import hygiene
        gc.disable()
        gc.freeze()
        was = gc.get_freeze_count()
        hygiene.load_now()
        assert not gc.isenabled() and abs(gc.get_freeze_count() - was) < 1000
        """
    )
    run(
        """
        import gc
        from luthien_asgi.backend import LiteLLMBackend
        models = [{"model_name": "m", "litellm_params": {"model": "openai/x"}}]
        asyncio.run(LiteLLMBackend(models, freeze=True).start())
        assert gc.isenabled() and gc.get_freeze_count() > 100_000
        assert "tiktoken_ext.openai_public" not in sys.modules, "the tokenizer's table, which OpenAI's models do without"
        asyncio.run(LiteLLMBackend([*models, {"model_name": "c", "litellm_params": {"model": "anthropic/x"}}]).start())
        assert "tiktoken_ext.openai_public" in sys.modules
        """
    )


def test_an_operators_own_setting_wins() -> None:
    """What is in the environment is not overridden, and it is still there afterwards."""
    run(
        """
        from luthien_asgi.backend import hygiene
        hygiene.load_now()
        assert os.environ["REPEATED_STREAMING_CHUNK_LIMIT"] == "77"
        assert sys.modules["litellm"].REPEATED_STREAMING_CHUNK_LIMIT == 77
        """,
        REPEATED_STREAMING_CHUNK_LIMIT="77",
    )


def test_no_answer_waits_for_the_connection_of_another() -> None:
    """The pool has room for more connections to one provider than there may be streams in a process."""
    run(
        """
        from luthien_asgi.backend import hygiene
        from luthien_asgi.backend.capture import HandlerPool
        from luthien_asgi.settings import Limits
        async def main():
            await hygiene.load()
            pool = HandlerPool()
            session = pool.connections()._transport._get_valid_client_session()
            assert min(session.connector.limit, session.connector.limit_per_host) > 100 * Limits().streams
            await session.close()
            await pool.aclose()
        asyncio.run(main())
        """
    )


def test_a_host_that_uses_litellm_keeps_its_settings() -> None:
    """A host's callbacks, cache and switches are as before our import, and its callbacks hear nothing of our calls."""
    run(
        """
        import litellm
        from litellm.integrations.custom_logger import CustomLogger
        heard = []
        class Own(CustomLogger):
            def log_pre_api_call(self, model, messages, kwargs): heard.append("pre")
            async def async_log_success_event(self, *a): heard.append("success")
            async def async_log_failure_event(self, *a): heard.append("failure")
        own = Own()
        litellm.callbacks = [own]
        litellm.drop_params, litellm.num_retries, litellm.suppress_debug_info = True, 5, False
        names = ["callbacks", "success_callback", "failure_callback", "cache", "drop_params", "num_retries"]
        settings = lambda: {name: getattr(litellm, name) for name in names}
        from luthien_asgi.backend import hygiene
        before, was = state(), settings()
        assert hygiene.load_now() is litellm
        assert state() == before and settings() == was
        from luthien_asgi.backend import BackendCall, LiteLLMBackend
        from luthien_asgi.request import ChatRequest
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
        call = BackendCall(request=ChatRequest(wire="openai", body=body))
        lines = ["HTTP/1.1 STATUS X", "content-type: application/json", "content-length: LENGTH", "connection: close", "", ""]
        answer = json.dumps({"id": "i", "created": 1, "model": "m", "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "whole"}}]})
        async def main():
            for status in ("200", "401"):
                async def serve(reader, writer):
                    await reader.readuntil(b"\\r\\n\\r\\n")
                    head = "\\r\\n".join(lines).replace("STATUS", status).replace("LENGTH", str(len(answer)))
                    writer.write((head + answer).encode())
                    await writer.drain()
                    writer.close()
                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                url = "http://127.0.0.1:%d/v1" % server.sockets[0].getsockname()[1]
                for model in ("openai/x", "hosted_vllm/x"):
                    params = {"model": model, "api_base": url, "api_key": "k"}
                    backend = LiteLLMBackend([{"model_name": "m", "litellm_params": params}])
                    try:
                        stream = await backend.open(call)
                        chunks = [chunk async for chunk in stream]
                        assert status == "200" and chunks
                        await stream.aclose()
                    except Exception as error:
                        assert error.status == 401, error
                    await backend.aclose()
                server.close()
        asyncio.run(main())
        assert not {"success", "failure"} & set(heard), heard
        assert litellm.callbacks == [own] and settings()["num_retries"] == 5
        """,
        LITELLM_LOCAL_MODEL_COST_MAP="True",
    )
