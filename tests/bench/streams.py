"""What a message of a stream costs, from the venue's bytes to the tape, by stages; and a busy day's rate in processes.

The stages are measured in this process, without sockets. Each figure is a median, so it does not matter when the thread
did not get to run; its own CPU time would be told by a system call, which costs 0.3 µs and some of the caches. The
frames are those of the simulated venues, which write what the real ones write; each is read in its place among the
others, so that books are as full as they are live. The stages:

    read       the venue's bytes to events (`Conversation.handle`), the book included
    book       of that, applying the levels to the book
    stamp      an event to the message that clients get, encoded
    append     the message onto a full tape
    keep       the levels into the book of which the daemon makes keyframes; the message is on the tape by then, so this
               is not in the sum

Book and keep are measured by themselves, after the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import quantiles
from typing import Final

import msgspec

from connectors.base import Event, Rows
from connectors.books.book import Book
from connectors.push.feed import Feed
from connectors.push.venue import Conversation, Fetch, Said
from connectors.simulator.http.request import VenueRequest
from connectors.simulator.simulator import SOCKET_VENUES
from connectors.simulator.venues.binance import SimulatedBinance
from connectors.simulator.venues.market import LISTINGS, Market
from connectors.simulator.venues.sockets import SocketSession
from connectors.simulator.venues.stream import MarketStream
from connectors.venues.registry import VENUES
from daemon.publish.keyframes import Keyframes
from daemon.publish.sequencer import message
from daemon.tape.tape import Entry, Tape
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS
from tests.bench.measures import Plan
from tests.bench.processes import counted, daemon
from tests.bench.report import AT_LEAST, AT_MOST, Row
from tests.bench.window import cpu_ns

BOOK_US: Final = 60.0
TRADE_US: Final = 30.0
"""What a message may cost from bytes to tape."""

STEPS: Final = 400
STEP_MS: Final = 200
BEGAN_MS: Final = 1_765_211_445_000
TAPE_ENTRIES: Final = 2_000
USUAL_BYTES: Final = 2_000
"""Of a message: as many as an update of a book has."""
STAMP: Final = "2025-12-08T16:30:45.123Z"
INSTRUMENTS: Final = ("BTC/USDT", "ETH/USDT")

BUSY_STEPS_PER_S: Final = 84
"""Of the market: each book that its venue pushes without a pace of its own changes so often."""
BUSY_SETTINGS: Final = {
    "TICKERD_CATALOGUE__PRESETS": "[]",
    # The environment of the other measures switches off what is measured here.
    "TICKERD_CONNECTORS__BINANCE__ENABLED": "true",
    # Books of 50 levels come every 20 ms, those of 200 every 100 ms.
    "TICKERD_CONNECTORS__BYBIT__DEPTH": "50",
}
BUSY_TRADED: Final = 2
"""Of so many instruments of each venue the trades are taken, too; a step of the market has up to four of each."""
BUSY_PER_S: Final = {"depth": 2_000.0, "trades": 1_000.0}
"""So much is to come of books and trades for the day to be busy."""


class Costs(msgspec.Struct):
    """Nanoseconds of each message, by stage."""

    read: list[int] = []
    book: list[int] = []
    stamp: list[int] = []
    append: list[int] = []
    keep: list[int] = []
    levels: list[int] = []

    @property
    def whole_us(self) -> float:
        """From bytes to tape: the stages behind one another; the book is a part of reading."""
        return _usual_us(self.read) + _usual_us(self.stamp) + _usual_us(self.append)


def streams(plan: Plan) -> Iterator[Row]:
    """Trades and updates of books of each simulated venue, by stages."""
    for name in SOCKET_VENUES:
        for kind, most_us in (("depth", BOOK_US), ("trades", TRADE_US)):
            what = "an update of a book" if kind == "depth" else "a trade"
            whole = Row(f"{name}: {what}, bytes to tape", "µs", AT_MOST, most_us, of_value=True)
            for _ in range(plan.repeats):
                costs = _measure(name, kind)
                whole.add(costs.whole_us)
            stages = {"read": costs.read, "book": costs.book, "stamp": costs.stamp, "append": costs.append}
            stages["then keep"] = costs.keep
            told = [f"{stage} {_usual_us(ns):.1f}" for stage, ns in stages.items() if ns]
            levels = f"; {sum(costs.levels) / len(costs.levels):.0f} levels each" if costs.levels else ""
            whole.note = ", ".join(told) + levels
            yield whole


def busy_day(plan: Plan) -> Iterator[Row]:
    """Books of all that is listed at the venues that are simulated, and trades of some of it, without clients."""
    listed = {venue: [one.instrument for one in LISTINGS[venue].values()] for venue in SOCKET_VENUES}
    shown = {"depth": listed, "trades": {venue: names[:BUSY_TRADED] for venue, names in listed.items()}}
    sections = [
        f'[channels.{venue}_{kind}]\nconnector = "{venue}"\nkind = "{kind}"\ninstruments = {instruments}\n'
        for kind, by_venue in shown.items()
        for venue, instruments in by_venue.items()
    ]
    more = "\n".join(sections).replace("'", '"')
    books = sum(map(len, listed.values()))
    cpu = Row(f"CPU of the books of {books} instruments on {len(listed)} venues, and of trades", "% of a core")
    cpu.bound, cpu.limit, cpu.of_value = AT_MOST, 100.0, True
    names = {"depth": "book updates", "trades": "trades"}
    rates = {
        kind: Row(f"the same, {names[kind]}", "1/s", AT_LEAST, least, of_value=True)
        for kind, least in BUSY_PER_S.items()
    }
    for _ in range(plan.repeats):
        with daemon(plan.cores, BUSY_STEPS_PER_S, BUSY_SETTINGS, more=more) as server:
            time.sleep(plan.settle_s + 2)
            before, began_s, began_ns = counted(server.port), time.monotonic(), cpu_ns(server.pid)
            time.sleep(max(plan.seconds, 5))
            took_s, took_ns = time.monotonic() - began_s, cpu_ns(server.pid) - began_ns
            after = counted(server.port)
        cpu.add(took_ns / 1e9 / took_s * 100)
        for kind, row in rates.items():
            row.add(sum(after[name] - before[name] for name in after if name.endswith(kind)) / took_s)
    yield from (cpu, *rates.values())


def _measure(venue: str, kind: str) -> Costs:
    """All frames of some steps of the market, each read, stamped and appended in its place."""
    channel = Channel(name=f"{venue}_{kind}", exchange=venue, kind=KINDS[kind], instruments=INSTRUMENTS)
    row = VENUES[venue]
    feeds = [each for each in row.build([channel], row.settings(), "bench") if isinstance(each, Feed)]
    market = Market(7)
    stream = MarketStream(market, 1000 / STEP_MS, BEGAN_MS)
    simulated = SOCKET_VENUES[venue](stream, LISTINGS[venue])  # type: ignore[index] # one of those venues
    costs, tape = Costs(), Tape(TAPE_ENTRIES, 2**40)
    for _ in range(TAPE_ENTRIES):
        tape.append((channel.name, INSTRUMENTS[0]), bytes(USUAL_BYTES))
    told: list[tuple[Event, Entry]] = []
    for number, feed in enumerate(feeds):
        request = VenueRequest("GET", feed.target.address.resource)
        session = simulated.open(request, number)
        conversation = feed.venue.converse()
        for asked in feed.venue.subscribe_requests():
            for reply in session.receive(asked.text):
                if isinstance(reply, bytes):
                    conversation.handle(reply, BEGAN_MS)
        told += _play(costs, tape, channel, conversation, session, market)
    if kind == "depth":
        _apply(costs, [event for event, _ in told])
        _keep(costs, tape, told)
    return costs


def _play(
    costs: Costs,
    tape: Tape,
    channel: Channel,
    conversation: Conversation,
    session: SocketSession,
    market: Market,
) -> list[tuple[Event, Entry]]:
    told: list[tuple[Event, Entry]] = []
    # All of them first: what the venue does to make them is not to be felt in the caches.
    pushes = [(step, push) for step in range(1, STEPS) for push in session.pushes(step, BEGAN_MS + step * STEP_MS)]
    for step, push in pushes:
        now_ms = BEGAN_MS + step * STEP_MS
        began_ns = time.perf_counter_ns()
        said = conversation.handle(push.text, now_ms)
        took_ns = time.perf_counter_ns() - began_ns
        if not isinstance(said, list | Rows):
            continue
        events = said if isinstance(said, list) else said.events
        is_measured = bool(events) and not push.whole and not push.history and push.kind in ("book", "trade")
        if isinstance(said, Said):
            events = [*events, *_fetched(conversation, said, market, step, now_ms)]
        if is_measured:
            costs.read.append(took_ns // len(events))
        told += [(event, _publish(costs, tape, channel, event, is_measured=is_measured)) for event in events]
    return told


def _fetched(conversation: Conversation, said: Said, market: Market, step: int, now_ms: int) -> list[Event]:
    """What follows from what the venue's HTTP interface answers."""
    events: list[Event] = []
    for need in said.needs:
        if isinstance(need, Fetch):
            rest = SimulatedBinance(market, lambda: now_ms / 1000, lambda: step)
            got = conversation.fetched(need.id, rest.answer(VenueRequest("GET", need.path)).body, now_ms)
            events += got if isinstance(got, list) else got.events
    return events


