"""What LiteLLM's transport (aiohttp) lets providers do to one another's answers, and to whose fault an answer is.

1. A connection that waits in aiohttp's pool still takes what comes on it. A response that nobody asked for (a proxy's that
   answers twice, a late 408 of a load balancer) lies there as the answer to whoever gets the connection next, and every answer
   after it is another request's. Such a connection is closed when it is taken out of the pool, as urllib3 and httpcore do, and so
   is one whose end has come and was not seen yet: a request sent there would be lost.
2. Bytes of a response's headers that are no UTF-8 end in a `UnicodeEncodeError`, which is what a request that cannot be sent ends
   in. They are what they are: a response that cannot be read.
"""

from __future__ import annotations

import importlib
import select
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakSet

__all__ = ["guarded"]

_MARK: Final = "_luthien_asgi_guarded"


def guarded(transport: Any) -> Any:  # noqa: ANN401 - LiteLLM's, which has no types here
    """Return the transport, whose connections and responses are looked at from now on."""
    session_of = getattr(transport, "get_valid_client_session", None)
    if session_of is not None:  # the transport makes its session when it is first used, and another for another event loop
        transport.get_valid_client_session = partial(_guarded_session, session_of)
    transport.handle_async_request = partial(_readable, transport.handle_async_request)
    return transport


def _guarded_session(session_of: Callable[[], Any]) -> Any:  # noqa: ANN401 - aiohttp.ClientSession
    session = session_of()
    connector = session.connector
    if connector is not None and not getattr(connector, _MARK, False):
        setattr(connector, _MARK, True)
        connector.connect = partial(_unspoilt, connector.connect, WeakSet())
    return session


async def _unspoilt(connect: Callable[..., Awaitable[Any]], known: WeakSet[Any], *args: Any, **named: Any) -> Any:  # noqa: ANN401
    """Return a connection that is new, or that nothing has come on while it waited, neither bytes nor its end."""
    while True:
        connection = await connect(*args, **named)
        protocol = connection.protocol
        if protocol not in known:
            known.add(protocol)
            return connection
        if not (protocol.should_close or _is_readable(protocol.transport)):
            return connection
        connection.close()


def _is_readable(transport: Any) -> bool:  # noqa: ANN401 - asyncio's or uvloop's
    """Tell whether there is something on a connection that its event loop has not taken yet."""
    waiting = transport.get_extra_info("socket") if transport is not None else None
    if waiting is None:
        return False
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([waiting], [], [], 0)[0])
    poll = select.poll()
    poll.register(waiting.fileno(), select.POLLIN)
    return bool(poll.poll(0))


async def _readable(handle: Callable[[Any], Awaitable[Any]], request: Any) -> Any:  # noqa: ANN401 - httpx's
    with suppress(UnicodeEncodeError):
        return await handle(request)
    # Not from within: the cause of an error is told to the client, and here it is that half a character cannot be sent.
    error: Any = importlib.import_module("httpx").RemoteProtocolError
    raise error("a header of the response is no text", request=request)
