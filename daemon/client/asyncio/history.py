"""A channel's history over asyncio's streams."""

from __future__ import annotations

import asyncio
import time

from daemon.client.asyncio.reaching import unreachable
from daemon.client.core.endpoint import Endpoint
from daemon.client.core.history import RECEIVE_BYTES, History, Question


async def ask(endpoint: Endpoint, question: Question) -> History:
    """See `Client.history`. If cancelled, the connection is closed."""
    address = endpoint.address
    try:
        async with asyncio.timeout(endpoint.timeout_s):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=endpoint.ssl_context)
    except OSError as error:
        raise unreachable(endpoint, error) from None
    try:
        async with asyncio.timeout(question.wait_s):
            writer.write(question.outgoing())
            await writer.drain()
            while True:
                received = await reader.read(RECEIVE_BYTES)
                if (found := question.took(received, int(time.time() * 1000))) is not None:
                    return found
    except TimeoutError:
        raise question.late() from None
    except OSError:
        raise question.lost() from None
    finally:
        writer.transport.abort()
