"""Consolidated quotes: the best bid and the best ask over all venues of one instrument.

A channel of such a kind (`Kind.made_of`) has no connector. It is made here of what the channels of the other kind
publish, and of how they do: a venue whose quotes do not come, or that there is a remark about, does not count, and the
message says so. A new one is made when the best bid or ask changes (its price, its size, or whose it is), or the set of
those that count. Where two venues bid the same price, the larger size is the better, then the earlier channel of the
configuration. That one venue's bid is above another's ask is usual between venues, and is said as it is.

The topic is `stale` while nobody counts who did. Pure: the sequencer tells it of events and changes of state in their
order, and publishes what it returns. The work per event is bounded by the number of channels that have its instrument;
prices are compared as decimals, digit for digit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal
from typing import Final, TypeAlias

from msgspec import UNSET, Raw, UnsetType

from connectors.base import Event, StateChange
from daemon.health.board import Board, Condition, TopicVerdict
from protocol.channels import Catalogue, Channel
from protocol.fields import ConsolidatedFields, QuoteFields
from protocol.messages import encode, middle
from protocol.payloads import ConsolidatedVenues, VenueQuote

Derived: TypeAlias = Event | StateChange | TopicVerdict
"""What follows from what was published: a message, or how a channel or its topics do."""

_MOST_NAMED: Final = 3
"""How many venues a reason names; the message has them all."""

_NOT_YET: Final = "no quote yet"
_CONNECTING: Final = "connecting"
_OLD: Final = "no quote since it began anew"

_Side: TypeAlias = tuple[Decimal, Decimal, str, Raw, Raw]
"""One side of a quote: price, size, venue, and the digits of both."""


class _Part:
    """One instrument of one channel of quotes: what it said last, and why it does not count.

    `trouble` is what the board has of it, `is_pending` that its quote may come any time.
    """

    __slots__ = (
        "ask",
        "bid",
        "channel",
        "exchange",
        "instrument",
        "is_new",
        "quote",
        "received_ms",
        "topics",
        "trouble",
    )

    def __init__(self, channel: Channel, instrument: str) -> None:
        self.channel = channel
        self.exchange = channel.exchange
        self.instrument = instrument
        self.quote: QuoteFields | None = None
        self.bid: _Side | None = None
        self.ask: _Side | None = None
        self.received_ms = 0
        self.is_new = False
        self.trouble = _CONNECTING
        self.topics: list[_Topic] = []

    @property
    def counts(self) -> bool:
        return self.is_new and not self.trouble

    @property
    def is_pending(self) -> bool:
        return not self.counts and self.trouble in ("", _CONNECTING)

    @property
    def reason(self) -> str:
        """Why it does not count; "" if it does."""
        return self.trouble or ("" if self.is_new else _NOT_YET if self.quote is None else _OLD)

    def take(self, event: Event, quote: QuoteFields) -> None:
        """Its newest quote."""
        self.quote, self.received_ms, self.is_new = quote, event.received_ms, True
        self.bid = _side(quote.bid, quote.bid_size, self.exchange)
        self.ask = _side(quote.ask, quote.ask_size, self.exchange)


class _Topic:
    """One instrument of a consolidated channel, and what was said of it last."""

    __slots__ = ("channel", "condition", "instrument", "parts", "said")

    def __init__(self, channel: Channel, instrument: str) -> None:
        self.channel = channel
        self.instrument = instrument
        self.parts: list[_Part] = []
        self.said: tuple[object, ...] | None = None
        self.condition: Condition | None = None


class Consolidated:
    """All channels of the catalogue that are made of others."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._parts: dict[tuple[str, str], _Part] = {}
        self._topics: dict[str, dict[str, _Topic]] = {}
        self._sources: dict[str, list[_Part]] = {}
        self._lay(board.catalogue)

    def _lay(self, catalogue: Catalogue) -> None:
        """Find what is made of what. What is as it was keeps what it has."""
        parts, topics = self._parts, self._topics
        self._parts, self._topics, self._sources = {}, {}, {}
        for channel in catalogue:
            if not channel.kind.made_of:
                continue
            of_it = self._topics[channel.name] = {}
            for instrument in channel.instruments:
                topic = of_it[instrument] = _Topic(channel, instrument)
                held = topics.get(channel.name, {}).get(instrument)
                topic.said = None if held is None else held.said
                for source in catalogue:
                    if source.kind.name == channel.kind.made_of and instrument in source.instruments:
                        part = self._part(source, instrument, parts)
                        part.topics.append(topic)
                        topic.parts.append(part)

    def _part(self, source: Channel, instrument: str, before: dict[tuple[str, str], _Part]) -> _Part:
        key = (source.name, instrument)
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _Part(source, instrument)
            self._sources.setdefault(source.name, []).append(part)
            held = before.get(key)
            if held is not None and held.channel == source:
                part.quote, part.bid, part.ask = held.quote, held.bid, held.ask
                part.received_ms, part.is_new = held.received_ms, held.is_new
        return part

    def leave(self, channels: Collection[str]) -> None:
        """These channels are about to be removed: nothing is made for them any more."""
        for part in self._parts.values():
            part.topics = [topic for topic in part.topics if topic.channel.name not in channels]
        self._topics = {name: of_it for name, of_it in self._topics.items() if name not in channels}

    def begin(self, now_ms: int) -> list[Derived]:
        """Begin, or go on with the board's present catalogue. Returns what follows at once."""
        self._lay(self._board.catalogue)
        found: list[Derived] = []
        for source in self._sources:
            self._look_at(source)
        for name, topics in self._topics.items():
            if self._board.connector(name).state == "down":
                found.append(StateChange(name, "connecting"))
            found += self._states(name, topics.values())
            for topic in topics.values():
                found += self._judge(topic, now_ms)
        return found

    def took(self, event: Event, now_ms: int) -> list[Derived]:
        """What follows from an event that was published."""
        if event.channel not in self._sources:
            return []
        part, quote = self._parts.get((event.channel, event.instrument)), event.fields
        if part is None or not isinstance(quote, QuoteFields):
            return []
        part.take(event, quote)
        found: list[Derived] = []
        for topic in part.topics:
            if part.counts and (topic.condition is not None or topic.said is None):
                found += self._states(topic.channel.name, [topic])
            found += self._judge(topic, now_ms)
        return found

    def changed(self, channel: str, now_ms: int) -> list[Derived]:
        """What follows from a change of a channel's state, or of how its topics do."""
        if channel not in self._sources:
            return []
        self._look_at(channel)
        concerned: dict[str, list[_Topic]] = {}
        for part in self._sources[channel]:
            for topic in part.topics:
                concerned.setdefault(topic.channel.name, []).append(topic)
        found: list[Derived] = []
        for name, topics in concerned.items():
            found += self._states(name, topics)
            for topic in topics:
                found += self._judge(topic, now_ms)
        return found

    def _look_at(self, channel: str) -> None:
        """Note what the board has of a channel of quotes."""
        board = self._board
        state, topics, remark = board.state(channel), board.topics(channel), board.verdict(channel, "crosscheck")
        begins = board.connector(channel).state != "live"
        for part in self._sources[channel]:
            # What came before the link was lost is no quote of now.
            part.is_new = part.is_new and not begins
            topic = topics.get(part.instrument)
            if topic is not None:
                part.trouble = topic.condition.reason
            elif state.state == "connecting" or (begins and state.state == "live"):
                part.trouble = _CONNECTING
            elif state.state != "live":
                part.trouble = f"{state.state}: {state.reason}" if state.reason else state.state
            elif remark is not None and part.instrument in remark.instruments:
                part.trouble = remark.reason
            else:
                part.trouble = ""

    def _judge(self, topic: _Topic, now_ms: int) -> Iterator[Derived]:
        """The message about an instrument, if there is something new to say. It is as old as the newest that counts."""
        bid = ask = None
        counted: list[str] = []
        received_ms = 0
        for part in topic.parts:
            if part.counts:
                counted.append(part.channel.name)
                received_ms = max(received_ms, part.received_ms)
                if part.bid is not None and (bid is None or part.bid[:2] > bid[:2]):
                    bid = part.bid
                if part.ask is not None and (ask is None or _is_better_ask(part.ask, ask)):
                    ask = part.ask
        if not counted and topic.said is None:
            return
        said = (None if bid is None else bid[:3], None if ask is None else ask[:3], counted)
        if said == topic.said:
            return
        topic.said = said
        yield Event(
            topic.channel.name,
            topic.instrument,
            encode(ConsolidatedVenues(topic.instrument, [_told(part, now_ms) for part in _once_each(topic.parts)])),
            received_ms or max((part.received_ms for part in topic.parts), default=0) or now_ms,
            price="" if bid is None or ask is None else middle(_text(bid[3]), _text(ask[3])),
            fields=_fields(bid, ask),
        )

    def _states(self, channel: str, topics: Collection[_Topic]) -> Iterator[StateChange | TopicVerdict]:
        """How a channel does, and those of its topics, as far as that has changed."""
        is_live = self._board.connector(channel).state == "live"
        if not is_live and any(part.counts for topic in topics for part in topic.parts):
            yield StateChange(channel, "live")
        is_other = False
        for topic in topics:
            condition = _condition(topic)
            if condition != topic.condition:
                topic.condition, is_other = condition, True
        if is_other:
            held = self._topics[channel]
            yield TopicVerdict(
                channel, {name: how for name, topic in held.items() if (how := topic.condition) is not None}
            )


