"""The one task that watches all channels: is their data fresh, and is it plausible?

Several times a second it evaluates the freshness contract of every channel, and once a second the cross-check. Their
findings become verdicts, which the sequencer puts on the board and sends to the clients in the same step. So a broken
contract is noticed within `LOOK_S`, and clients are told at once.

It reads only existing data (the board's counts, the newest entry of each topic on the tape); it does no work per
message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Literal, assert_never

import msgspec
import trio

from connectors.metric import Histogram, Samples
from daemon.health.board import Board, Source, TopicVerdict, Verdict
from daemon.health.crosscheck import CrossCheck, Quote, Tolerances
from daemon.health.freshness import Freshness
from daemon.health.topics import Topics
from daemon.host.loop_clock import passed_s
from protocol.channels import Channel
from protocol.kinds import View

LOOK_S: Final = 0.25
"""The time between two looks at all channels."""

_CROSSCHECK_EVERY: Final = 4
"""The cross-check runs at every fourth look."""

_log: Final = logging.getLogger(__name__)


class _Book(msgspec.Struct):
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []


class _Booked(msgspec.Struct):
    seq: int
    data: _Book
    received_ms: int


class _Quoted(msgspec.Struct):
    seq: int
    received_ms: int
    bid: float | None = None
    ask: float | None = None


class _Priced(msgspec.Struct):
    seq: int
    received_ms: int
    price: float = 0.0


_book: Final = msgspec.json.Decoder(_Booked)
_quoted: Final = msgspec.json.Decoder(_Quoted)
_priced: Final = msgspec.json.Decoder(_Priced)


class Watch:
    """Looks at every channel of the catalogue."""

    def __init__(
        self,
        *,
        board: Board,
        newest: Callable[[str, str], bytes | None],
        publish: Callable[[Sequence[Verdict | TopicVerdict]], None],
        tolerances: Tolerances,
        unreadable: Callable[[], Mapping[str, int]],
        note_unreadable: Callable[[str, int], None],
    ) -> None:
        """Set up.

        Args:
            board: what each channel has delivered, and its verdicts.
            newest: returns the newest message of a channel and an instrument, as JSON, or None.
            publish: tells clients of new verdicts.
            tolerances: how much two venues may differ.
            unreadable: returns, by connector's name, how many of its venue's frames could not be read since the start.
            note_unreadable: called with a connector's name and the number of further such frames.
        """
        self._board = board
        self._newest = newest
        self._note_unreadable = note_unreadable
        self._publish = publish
        self._crosscheck = CrossCheck(tolerances)
        self._contracts: dict[str, Freshness] = {}
        self._topics: dict[str, Topics] = {}
        self._unreadable = unreadable
        self._counted: dict[str, int] = {}
        self._looks = 0
        self._aged_s = 0.0
        self._distrusted = 0
        self.lag_s = Histogram()
        """How late the event loop woke this task; it wakes others just as late."""

    def compare(self, tolerances: Tolerances) -> None:
        """Use other tolerances, and begin the comparison anew."""
        self._crosscheck = CrossCheck(tolerances)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look, until cancelled."""
        self.look(trio.current_time())
        task_status.started()
        while True:
            began_s, due_s = passed_s(), trio.current_time() + LOOK_S
            await trio.sleep_until(due_s)
            self.lag_s.add(max(0.0, passed_s() - began_s - LOOK_S))
            self.look(trio.current_time())

    def aged(self, seconds: float) -> None:
        """All data is older by so many seconds: the daemon or its machine stood still. The next look heeds that."""
        self._aged_s += seconds

    def distrust(self, seq: int) -> None:
        """Compare no message up to this `seq`: the clock has been set, so its stamp does not tell its age."""
        self._distrusted = seq

    def look(self, now_s: float) -> None:
        """Look at every channel once, and publish the verdicts that changed."""
        verdicts: list[Verdict | TopicVerdict] = [*self._fresh(now_s)]
        if self._looks % _CROSSCHECK_EVERY == 0:
            verdicts += self._checked(now_s)
            self._count_unreadable()
        self._looks += 1
        if verdicts:
            for verdict in verdicts:
                if isinstance(verdict, TopicVerdict):
                    self._log_topics(verdict)
                elif verdict.reason:
                    _log.warning("%s: %s", verdict.channel, verdict.reason, extra={"channel": verdict.channel})
                else:
                    _log.info("%s: %s: well again", verdict.channel, verdict.source)
            self._publish(verdicts)

    def _log_topics(self, verdict: TopicVerdict) -> None:
        """One line for each topic that is told to do otherwise than before."""
        channel, before = verdict.channel, self._board.topics(verdict.channel)
        for name, condition in verdict.topics.items():
            held = before.get(name)
            if held is None or held.condition.cause != condition.cause or held.condition.state != condition.state:
                said = {"channel": channel, "instrument": name}
                what = f"{name} is {condition.state}: {condition.reason}" if name else condition.reason
                _log.warning("%s: %s", channel, what, extra=said)
        for name in before:
            if name not in verdict.topics:
                _log.info("%s: %s: well again", channel, name or "its rows", extra={"channel": channel})

    def _fresh(self, now_s: float) -> Iterator[Verdict | TopicVerdict]:
        board = self._board
        aged_s, self._aged_s = self._aged_s, 0.0
        for channel in board.catalogue:
            if channel.kind.made_of:
                continue  # it is as fresh as the channels that it is made of: daemon/publish/consolidated.py
            contract = self._contracts.get(channel.name)
            if contract is None or contract.channel != channel:
                contract = self._contracts[channel.name] = Freshness(channel, now_s)
            if aged_s:
                contract.aged(aged_s, now_s)
            reason = contract.look(board.connector(channel.name), board.seen(channel.name), now_s)
            board.expect(channel.name, contract.stale_after_s)
            yield from _change(board, channel.name, "freshness", reason)
            topics = self._topics.get(channel.name)
            if topics is None or topics.channel != channel:
                topics = self._topics[channel.name] = Topics(channel, now_s)
            found = topics.look(
                board.connector(channel.name),
                board.seen(channel.name),
                now_s,
                silent=bool(reason),
                withdraw=partial(board.withdraw, channel.name),
            )
            held = board.topics(channel.name)
            if found.keys() != held.keys() or any(held[name].condition != one for name, one in found.items()):
                yield TopicVerdict(channel.name, found)

    def _checked(self, now_s: float) -> Iterator[Verdict]:
        board = self._board
        remarks = self._crosscheck.look(self._quotes(), now_s)
        concerned = self._crosscheck.concerned
        for channel in board.catalogue:
            reason, instruments = remarks.get(channel.name, ""), concerned.get(channel.name, frozenset())
            yield from _change(board, channel.name, "crosscheck", reason, instruments)

    def _quotes(self) -> Iterator[Quote]:
        """The newest quote of every instrument of the live channels: old data is not compared."""
        board = self._board
        for channel in board.catalogue:
            state = board.state(channel.name)
            if channel.kind.made_of:
                continue  # what its sources say is compared already, and between venues a bid may be above an ask
            if state.state == "live" and state.last_event_ms is not None:
                # Skip instruments whose last message is older than the channel allows, e.g. from before a restart.
                since_ms = state.last_event_ms - 1000 * (state.stale_after_s or 0.0)
                for instrument in channel.instruments:
                    payload = self._newest(channel.name, instrument)
                    quote = (
                        None if payload is None else _quote(payload, channel, instrument, since_ms, self._distrusted)
                    )
                    if quote is not None:
                        yield quote

    def _count_unreadable(self) -> None:
        for name, count in self._unreadable().items():
            new = count - self._counted.get(name, 0)
            self._counted[name] = count
            if new > 0:
                self._note_unreadable(name, new)

    def measure(self, samples: Samples) -> None:
        """Add how late the event loop is."""
        lag = "How late the event loop wakes a task, measured several times a second."
        samples.histogram("tickerd_event_loop_lag_seconds", lag, self.lag_s)