def _publish(costs: Costs, tape: Tape, channel: Channel, event: Event, *, is_measured: bool) -> Entry:
    topic = (event.channel, event.instrument)
    began_ns = time.perf_counter_ns()
    payload = message(event, channel, STAMP, tape.head + 1, tape.last_seq(topic))
    stamped_ns = time.perf_counter_ns()
    entry = tape.append(topic, payload)
    appended_ns = time.perf_counter_ns()
    if is_measured:
        costs.stamp.append(stamped_ns - began_ns)
        costs.append.append(appended_ns - stamped_ns)
    return entry


def _apply(costs: Costs, events: Sequence[Event]) -> None:
    """The same levels in another book: what that alone costs."""
    books: dict[str, Book] = {}
    for event in events:
        fields = event.fields
        if not isinstance(fields, DepthFields | SnapshotFields):
            continue
        bids, asks = (msgspec.json.decode(side, type=list[tuple[str, str]]) for side in (fields.bids, fields.asks))
        book = books.setdefault(event.instrument, Book())
        if isinstance(fields, SnapshotFields):
            book.replace(bids, asks)
            continue
        began_ns = time.perf_counter_ns()
        book.apply(bids, asks)
        costs.book.append(time.perf_counter_ns() - began_ns)
        costs.levels.append(len(bids) + len(asks))


def _keep(costs: Costs, tape: Tape, told: Sequence[tuple[Event, Entry]]) -> None:
    """The same levels once more, in the book of which the daemon makes keyframes; none is made here."""
    keyframes = Keyframes(tape, lambda event, _: tape.append((event.channel, event.instrument), b""))
    for event, entry in told:
        began_ns = time.perf_counter_ns()
        keyframes.took(entry.topic, event, entry, event.received_ms)
        if isinstance(event.fields, DepthFields):
            costs.keep.append(time.perf_counter_ns() - began_ns)


def _usual_us(ns: Sequence[int]) -> float:
    """The median of these, in µs; 0 where there are none."""
    return quantiles(ns, n=2)[0] / 1000 if len(ns) > 1 else 0.0
