"""`GET /history/{channel}`: what there still is of a channel's messages, further and further back.

Of most kinds that is what the tape has: `limit` messages before the position `before`, as they were sent, oldest first.
Of books that are told in changes the keyframes are among them, so that a book can be rebuilt from the first
`depth_snapshot` on.

Of candles it is one message each: the newest that the tape has. Closed ones that the tape does not have, or has only as
they were before they closed, come from the venue's own history (`connectors.poll.past_candles`), which may have to be
waited for: a few seconds at most. Without it the answer is what the tape has, and says why.

An answer is bounded in messages and in bytes, and made in small steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import trio
from msgspec import UNSET, Raw

from connectors.limits.rows import FIRST_MS
from connectors.poll.candles import PastCandle, end_ms, length_ms
from connectors.poll.past_candles import Past
from daemon.front.http import Later, Refused, Request, Response
from daemon.host.clock import WallClock
from daemon.routes.query import LAST, LONGEST_SHOWN, fields, number
from daemon.tape.entry import keyframe_topic
from daemon.tape.history import Candle, Stretch, candles, complete_from, oldest_candle
from daemon.tape.tape import Entry, Tape, Topic
from protocol.answers import History
from protocol.channels import WHOLE_MARKET, Channel
from protocol.codes import ErrorCode
from protocol.kinds import TopicState, View
from protocol.messages import Data, encode
from protocol.session import ALL

DEFAULT_LIMIT: Final = 500
MOST: Final = 2000

MOST_BYTES: Final = 1024 * 1024
"""So large may the messages of an answer be together; one comes even if it is larger."""

_AT_ONCE: Final = 32
_MESSAGES_AT_ONCE: Final = 256
"""After so many candles, or other messages, others have their turn."""


_Found: TypeAlias = dict[tuple[int, str], Entry | PastCandle]
"""Candles by when they began, and the instrument."""


class PastView(Protocol):
    """Who asks a venue for past candles: `connectors.poll.past_candles.PastCandles`, here or in another process."""

    async def get(self, instrument: str, interval: str, spans: Sequence[tuple[int, int]]) -> Past:
        """The closed candles that began within these spans."""
        ...


class Histories:
    """Answers requests for the history of a channel."""

    def __init__(self, tape: Tape, clock: WallClock, past: Callable[[str], PastView | None]) -> None:
        """`past`: who asks a venue, by its name, for past candles; None if nobody does."""
        self._tape = tape
        self._clock = clock
        self._past = past

    def answer(self, request: Request, channel: Channel, instrument: str) -> Later:
        """What there is to be waited for. `instrument` may be `ALL`. No checkpoint.

        Raises:
            Refused: 400, a number is not what is allowed.
        """
        asked = fields(request, ("limit", "before", "before_ms"))
        limit = number(asked, "limit", 1, MOST, DEFAULT_LIMIT)
        before = number(asked, "before", 1, LAST, LAST)
        before_ms = number(asked, "before_ms", 0, LAST, 0) if "before_ms" in asked else None
        names = (channel.instruments or (WHOLE_MARKET,)) if instrument == ALL else (instrument,)
        topics = [(channel.name, name) for name in names]
        if channel.kind.view is View.CANDLE:
            past = self._past(channel.exchange)
            return CandleAnswer(self._tape, self._clock, past, channel, topics, limit, before, before_ms)
        if before_ms is not None:
            seen = f"before_ms is {asked['before_ms'][:LONGEST_SHOWN]!r}; it is for candles, and {channel.name} is of "
            raise Refused(400, ErrorCode.INVALID_FIELD, f"{seen}{channel.kind.name}: send before, a seq")
        if channel.kind.state is TopicState.DELTA:
            topics += [keyframe_topic(topic) for topic in topics]
        # What is appended while it is made comes later than the position that the answer names.
        found = Stretch(self._tape, topics, min(before, self._tape.head + 1), limit, MOST_BYTES)
        return TapeAnswer(self._tape, self._clock, channel, instrument, found)


class TapeAnswer:
    """The history of messages that the tape has."""

    def __init__(self, tape: Tape, clock: WallClock, channel: Channel, instrument: str, stretch: Stretch) -> None:
        self._tape = tape
        self._clock = clock
        self._channel = channel
        self._instrument = instrument
        self._stretch = stretch
        self._seq = tape.head

    async def wait(self) -> None:
        """Take the messages in small steps."""
        while self._stretch.step(_MESSAGES_AT_ONCE):
            await trio.lowlevel.checkpoint()

    def answer(self) -> Response:
        """The response."""
        entries, more = self._stretch.entries, self._stretch.more
        return Response(
            200,
            encode(
                History(
                    timestamp=self._clock.timestamp(),
                    channel=self._channel.name,
                    instrument=UNSET if self._instrument == ALL else self._instrument,
                    epoch=self._tape.epoch,
                    seq=self._seq,
                    complete_from=self._stretch.complete_from,
                    more=more,
                    before=entries[0].seq if more else UNSET,
                    messages=[Raw(entry.payload) for entry in entries],
                )
            ),
        )


class CandleAnswer:
    """The history of candles: a span of time, with what the tape and the venue have of it."""

    def __init__(
        self,
        tape: Tape,
        clock: WallClock,
        past: PastView | None,
        channel: Channel,
        topics: Sequence[Topic],
        limit: int,
        before: int,
        before_ms: int | None,
    ) -> None:
        self._tape = tape
        self._clock = clock
        self._past = past
        self._channel = channel
        self._topics = topics
        self._limit = limit
        self._is_long_past = before <= tape.head
        self._before = min(before, tape.head + 1)
        self._before_ms = before_ms
        self._length = length_ms(channel.interval)
        self._seq = tape.head
        self._from_ms = 0
        self._more = False
        self._reasons: dict[str, None] = {}
        self._messages: list[Raw] = []

    async def wait(self) -> None:
        """Look through the tape in small steps, and wait for the venue, for some seconds at most."""
        until_ms = await self._until_ms()
        self._from_ms = max(0, until_ms - self._limit * self._length)
        found: _Found = {}
        for topic in self._topics:
            here, older = await self._on_tape(topic, until_ms)
            self._more = self._more or older
            found |= {(start_ms, topic[1]): entry for start_ms, (_, entry) in here.items()}
            if self._past is None:
                self._reasons[f"there is no history of {self._channel.exchange} but the tape"] = None
            elif len(self._topics) > 1:
                self._reasons["the venue's own history is of one instrument: name one"] = None
            else:
                past = await self._past.get(topic[1], self._channel.interval, self._spans(here, until_ms))
                found |= {(candle.start_ms, topic[1]): candle for candle in past.candles}
                self._more = self._more or not (past.begins or self._from_ms <= FIRST_MS)
                if past.reason:
                    self._reasons[past.reason] = None
        await self._write(found)

    def answer(self) -> Response:
        """The response."""
        return Response(
            200,
            encode(
                History(
                    timestamp=self._clock.timestamp(),
                    channel=self._channel.name,
                    instrument=self._topics[0][1] if len(self._topics) == 1 else UNSET,
                    interval=self._channel.interval,
                    epoch=self._tape.epoch,
                    seq=self._seq,
                    complete_from=complete_from(self._tape, self._topics),
                    more=self._more,
                    before_ms=self._from_ms if self._more else UNSET,
                    reason="; ".join(self._reasons),
                    messages=self._messages,
                )
            ),
        )

    async def _until_ms(self) -> int:
        """The end of the span: what was asked for, or after the present candle, or after the tape's newest."""
        if self._before_ms is not None:
            return self._before_ms
        told = 0
        for topic in self._topics:
            await trio.lowlevel.checkpoint()
            newest = next(self._candles(topic), (None, None))[0]
            if newest is not None:
                told = max(told, newest.start_ms + 1)
            elif (oldest := oldest_candle(self._tape, topic)) is not None:
                told = max(told, oldest.start_ms)
        now_ms = self._clock.now_ms()
        present = now_ms // self._length * self._length + self._length
        # The venue's clock may be ahead of ours.
        return told if told and self._is_long_past else max(present, told)

    async def _on_tape(self, topic: Topic, until_ms: int) -> tuple[dict[int, tuple[Candle, Entry]], bool]:
        """The tape's candles of the span by when they began, the oldest first; and whether it has older ones."""
        found: dict[int, tuple[Candle, Entry]] = {}
        older = False
        for looked, (candle, entry) in enumerate(self._candles(topic), 1):
            if looked % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if candle.start_ms < self._from_ms:
                older = True
                break
            if candle.start_ms < until_ms:
                found.setdefault(candle.start_ms, (candle, entry))
        return dict(sorted(found.items())), older

    def _candles(self, topic: Topic) -> Iterator[tuple[Candle, Entry]]:
        return candles(self._tape, topic, self._before, self._channel.interval)

    def _spans(self, here: Mapping[int, tuple[Candle, Entry]], until_ms: int) -> list[tuple[int, int]]:
        """Where candles are missing: before those that the tape has, between them, and behind."""
        spans: list[tuple[int, int]] = []
        now_ms, from_ms, interval = self._clock.now_ms(), self._from_ms, self._channel.interval
        for start_ms, (candle, _) in here.items():
            ends_ms = end_ms(interval, start_ms)
            if not candle.closed and ends_ms <= now_ms:
                continue  # it was told before it closed
            if start_ms - from_ms >= self._length:
                spans.append((from_ms, start_ms))
            from_ms = ends_ms
        return [*spans, (from_ms, until_ms)] if until_ms > from_ms else spans

    async def _write(self, found: _Found) -> None:
        """Make messages of what was found, the newest first, within the bounds.

        Of several instruments all candles that began at one time come together, or whoever goes on would miss some.
        """
        size, oldest_ms = 0, 0
        for start_ms, instrument in sorted(found, reverse=True):
            if start_ms != oldest_ms and self._messages and (size > MOST_BYTES or len(self._messages) >= MOST):
                self._more, self._from_ms = True, oldest_ms
                break
            each, oldest_ms = found[start_ms, instrument], start_ms
            message = each.payload if isinstance(each, Entry) else self._message(each, instrument)
            size += len(message)
            self._messages.append(Raw(message))
            if len(self._messages) % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        self._messages.reverse()

    def _message(self, candle: PastCandle, instrument: str) -> bytes:
        """A candle of the venue's own history, in the form of those that are sent."""
        make: Callable[..., Data] = self._channel.kind.message
        return encode(
            make(
                connector_id=self._channel.name,
                exchange=self._channel.exchange,
                instrument=instrument,
                price=candle.close,
                timestamp=self._clock.iso(candle.received_ms),
                seq=0,
                prev_seq=0,
                received_ms=candle.received_ms,
                cached=True,
                data=candle.data,
                interval=self._channel.interval,
                start_ms=candle.start_ms,
                open=candle.open,
                high=candle.high,
                low=candle.low,
                close=candle.close,
                volume=candle.volume,
                closed=True,
            )
        )
