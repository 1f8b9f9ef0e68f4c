"""What faults do to a simulated venue's connections: close, freeze, mute, delist. OKX's tickers are in `frames`."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Mapping, Sequence

from connectors.simulator.faults.active import ActiveFault, FaultBoard
from connectors.simulator.faults.faults import (
    AckMissing,
    Delisted,
    Disconnect,
    HalfOpen,
    HangUp,
    Notice,
    Opening,
    OutOfOrder,
    OverLimit,
    RefusedSubscription,
    SequenceReset,
    Silence,
    SlowFrames,
    Venue,
)
from connectors.simulator.faults.frames import FaultyFrames, Written
from connectors.simulator.faults.streams import FaultyStream, PastTrades
from connectors.simulator.venues.market import Listing
from connectors.simulator.venues.okx_streams import OkxSession
from connectors.simulator.venues.sockets import Close, Push
from connectors.simulator.venues.stream import MarketStream
from connectors.simulator.venues.websocket import VenueConnection

ABRUPTLY = 1006
"""In an order, the close code of no close frame (RFC 6455 section 7.4.1)."""


class ConnectionFaults(Container[str]):
    """All connections of one venue. As a container: the symbols that are listed at present.

    Args:
        board: Which faults are on.
        venue: Whose.
        sessions: The connections that are open, kept up to date by their owner.
        listings: What there is without faults, by the venue's own symbols.
        stream: The market's.
        known: Which of them are served.

    Attributes:
        venue: Whose.
    """

    def __init__(
        self,
        board: FaultBoard,
        venue: Venue,
        sessions: Collection[VenueConnection],
        listings: Mapping[str, Listing],
        stream: MarketStream,
        known: Container[str] | None = None,
    ) -> None:
        self._board = board
        self.venue = venue
        self._sessions = sessions
        self._listings = {listing.instrument: listing for listing in listings.values()}
        self._known = listings if known is None else known
        self._stream = stream
        self._past = PastTrades()
        self._frames: dict[int, FaultyFrames] = {}
        self._streams: dict[int, FaultyStream] = {}
        self._held: dict[int, list[VenueConnection]] = {}
        """The connections that a fault holds on to, by its number."""

    def __contains__(self, symbol: object) -> bool:
        delisted = any(
            isinstance(one.fault, Delisted) and self._listings[one.fault.instrument].symbol == symbol
            for one in self._board.of(self.venue)
        )
        return symbol in self._known and not delisted

    def begin(self, active: ActiveFault) -> None:
        """A fault was switched on: do to the present connections what it does to them."""
        if active.fault.venue != self.venue:
            return
        match active.fault:
            case Disconnect(code=code, reason=reason):
                for session in self._each(active):
                    session.drop(None if code == ABRUPTLY else code, reason)
            case Notice():
                self._held[active.number] = self._each(active)
                for session in self._held[active.number]:
                    session.notice()
            case HalfOpen():
                self._held[active.number] = self._each(active)
                for session in self._held[active.number]:
                    _freeze(session)
            case Delisted(instrument=instrument):
                for session in self._sessions:
                    for text in session.conversation.forget(self._listings[instrument]):
                        active.count()
                        session.tell(text)
            case SequenceReset(instrument=instrument):
                for session in self._each(active):
                    session.conversation.restart(self._listings[instrument])
            case Opening(drop=True):
                for session in self._sessions:
                    session.drop(None)
            case SlowFrames():
                self._each(active)
        self._set_up()

    def end(self, active: ActiveFault, *, cleared: bool) -> None:
        """A fault is off, and off the board: by its own time, or because it was cleared."""
        held = self._held.pop(active.number, [])
        match active.fault:
            case HalfOpen():
                for session in held:
                    session.drop(None)
            case Notice() if not cleared:
                for session in held:
                    session.drop(1001, "service upgrade")
            case OutOfOrder(how="swap"):
                for session in self._sessions:
                    if frames := self._frames[session.number].release(active.number):
                        session.offer(frames)
        self._set_up()

    def admit(self, session: VenueConnection) -> None:
        """A connection has opened."""
        self._frames[session.number] = FaultyFrames(self._board, session.number)
        self._streams[session.number] = FaultyStream(
            self._board, self.venue, session.number, self._stream, self._listings, self._past
        )
        for one in self._board.of(self.venue):
            if isinstance(one.fault, SlowFrames):
                one.count()
        self._set_up()

    def forget(self, session: VenueConnection) -> None:
        """A connection has ended."""
        self._frames.pop(session.number, None)
        self._streams.pop(session.number, None)
        for held in self._held.values():
            if session in held:
                held.remove(session)

    def tick(self, now_s: float) -> float:
        """Close what is due by now; when to come again."""
        wake_s = math.inf
        for one in self._board.of(self.venue):
            if not isinstance(one.fault, HangUp):
                continue
            for session in self._sessions:
                due_s = max(session.opened_s, one.since_s) + one.fault.after_s
                if session.closing or not one.chooses():
                    continue
                if due_s <= now_s:
                    one.count()
                    session.drop(None if one.fault.code == ABRUPTLY else one.fault.code, one.fault.reason)
                else:
                    wake_s = min(wake_s, due_s)
        return wake_s

    def write(self, session: VenueConnection, instrument: str, payload: bytes) -> Written:
        """What is written of one ticker."""
        return self._frames[session.number].write(instrument, payload)

    def texts(self, session: VenueConnection, pushes: Sequence[Push], now_s: float) -> list[bytes]:
        """What a connection is sent of what is due."""
        return self._streams[session.number].texts(pushes, now_s)

    def is_over_limit(self) -> bool:
        """Whether one connection more is refused because a fault says so."""
        for one in self._board.of(self.venue):
            if isinstance(one.fault, OverLimit) and len(self._sessions) >= one.fault.connections and one.chooses():
                one.count()
                return True
        return False

    def reply(self, session: VenueConnection, message: str | bytes) -> Sequence[bytes | Close]:
        """What a client's message is answered."""
        conversation = session.conversation
        for one in self._board.of(self.venue):
            if not isinstance(one.fault, RefusedSubscription) or session.number < one.first_connection:
                continue
            code = one.fault.code if self.venue == "okx" else ""
            refusal = conversation.refuse(message, self._listings[one.fault.instrument], code)
            if refusal and one.chooses():
                one.count()
                return refusal
        subscriptions = conversation.subscriptions if isinstance(conversation, OkxSession) else None
        before = set(subscriptions.held) if subscriptions else set()
        replies = conversation.receive(message)
        for one in self._board.of(self.venue):
            match one.fault:
                case Silence(pongs=False) if one.chooses():
                    one.count()
                    replies = []
                case AckMissing(data=data) if session.number >= one.first_connection and one.chooses():
                    kept = [reply for reply in replies if not _is_okx_ack(reply)]
                    if len(kept) < len(replies):
                        one.count()
                    replies = kept
                    if not data and subscriptions is not None:
                        for arg in subscriptions.held.keys() - before:
                            subscriptions.drop(arg)
        return replies

    def _each(self, active: ActiveFault) -> list[VenueConnection]:
        """The present connections in the order in which they were opened, each counted."""
        sessions = sorted(self._sessions, key=lambda session: session.number)
        for _ in sessions:
            active.count()
        return sessions

    def _set_up(self) -> None:
        """Tell the connections how slow and how patient to be."""
        faults = [one.fault for one in self._board.of(self.venue)]
        pause_s = max((fault.pause_s for fault in faults if isinstance(fault, SlowFrames)), default=0.0)
        patient = any(isinstance(fault, Silence) and not fault.pongs for fault in faults)
        for session in self._sessions:
            session.patient = patient or (session.wire is not None and session.wire.frozen)
            if session.wire is not None:
                session.wire.pause_s = pause_s


def _freeze(session: VenueConnection) -> None:
    if session.wire is not None:
        session.wire.freeze()


def _is_okx_ack(reply: bytes | Close) -> bool:
    return isinstance(reply, bytes) and reply.startswith(b'{"event":"subscribe"')
