"""What is said on one connection to a venue: subscriptions, heartbeats, data, and what follows from each.

It neither opens the connection nor knows the websocket: it is given batches of payloads and a function that sends a
text. What it has for the daemon goes to its `Side`. Three tasks run it:

    speak     sends all that is sent: subscriptions, heartbeats; and notices silence
    listen    reads batches of payloads, and publishes their events
    attend    fetches what the conversation needs of the venue's HTTP interface, and lets it say what is due

A lock keeps what `listen` and `attend` publish in the order in which the conversation made it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from itertools import count
from math import inf
from typing import Final, NoReturn, assert_never

import trio

from connectors.base import (
    ConnectorError,
    Event,
    PayloadError,
    Rows,
    StateChange,
    TopicNote,
    VenueClosed,
    VenueRefused,
    VenueUnavailable,
)
from connectors.capture.tap import NO_TAP, Tap
from connectors.limits.allowance import Allowance
from connectors.limits.notes import NoteLimit
from connectors.push.inlet import Batch
from connectors.push.intake import FeedStatistics, Intake
from connectors.push.merge import Side
from connectors.push.pulse import Patience, Pulse
from connectors.push.subscriptions import Subscriptions
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Conversation,
    FeedVenue,
    Fetch,
    Fetcher,
    Heartbeat,
    Ignored,
    Reconnect,
    Renew,
    Said,
    Several,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRefused,
)
from connectors.set_aside import SetAside

_log: Final = logging.getLogger(__name__)

CONTROLS_PER_S: Final = 1_000
CONTROLS_BURST: Final = 4_000
"""How many messages that are no data a venue may send: in a second for long, and at once."""

REFUSALS_PER_S: Final = 1
REFUSALS_BURST: Final = 100
"""How many refusals, beside two for each subscription: each is logged, and told to the clients."""

LONGEST_FETCH_S: Final = 60.0
"""The longest pause before what could not be fetched is tried again."""

_LONG_S: Final = 1.0
"""A hub that is busy for so long delays what is owed to us by as much."""


class _Over(Conversation):
    """What a connection says that is over."""

    def handle(self, payload: bytes, received_ms: int) -> Ignored:
        """Nothing."""
        return Ignored("a frame after the end")


_OVER: Final = _Over()


class FeedSession:
    """One connection's, from before it is opened to its end."""

    def __init__(
        self,
        venue: FeedVenue,
        side: Side,
        counts: FeedStatistics,
        set_aside: SetAside,
        patience: Patience,
        *,
        silence_s: float,
        data_s: float,
        fetcher: Fetcher | None = None,
        tap: Tap = NO_TAP,
    ) -> None:
        """The connection is about to be opened. For the arguments see `Feed`; `tap` is told what is said."""
        self._tap = tap
        self._number = tap.number()
        self._talk: Conversation = venue.converse()
        side.restate = self._restate
        self._fetcher = fetcher
        self._fetching: set[str] = set()
        self._lock = trio.Lock()
        self._owes = trio.Event()
        """Set when `attend` has to look at what is due, or to fetch."""
        self._to_fetch: list[Fetch] = []
        self._due_ms = inf
        """When `attend` looks at what is due, by the clock of `Side.now_ms`."""
        self._began_s = now_s = trio.current_time()
        self._venue = venue
        self._side = side
        self._counts = counts
        self._set_aside = set_aside
        self._patience = patience
        self._subscriptions = Subscriptions(
            venue.subscribe_requests(),
            set_aside,
            title=venue.title,
            data_s=data_s,
            requests_per_hour=venue.rules.requests_per_hour,
            now_s=now_s,
            spacing_s=venue.rules.request_spacing_s,
            shared=venue.parts,
        )
        self._intake = Intake(venue.name, self._talk, counts)
        self._pulse = Pulse(venue.title, venue.rules, silence_s=patience.silence_s(silence_s), now_s=now_s)
        self._controls = Allowance(CONTROLS_PER_S, CONTROLS_BURST, now_s)
        self._notes = NoteLimit()
        refusals = REFUSALS_BURST + 2 * len(venue.subscribe_requests())
        self._refusals = Allowance(REFUSALS_PER_S, refusals, now_s)
        self._put_off = False
        """Whether `speak` has something to ask, perhaps, that has to wait until frames are worked off."""
        self._wakes, self._woken = trio.open_memory_channel[str](16)
        """Wakes `speak`: a text to send, or "" where only the deadlines have changed."""

    @property
    def is_settled(self) -> bool:
        """Whether every subscription is acknowledged or set aside."""
        return self._subscriptions.are_settled

    def end(self) -> None:
        """It is over: what that says about how long the next one may be silent."""
        self._patience.ended(talks=self._pulse.talks, silent=self._pulse.is_silent)

    def closed(self, reason: str) -> None:
        """However it ended: why, for the record."""
        self._tap.closed(self._number, reason, self._side.now_ms())
        # What ended it and the tasks that were cancelled for it refer to each other (trio's exceptions do), and to
        # this. They stay until the collector looks at old objects, which is seldom; whole books need not stay as long.
        self._talk = _OVER
        self._intake = Intake(self._venue.name, _OVER, self._counts)

    async def prepare(self) -> None:
        """Before connecting: tell what cannot come up.

        Raises:
            VenueRefused: nothing can.
        """
        now_s = trio.current_time()
        await self._tell(self._subscriptions.opening(now_s))
        self._stop_if_all_refused(now_s)

    def begin(self, address: str) -> None:
        """The connection is open: what the venue owes us, it owes from now on. `address` is for the record."""
        now_s = trio.current_time()
        self._tap.opened(self._number, address, self._side.now_ms())
        self._counts.connections += 1
        self._pulse.open(now_s)
        self._subscriptions.excuse(now_s - self._began_s)

    async def speak(self, send: Callable[[str], Awaitable[None]]) -> NoReturn:
        """Send what is due.

        Raises:
            VenueUnavailable: the venue is silent.
            Exception: whatever `send` raises.
        """
        pulse, subscriptions = self._pulse, self._subscriptions
        send = partial(self._send, send)
        while True:
            now_s = trio.current_time()
            pulse.check(now_s)
            wake_s = pulse.next_due_s(now_s)
            # While answers may lie unread, nobody is late.
            self._put_off = pulse.is_busy
            if not pulse.is_busy:
                await self._ask(send, now_s)
                if pulse.ping_due(now_s) and self._venue.rules.ping:
                    await send(self._venue.rules.ping)
                wake_s = min(pulse.next_due_s(now_s), subscriptions.next_due_s())
            text = ""
            with trio.move_on_at(wake_s):
                text = await self._woken.receive()
            if text:
                await send(text)

    async def _send(self, send: Callable[[str], Awaitable[None]], text: str) -> None:
        await send(text)
        self._tap.sent(self._number, text, self._side.now_ms())

    async def listen(self, batches: AsyncIterable[Batch]) -> None:
        """Work off what comes, to the end of the batches.

        Raises:
            PayloadError: too much of it cannot be read.
            VenueRefused: nothing is left to hear.
            VenueUnavailable: the venue floods us, or the conversation wants another connection.
        """
        async for batch in batches:
            since_s = trio.current_time()
            self._pulse.work()
            had_data = False
            async with self._lock:
                # Where it has its turn: in the order in which the conversation is told of everything.
                self._tap.frames(self._number, batch.payloads, batch.received_ms)
                for said in self._intake.read(batch):
                    if isinstance(said, list):
                        had_data = True
                        await self._publish(said)
                    elif isinstance(said, Rows):
                        await self._note(said)
                        for control in said.controls if isinstance(said, Said) else ():
                            await self._heed(control)
                    else:
                        await self._heed(said)
            wait_ms = self._talk.waits_ms(batch.received_ms)
            if wait_ms is not None and batch.received_ms + wait_ms < self._due_ms:
                self._owes.set()
            now_s = trio.current_time()
            self._pulse.rest(now_s, had_data=had_data)
            if self._put_off:
                self._wake("")
            if now_s - since_s >= _LONG_S:
                self._subscriptions.excuse(now_s - since_s)
                self._wake("")

    async def attend(self) -> NoReturn:
        """Fetch what is needed, and publish what is due without a message of the venue.

        Raises:
            VenueUnavailable: the conversation wants another connection.
        """
        async with trio.open_nursery() as fetches:
            while True:
                now_ms = self._side.now_ms()
                wait_ms = self._talk.waits_ms(now_ms)
                self._due_ms = inf if wait_ms is None else now_ms + wait_ms
                with trio.move_on_after(inf if wait_ms is None else wait_ms / 1000):
                    await self._owes.wait()
                self._owes = trio.Event()
                while self._to_fetch:
                    fetches.start_soon(self._fetch, self._to_fetch.pop(0))
                async with self._lock:
                    now_ms = self._side.now_ms()
                    wait_ms = self._talk.waits_ms(now_ms)
                    if wait_ms is not None and wait_ms <= 0:
                        await self._take(self._talk.tick(now_ms))

    async def _fetch(self, need: Fetch) -> None:
        """Fetch it, however often that takes.

        Raises:
            VenueUnavailable: the conversation wants another connection.
        """
        for attempt in count():
            error = await self._try_to_fetch(need)
            if error is None:
                return
            wait_s = max(min(2.0**attempt, LONGEST_FETCH_S), error.retry_after_s or 0.0)
            if attempt in (0, 3, 6):  # the first, and twice more while it waits longer and longer
                _log.warning("%s: %s; fetched again in %.0f s", self._venue.name, error, wait_s)
            await self._side.note(self._notes.due(self._talk.unfetched(need.id, str(error)), trio.current_time()))
            await trio.sleep(wait_s)

    async def _try_to_fetch(self, need: Fetch) -> ConnectorError | None:
        """Fetch it once, and publish what becomes of it; returns why it cannot be used."""
        try:
            if self._fetcher is None:
                raise VenueUnavailable(f"{self._venue.title} has no address to fetch from")
            body = await self._fetcher.get(need.path)
        except ConnectorError as error:
            self._tap.unfetched(self._number, need.id, need.path, str(error), self._side.now_ms())
            return error
        async with self._lock:
            try:
                self._tap.fetched(self._number, need.id, need.path, body, self._side.now_ms())
                said = self._talk.fetched(need.id, body, self._side.now_ms())
            except PayloadError as error:
                return error
            self._fetching.discard(need.id)
            self._counts.fetches += 1
            await self._take(said)
        self._owes.set()
        return None

    async def _take(self, said: list[Event] | Rows) -> None:
        """Publish what did not come as a frame of the connection; with the lock."""
        if isinstance(said, Rows):
            await self._note(said)
            said = said.events
        await self._publish(said)

    def _restate(self) -> list[Event]:
        return self._talk.restate(self._side.now_ms())

    async def _note(self, said: Rows) -> None:
        """Tell what is wrong with single topics, and see to what is needed."""
        now_s = trio.current_time()
        urgent = [note for note in said.notes if note.cause == "gap" and not note.partial]
        others = [note for note in said.notes if note not in urgent]
        await self._side.note([*urgent, *self._notes.due(others, now_s)])
        for need in said.needs if isinstance(said, Said) else ():
            match need:
                case Renew():
                    if self._subscriptions.renew(need.id, now_s):
                        self._counts.renewals += 1
                        _log.warning("%s: %s; it is asked for anew", self._venue.name, need.reason)
                        self._wake("")
                case Fetch():
                    if need.id not in self._fetching:
                        self._fetching.add(need.id)
                        self._to_fetch.append(need)
                        self._owes.set()
                case Reconnect():
                    raise VenueClosed(need.reason)
                case _:
                    assert_never(need)

    async def _ask(self, send: Callable[[str], Awaitable[None]], now_s: float) -> None:
        """Send the subscriptions that are due, and tell which are late."""
        for request in self._subscriptions.leaving(now_s):
            await send(request.leave)
        due = self._subscriptions.due(now_s)
        for request in due.requests:
            await send(request.text)
        for change in due.changes:
            _log.warning(
                "%s: %s: %s", self._venue.name, change.channel, change.reason, extra={"channel": change.channel}
            )
        await self._tell(due.changes)

    async def _tell(self, changes: Iterable[StateChange | TopicNote]) -> None:
        for change in changes:
            if isinstance(change, TopicNote):
                await self._side.note([change])
            else:
                await self._side.report(change)

    async def _publish(self, events: list[Event]) -> None:
        """Waits while the hub is busy, and that is what slows the venue."""
        if events:
            await self._side.publish(events)
            self._counts.events += len(events)
            subscriptions = self._subscriptions
            # Which instruments they are of matters only while an answer is awaited.
            topics = {(event.channel, event.instrument) for event in events} if subscriptions.are_awaited else ()
            subscriptions.heard({event.channel for event in events}, trio.current_time(), topics)

    async def _heed(self, control: Control) -> None:
        """Deal with a message that is no data.

        Raises:
            VenueRefused: nothing is left to hear.
            VenueUnavailable: there are too many of them.
        """
        now_s = trio.current_time()
        if not self._controls.take(1, now_s):
            what = f"more than {CONTROLS_PER_S} messages a second that are no data"
            raise VenueUnavailable(f"{self._venue.title} sent {what}")
        match control:
            case SubscribeAck():
                self._subscriptions.acknowledged(control.id)
            case SubscribeRefused():
                if not self._refusals.take(1, now_s):
                    raise VenueUnavailable(f"{self._venue.title} refuses without end; at last: {control.reason}")
                _log.warning("%s: %s", self._venue.name, control.reason)
                await self._tell(self._subscriptions.refused(control, now_s))
                self._stop_if_all_refused(now_s)
                self._wake("")
            case SubscribeEnded():
                self._subscriptions.ended(control.id, now_s)
                self._wake("")
            case ClosingNotice():
                self._side.announce_end(control.reason)
            case Heartbeat():
                self._pulse.answers = True
                self._wake(control.answer)
            case Ignored():
                self._counts.ignored += 1
            case Several():
                for single in control.controls:
                    await self._heed(single)
            case _:
                assert_never(control)

    def _wake(self, text: str) -> None:
        try:
            self._wakes.send_nowait(text)
        except trio.WouldBlock:
            # It is about to look at its deadlines; and who pings faster than that gets fewer
            # answers.
            return

    def _stop_if_all_refused(self, now_s: float) -> None:
        """Raises: VenueRefused, where everything is set aside."""
        retry_after_s = self._subscriptions.retry_after_s(now_s)
        if retry_after_s is not None:
            raise VenueRefused(", ".join(self._set_aside.reasons()), retry_after_s=retry_after_s)
