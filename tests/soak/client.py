"""A client as there are worse ones in the world: it comes and goes, stalls, changes its mind, resumes, and misbehaves.

Everything it does is drawn from its own seed; when it happens depends on the machine, of course.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from tests.soak import misdeeds
from tests.soak.listener import Asked, Listener
from tests.soak.record import Format, Session
from tests.soak.reference import Reference
from tests.soak.way import Way
from tests.soak.wire import Connection, EndedError

SETTLE_S: Final = 4.0
"""For so long a client listens at least before it takes its leave."""

PATIENCE_S: Final = 12.0
"""For so long no message comes: what was published before must have come."""

DRAIN_S: Final = 60.0
"""For so long at most: a client with a small window that has stalled takes what is kept for it slowly."""

KERNEL_S: Final = 60.0
"""For so long at most the kernel may hold back what the daemon has given it: its timers have no longer waits here."""

_WELCOME_S: Final = 20.0
_END_S: Final = 8.0

_FORMATS: Final[tuple[Format, ...]] = ("json", "msgpack")
_INTERVALS_MS: Final = (50, 200, 700, 2000)

_DEEDS: Final = {
    "listen": 10,
    "subscribe": 8,
    "unsubscribe": 3,
    "ping": 3,
    "garbage": 1,
    "stall": 3,
    "flood": 0.3,
    "hop": 0.5,
}
_ENDINGS: Final = {"leave": 6, "reset": 2, "vanish": 2, "half_close": 2, "break_frame": 2}


STORM_EVERY_S: Final = 20.0
"""At these moments everybody is cut off at once, as by a load balancer that restarts, and comes back at once."""

_HOPS: Final = 20


class Tally:
    """What the clients did, all together."""

    def __init__(self) -> None:
        self.deeds: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.sessions = 0


class Client:
    """One client, with all its sessions.

    Attributes:
        sessions: Its record.
    """

    def __init__(
        self, number: int, seed: int, channels: Sequence[str], reference: Reference, tally: Tally, way: Way
    ) -> None:
        self.number = number
        self.sessions: list[Session] = []
        self._dice = random.Random(f"{seed}/{number}")
        self._port = way.port
        self._channels = channels
        self._reference = reference
        self._tally = tally
        self._way = way
        self._positions: dict[str, int] = {}
        self._epoch = ""
        self._in_storm = False

    async def run(self, until_s: float, most_away_s: float) -> None:
        """Come and go until that time, on trio's clock; then take leave."""
        while True:
            away_s = self._dice.uniform(0, most_away_s) if self._dice.random() < 0.4 else self._dice.uniform(0, 1)
            away_s = 0.0 if self._in_storm else away_s
            if trio.current_time() + away_s >= until_s:
                return
            await trio.sleep(away_s)
            if not self._in_storm and self._dice.random() < 0.03:
                self._tally.deeds["stray"] += 1
                await misdeeds.stray(self._port, self._dice)
            elif not self._in_storm and self._dice.random() < 0.04:
                self._tally.deeds["http flood"] += 1
                await misdeeds.http_flood(self._port, self._dice)
            else:
                await self._visit(until_s)

    # ---- one session ------------------------------------------------------------------------------------------------

    async def _visit(self, until_s: float) -> None:
        dice = self._dice
        session = Session(self.number, len(self.sessions) + 1, dice.choice(_FORMATS))
        try:
            with trio.fail_after(_WELCOME_S):
                connection = await Connection.open(self._port, dice, session.format, tiny=dice.random() < 0.5)
        except (EndedError, OSError, trio.TooSlowError) as error:
            session.remarks.append(f"was not let in: {error!r}")
            self.sessions.append(session)
            return
        listener = Listener(connection, session, dice)
        self.sessions.append(session)
        self._tally.sessions += 1
        try:
            await listener.wait_welcome(_WELCOME_S)
            if listener.epoch != self._epoch:
                self._epoch, self._positions = listener.epoch, {}
            await self._stay(listener, until_s)
            if trio.current_time() >= until_s:
                await self._end(listener, "leave")
            else:
                await self._end(listener, "reset" if self._in_storm else self._draw(_ENDINGS))
        except EndedError as end:
            self._ended(listener, end)
        finally:
            connection.close()
            listener.hold()
            for channel in listener.touched:
                self._positions.pop(channel, None)
            self._positions |= listener.positions
            self._tally.said.update(listener.counts)

    def _draw(self, weights: Mapping[str, float]) -> str:
        return self._dice.choices(list(weights), list(weights.values()))[0]

    def _ended(self, listener: Listener, end: EndedError) -> None:
        """The connection ended while the client wanted to stay."""
        code = str(end.code or "none")
        self._tally.closes[code] += 1
        if not listener.naughty:
            listener.session.remarks.append(f"closed with {code} {end.reason!r} without having done anything")

    async def _stay(self, listener: Listener, until_s: float) -> None:
        dice = self._dice
        now_s = trio.current_time()
        end_s = min(until_s, now_s + dice.choice((2.0, 6.0, 15.0, 40.0)) * dice.uniform(0.3, 1))
        storm_s = (now_s // STORM_EVERY_S + 1) * STORM_EVERY_S
        self._in_storm = storm_s < end_s
        end_s = min(end_s, storm_s)
        if self._in_storm:
            self._tally.deeds["storm"] += 1
        await self._resume(listener)
        while (left_s := end_s - trio.current_time()) > 0:
            await listener.listen(min(left_s, dice.expovariate(0.7)))
            deed = self._draw(_DEEDS)
            listener.session.deeds.append((trio.current_time(), f"{deed} after seq {listener.newest}"))
            self._tally.deeds[deed] += 1
            match deed:
                case "subscribe":
                    await listener.subscribe(self._wish())
                case "unsubscribe":
                    await listener.unsubscribe(self._some_channels())
                case "ping":
                    await listener.ping()
                case "garbage":
                    listener.naughty = True
                    await listener.connection.send_frame(*misdeeds.garbage(listener.connection.format, dice))
                case "stall":
                    listener.naughty = True
                    await trio.sleep(max(0.0, min(until_s - trio.current_time(), dice.choice((1, 5, 12, 25)))))
                case "hop":
                    for _ in range(_HOPS):
                        hop = Asked(channels=(self._channels[0],), interval_ms=dice.randint(50, 3_600_000))
                        await listener.subscribe(hop)
                    await listener.subscribe(Asked(channels=(self._channels[0],), interval_ms=_INTERVALS_MS[0]))
                case "flood":
                    listener.naughty = True
                    await misdeeds.flood(listener.connection, dice)
                case _:
                    pass

    def _some_channels(self) -> tuple[str, ...]:
        names = self._channels
        if self._dice.random() < 0.2:
            return ("*",)
        return tuple(self._dice.sample(names, self._dice.randint(1, min(4, len(names)))))

    def _wish(self) -> Asked:
        """A subscription out of the blue."""
        dice = self._dice
        channels = self._some_channels()
        asked = Asked(channels=channels, snapshot=dice.random() < 0.8)
        if dice.random() < 0.3:
            asked.instruments = tuple(
                dice.sample(("BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT"), dice.randint(1, 3))
            )
        if dice.random() < 0.3:
            asked.interval_ms = dice.choice(_INTERVALS_MS)
        if dice.random() < 0.1:
            self._tally.deeds["doubtful since"] += 1
            asked.since, asked.known = dice.choice(((self._reference.head // 2, True), (7, False)))
        return asked

    async def _resume(self, listener: Listener) -> None:
        """Subscribe: mostly from where the client was, each channel for itself or all from the oldest position."""
        dice, positions = self._dice, dict(self._positions)
        if not positions or dice.random() < 0.2:
            await listener.subscribe(self._wish())
            return
        self._tally.deeds["resume"] += 1
        instruments = ("BTC/USDT", "ETH/USDT") if dice.random() < 0.2 else None
        interval_ms = dice.choice(_INTERVALS_MS) if dice.random() < 0.1 else 0
        together = [tuple(positions)] if dice.random() < 0.5 else [(channel,) for channel in positions]
        for channels in together:
            since = min(positions[channel] for channel in channels)
            await listener.subscribe(
                Asked(channels=channels, instruments=instruments, interval_ms=interval_ms, since=since, honest=True)
            )

    # ---- and its end ------------------------------------------------------------------------------------------------

    async def _end(self, listener: Listener, how: str) -> None:
        dice, connection = self._dice, listener.connection
        self._tally.deeds[how] += 1
        match how:
            case "leave":
                await self._settle(listener)
                late = listener.unanswered()
                listener.session.unanswered = () if listener.naughty else late
                listener.naughty = True
                await connection.send_frame(8, misdeeds.NORMAL)
                await listener.listen_to_the_end(_END_S)
            case "reset":
                connection.reset()
            case "half_close":
                connection.half_close()
                await listener.listen_to_the_end(_END_S)
            case "break_frame":
                listener.naughty = True
                await connection.send(misdeeds.broken(connection.format, dice))
                await listener.listen_to_the_end(_END_S)
                self._tally.closes[f"{listener.closed_by_daemon or 'none'} (broken frame)"] += 1
            case _:
                pass  # without a word

    async def _settle(self, listener: Listener) -> None:
        """Listen until everything that has been published by now must have come.

        A client that is behind gets it in order: once something later has come, it is complete. A channel that is
        silent meanwhile says nothing, so there is an end to the patience. Answers are waited for just as long. Patience
        is with the daemon alone: what the kernel holds for this client while a timer of its own runs, the daemon has
        sent.
        """
        head = self._reference.head
        listener.connection.widen()
        began_s = listener.heard_s = trio.current_time()
        listener.session.deeds.append((began_s, f"settle from seq {listener.newest} to {head}"))
        await listener.listen(SETTLE_S)
        was_held = False
        while (listener.taken and listener.newest <= head) or (listener.unanswered() and not listener.naughty):
            now_s = trio.current_time()
            if now_s > min(listener.heard_s + PATIENCE_S, began_s + DRAIN_S):
                held = self._way.held(listener.connection.local_port)
                waits = held is not None and held.waiting_bytes > 0 and held.due_s is not None
                if not waits and was_held:
                    was_held = False  # It has just come, and is still to be read.
                    await listener.listen(1.0)
                    continue
                if not waits or now_s > listener.heard_s + KERNEL_S:
                    listener.session.evidence = await self._way.evidence(listener.connection.local_port)
                    break
                was_held = True
            await listener.listen(0.5)
        # What is taken at an interval does not come in order with the rest, but when it is due.
        due_s = max((ms / 1000 for ms in listener.taken.values() if ms <= _INTERVALS_MS[-1]), default=0.0)
        if due_s and listener.newest > head:
            await listener.listen(due_s + 1.0)
        if was_held:
            self._tally.deeds["waited for the kernel"] += 1
        port = listener.connection.local_port
        listener.session.evidence = listener.session.evidence or await self._way.opinion(port)
        listener.session.deeds.append((trio.current_time(), f"settled at seq {listener.newest}"))
        listener.session.complete_to, listener.session.longest_ms = head, _INTERVALS_MS[-1]
