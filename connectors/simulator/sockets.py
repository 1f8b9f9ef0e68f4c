"""The websockets of one simulated venue: who is let in, what is pushed to whom.

The venue itself is a `connectors.simulator.venues.sockets.SocketVenue`, a connection's I/O is in
`connectors.simulator.venues.websocket`; this is what lies between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container

import trio

from connectors.simulator.faults.active import FaultBoard
from connectors.simulator.faults.connections import ConnectionFaults
from connectors.simulator.faults.faults import Venue
from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.http.server import UpgradedStream
from connectors.simulator.venues.market import LISTINGS
from connectors.simulator.venues.sockets import SocketVenue
from connectors.simulator.venues.stream import MarketStream
from connectors.simulator.venues.websocket import VenueConnection
from protocol.frames import text_frame

Moment = Callable[[], tuple[int, int]]
"""The market's present step, and the time in milliseconds since 1970."""


class VenueSockets:
    """One venue's.

    Args:
        name: The venue.
        make: Makes it, of the stream and of the symbols that are listed at present.
        stream: What happens in the market.
        board: Which faults are on.
        now: The present.
        known: The symbols that are served; by default all that the venue lists.

    Attributes:
        connections: Those that are open.
        faults: What is done to them.
        is_mute: While true nothing is pushed.
    """

    def __init__(
        self,
        name: Venue,
        make: Callable[[MarketStream, Container[str]], SocketVenue],
        stream: MarketStream,
        board: FaultBoard,
        now: Moment,
        known: Container[str] | None = None,
    ) -> None:
        self.connections: set[VenueConnection] = set()
        self.faults = ConnectionFaults(board, name, self.connections, LISTINGS[name], stream, known)
        self.is_mute = False
        self.venue = make(stream, self.faults)
        self._now = now
        self._opened: deque[float] = deque(maxlen=self.venue.rules.connects)

    def refusal(self) -> VenueResponse | None:
        """What answers a handshake that is beyond the venue's limits; None for one that is not."""
        rules, now_s = self.venue.rules, trio.current_time()
        often = rules.connects is not None and len(self._opened) == rules.connects
        often = often and self._opened[0] > now_s - rules.connects_s
        many = rules.connections is not None and len(self.connections) >= rules.connections
        if often or many or self.faults.is_over_limit():
            return VenueResponse(rules.refused_status, rules.refused_body)
        self._opened.append(now_s)
        return None

    async def serve(
        self, request: VenueRequest, stream: UpgradedStream, number: int, replied: Callable[[VenueConnection], None]
    ) -> None:
        """Serve a connection until it ends; `replied` is called after each answer to its client."""

        def answered() -> None:
            replied(connection)
            self.push(connection)

        connection = VenueConnection(
            self.venue.open(request, number),
            self.venue.rules,
            number=number,
            wire=stream.wire,
            reply=lambda message: self.faults.reply(connection, message),
            replied=answered,
        )
        self.connections.add(connection)
        self.faults.admit(connection)
        try:
            # Streams may be named in the address already, and some venues greet.
            self.push(connection)
            await connection.run(stream)
        finally:
            self.connections.discard(connection)
            self.faults.forget(connection)

    def push_all(self) -> None:
        """Hand everybody what is due."""
        for connection in tuple(self.connections):
            self.push(connection)

    def push(self, connection: VenueConnection) -> None:
        """Hand one connection what is due."""
        step, now_ms = self._now()
        pushes = connection.conversation.pushes(step, now_ms)
        if self.is_mute or connection.closing:
            return
        texts = self.faults.texts(connection, pushes, trio.current_time())
        if texts and not connection.offer(b"".join(map(text_frame, texts))):
            slow = self.venue.rules.slow
            connection.drop(slow.code, slow.reason)
