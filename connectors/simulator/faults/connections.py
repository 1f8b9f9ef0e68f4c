"""What faults do to the simulated OKX's connections: close, freeze, mute, delist. Tickers are in `frames`."""

from __future__ import annotations

import math
from collections.abc import Collection, Container

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
    RefusedSubscription,
    Silence,
    SlowFrames,
)
from connectors.simulator.faults.frames import FaultyFrames, Written
from connectors.simulator.venues.okx_session import OkxSession

ABRUPTLY = 1006
"""In an order, the close code of no close frame (RFC 6455 section 7.4.1)."""


class OkxFaults(Container[str]):
    """All OKX connections. As a container: the instIds that are listed at present.

    Args:
        board: Which faults are on.
        sessions: The connections that are open, kept up to date by their owner.
        known: The instIds that there are without faults.
    """

    def __init__(self, board: FaultBoard, sessions: Collection[OkxSession], known: Container[str]) -> None:
        self._board = board
        self._sessions = sessions
        self._known = known
        self._frames: dict[int, FaultyFrames] = {}
        self._held: dict[int, list[OkxSession]] = {}
        """The connections that a fault holds on to, by its number."""

    def __contains__(self, symbol: object) -> bool:
        delisted = any(
            isinstance(one.fault, Delisted) and one.fault.instrument.replace("/", "-") == symbol
            for one in self._board.of("okx")
        )
        return symbol in self._known and not delisted

    def begin(self, active: ActiveFault) -> None:
        """A fault was switched on: do to the present connections what it does to them."""
        if active.fault.venue != "okx":
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
                    for text in session.subscriptions.delist(instrument.replace("/", "-")):
                        active.count()
                        session.tell(text)
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

    def admit(self, session: OkxSession) -> None:
        """A connection has opened."""
        self._frames[session.number] = FaultyFrames(self._board, session.number)
        for one in self._board.of("okx"):
            if isinstance(one.fault, SlowFrames):
                one.count()
        self._set_up()

    def forget(self, session: OkxSession) -> None:
        """A connection has ended."""
        self._frames.pop(session.number, None)
        for held in self._held.values():
            if session in held:
                held.remove(session)

    def tick(self, now_s: float) -> float:
        """Close what is due by now; when to come again."""
        wake_s = math.inf
        for one in self._board.of("okx"):
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

    def write(self, session: OkxSession, instrument: str, payload: bytes) -> Written:
        """What is written of one ticker."""
        return self._frames[session.number].write(instrument, payload)

    def reply(self, session: OkxSession, message: str | bytes) -> list[bytes]:
        """What a client's message is answered."""
        subscriptions = session.subscriptions
        for one in self._board.of("okx"):
            if not isinstance(one.fault, RefusedSubscription) or session.number < one.first_connection:
                continue
            refusal = subscriptions.refuse(message, one.fault.instrument.replace("/", "-"), one.fault.code)
            if refusal and one.chooses():
                one.count()
                return refusal
        before = set(subscriptions.instruments)
        replies = subscriptions.receive(message)
        for one in self._board.of("okx"):
            match one.fault:
                case Silence(pongs=False) if one.chooses():
                    one.count()
                    replies = []
                case AckMissing(data=data) if session.number >= one.first_connection and one.chooses():
                    kept = [reply for reply in replies if not reply.startswith(b'{"event":"subscribe"')]
                    if len(kept) < len(replies):
                        one.count()
                    replies = kept
                    if not data:
                        subscriptions.instruments &= before
        return replies

    def _each(self, active: ActiveFault) -> list[OkxSession]:
        """The present connections in the order in which they were opened, each counted."""
        sessions = sorted(self._sessions, key=lambda session: session.number)
        for _ in sessions:
            active.count()
        return sessions

    def _set_up(self) -> None:
        """Tell the connections how slow and how patient to be."""
        faults = [one.fault for one in self._board.of("okx")]
        pause_s = max((fault.pause_s for fault in faults if isinstance(fault, SlowFrames)), default=0.0)
        patient = any(isinstance(fault, Silence) and not fault.pongs for fault in faults)
        for session in self._sessions:
            session.patient = patient or (session.wire is not None and session.wire.frozen)
            if session.wire is not None:
                session.wire.pause_s = pause_s


def _freeze(session: OkxSession) -> None:
    if session.wire is not None:
        session.wire.freeze()