def _condition(topic: _Topic) -> Condition | None:
    """How a topic does that nobody counts for; None where somebody does, or may at any moment for the first time."""
    if any(part.counts for part in topic.parts):
        return None
    if not topic.parts:
        return Condition("stale", "silent", f"no channel of kind {topic.channel.kind.made_of} has it")
    if topic.said is None and any(part.is_pending for part in topic.parts):
        return None
    reasons = [f"{part.exchange}: {part.reason}" for part in _once_each(topic.parts)]
    more = len(reasons) - _MOST_NAMED
    named = "; ".join(reasons[:_MOST_NAMED] + ([f"and {more} more"] if more > 0 else []))
    return Condition("stale", "silent", f"no venue counts: {named}")


def _once_each(parts: list[_Part]) -> Iterator[_Part]:
    """One part of each venue: of several channels the one that counts, else the first."""
    of_venue: dict[str, _Part] = {}
    for part in parts:
        held = of_venue.get(part.exchange)
        if held is None or (part.counts and not held.counts):
            of_venue[part.exchange] = part
    yield from of_venue.values()


def _told(part: _Part, now_ms: int) -> VenueQuote:
    quote = part.quote or _NOTHING
    return VenueQuote(
        exchange=part.exchange,
        bid=_text(quote.bid),
        bid_size=_text(quote.bid_size),
        ask=_text(quote.ask),
        ask_size=_text(quote.ask_size),
        age_ms=None if part.quote is None else max(0, now_ms - part.received_ms),
        counts=part.counts,
        reason=part.reason,
    )


_NOTHING: Final = QuoteFields()


def _text(digits: Raw | UnsetType) -> str:
    return "" if digits is UNSET else bytes(digits).decode()


def _side(price: Raw | UnsetType, size: Raw | UnsetType, exchange: str) -> _Side | None:
    if price is UNSET or size is UNSET:
        return None
    return Decimal(_text(price)), Decimal(_text(size)), exchange, price, size


def _fields(bid: _Side | None, ask: _Side | None) -> ConsolidatedFields:
    return ConsolidatedFields(
        bid=UNSET if bid is None else bid[3],
        bid_size=UNSET if bid is None else bid[4],
        bid_exchange=UNSET if bid is None else bid[2],
        ask=UNSET if ask is None else ask[3],
        ask_size=UNSET if ask is None else ask[4],
        ask_exchange=UNSET if ask is None else ask[2],
    )


def _is_better_ask(one: _Side, other: _Side) -> bool:
    return one[0] < other[0] or (one[0] == other[0] and one[1] > other[1])