def _change(
    board: Board, channel: str, source: Source, reason: str, instruments: frozenset[str] = frozenset()
) -> Iterator[Verdict]:
    """The verdict, if it differs from the one on the board."""
    held = board.verdict(channel, source)
    if reason != ("" if held is None else held.reason):
        state: Literal["live", "stale"] = "stale" if reason and source == "freshness" else "live"
        yield Verdict(channel, source, state, reason, instruments)


def _quote(payload: bytes, channel: Channel, instrument: str, since_ms: float, after: int) -> Quote | None:
    """A message's quote of an instrument; None if it is not beyond `after`, too old, or cannot be compared."""
    try:
        match channel.kind.view:
            case View.PRICE | View.DAY | View.TRADE:
                priced = _priced.decode(payload)
                quote = Quote(channel.name, channel.exchange, instrument, priced.price)
                return quote if priced.received_ms >= since_ms and priced.seq > after else None
            case View.BOOK:
                booked = _book.decode(payload)
                if booked.received_ms < since_ms or booked.seq <= after or not booked.data.bids or not booked.data.asks:
                    return None
                bid, ask = float(booked.data.bids[0][0]), float(booked.data.asks[0][0])
                return Quote(channel.name, channel.exchange, instrument, bid=bid, ask=ask)
            case View.QUOTE:
                quoted = _quoted.decode(payload)
                if quoted.received_ms < since_ms or quoted.seq <= after or quoted.bid is None or quoted.ask is None:
                    return None
                return Quote(channel.name, channel.exchange, instrument, bid=quoted.bid, ask=quoted.ask)
            case View.BEST | View.DEPTH | View.CANDLE | View.MARKET | View.TOP | View.TRENDING:
                return None
            case _:
                assert_never(channel.kind.view)
    except (msgspec.DecodeError, ValueError):  # a book's digits, which its normaliser does not check
        return None
