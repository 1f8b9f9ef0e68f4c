"""A channel's history over a trio stream."""

from __future__ import annotations

import time

import trio

from connectors.base import VenueUnavailable
from connectors.push.dial import dial
from daemon.client.core.endpoint import Endpoint
from daemon.client.core.events import ServerUnavailable
from daemon.client.core.history import RECEIVE_BYTES, History, Question


async def ask(endpoint: Endpoint, question: Question) -> History:
    """See `Client.history`. If cancelled, the connection is closed."""
    try:
        stream = await dial(endpoint.address, ssl_context=endpoint.ssl_context, timeout_s=endpoint.timeout_s)
    except VenueUnavailable as error:
        raise ServerUnavailable(f"{endpoint.where}: {error}") from None
    try:
        with trio.move_on_after(question.wait_s):
            await stream.send_all(question.outgoing())
            while True:
                received = bytes(await stream.receive_some(RECEIVE_BYTES))
                if (found := question.took(received, int(time.time() * 1000))) is not None:
                    return found
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise question.lost() from None
    finally:
        await trio.aclose_forcefully(stream)
    raise question.late()
