"""The parts of a rehearsal that are about streams: books and trades that go wrong at a venue, and are right afterwards.

Each venue has a pair of its own (`daemon.commands.rehearse.pair.streaming`), whose client rebuilds every book from what
it is sent. The simulated market is the same for the same seed, so at any moment such a book must be the venue's at some
step, or its topic announced as stale. What has to hold of each case:

* the daemon is up, and no book is ever silently wrong; no trade comes twice;
* where the case says so, the depth channel is told to be stale, or not to be whole, with the reason, and the ledger has
  it; where it says that nothing is to be told, nothing is;
* afterwards all channels are live, with data, and every book is the venue's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from connectors.base import State
from connectors.simulator.faults.faults import Lasting
from connectors.simulator.faults.table import StreamCase
from connectors.simulator.venues.market import LISTINGS, Market
from daemon.commands.rehearse.client import Notebook, Pushes, incidents, order, wait_until
from daemon.commands.rehearse.judge import TROUBLE, Verdict, errors
from daemon.commands.rehearse.pair import Pair
from daemon.commands.rehearse.records import Data, Entry, Noted, Told
from daemon.commands.rehearse.truth import Side, Truth
from protocol.kinds import VIEWS, View

NOTICE_S: Final = 8.0
"""As in `rehearse`: what has not been told by then never is."""

LASTS_S: Final = 2.5
"""How long a fault lasts of which nothing is to be told."""

SETTLE_S: Final = 0.6
"""The time after recovery in which books are still looked at: a few steps of the market."""

STEPS_PER_S: Final = 5.0
"""Of the simulated market."""

_CAUSES: Final = ("gap", "outage", "stale")
"""What the ledger may call it: where all that is on a connection is in one chain, there was no link for a while."""

_AHEAD: Final = 100
"""Steps that are looked for beyond those that should have passed."""


class Streams(msgspec.Struct, frozen=True):
    """One case."""

    case: StreamCase

    @property
    def venue(self) -> str:
        """Whose."""
        return self.case.faults[0].venue

    @property
    def title(self) -> str:
        """As in the table."""
        return self.case.title


class _Topic(msgspec.Struct):
    state: State = "live"
    reason: str = ""


class _Message(msgspec.Struct):
    type: str
    connector_id: str = ""
    channel: str = ""
    instrument: str = ""
    trade_id: str = ""
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []
    reset: bool = False
    through: int | None = None
    seq: int = 0
    prev_seq: int | None = None
    state: State = "connecting"
    reason: str | None = None
    topics: dict[str, _Topic] = {}


_message: Final = msgspec.json.Decoder(_Message)


class StreamNotes(Notebook):
    """What the client of one venue's streams was told.

    Attributes:
        wrong: How often a book was none that the venue had, while nothing said so, since `turn_over`.
        again: How many trades came again, since `turn_over`.
        right: Of each instrument, whether its book is one of the venue's.
        unwell: By channel and instrument, the state of what does not do well.
    """

    def __init__(self, pushes: Pushes, seed: int, venue: str) -> None:
        super().__init__(pushes)
        market = Market(seed)
        self._truths = {one.instrument: Truth(market, one) for one in LISTINGS[venue].values()}
        self._books: dict[str, tuple[Side, Side]] = {}
        self._trades: set[tuple[str, str]] = set()
        self._began_s = time.monotonic()
        self.wrong = self.again = 0
        self.right: dict[str, bool] = {}
        self.unwell: dict[tuple[str, str], _Topic] = {}

    def turn_over(self) -> Mapping[tuple[str, str], Data]:
        """As `Notebook`'s."""
        self.wrong = self.again = 0
        return super().turn_over()

    def note(self, text: str | bytes) -> None:
        """One message from the daemon."""
        message, now_s = _message.decode(text), time.monotonic()
        if message.type == "status":
            self._note_status(message, now_s)
        elif message.prev_seq is not None:
            # A snapshot for late comers stands in the chain where the last update in it does.
            seq = message.seq if message.through is None else message.through
            data = Data(now_s, message.connector_id, message.instrument, seq, message.prev_seq)
            self.last[data.topic] = data
            self.entries.append(data)
            view = VIEWS.get(message.type)
            if view is View.DEPTH:
                self._note_book(message, now_s)
            elif view is View.TRADE:
                trade = (message.instrument, message.trade_id)
                self.again += trade in self._trades
                self._trades.add(trade)
        self._stir()

    def is_well(self, since_s: float) -> bool:
        """Whether every channel is live, every topic has had data since, and every book is the venue's."""
        live = self.states and all(told.state == "live" for told in self.states.values())
        fresh = all(data.at_s >= since_s for data in self.last.values())
        heard = {data.channel for data in self.last.values()}
        return bool(live) and not self.unwell and fresh and heard == set(self.states) and all(self.right.values())

    @property
    def lacks(self) -> str:
        """What does not do well, in words."""
        bad = [
            f"{told.channel} is {told.state}: {told.reason}" for told in self.states.values() if told.state != "live"
        ]
        bad += [f"{channel} {instrument}: {topic.reason}" for (channel, instrument), topic in self.unwell.items()]
        bad += [f"the book of {instrument} is wrong" for instrument, right in self.right.items() if not right]
        heard = {data.channel for data in self.last.values()}
        return "; ".join([*bad, *(f"{name} is silent" for name in self.states if name not in heard)])

    def _note_status(self, message: _Message, now_s: float) -> None:
        name = message.channel
        told = Told(now_s, time.time() * 1000, name, message.state, message.reason or "")
        self.states[name] = told
        self.unwell = {key: topic for key, topic in self.unwell.items() if key[0] != name}
        # A topic that goes on has a remark at most.
        worst = {key: topic for key, topic in message.topics.items() if topic.state in TROUBLE}
        self.unwell |= {(name, instrument): topic for instrument, topic in worst.items()}
        if message.state == "live":
            for topic in worst.values():
                told = Told(now_s, told.at_ms, name, topic.state, topic.reason)
        self.entries.append(told)

    def _note_book(self, message: _Message, now_s: float) -> None:
        truth = self._truths[message.instrument]
        if message.type == "depth_snapshot":
            self._books[message.instrument] = ({}, {})
        bids, asks = self._books.setdefault(message.instrument, ({}, {}))
        for side, levels in ((bids, message.bids), (asks, message.asks)):
            for price, size in levels:
                key, value = truth.level(price, size)
                if value:
                    side[key] = value
                else:
                    side.pop(key, None)
        until = int((now_s - self._began_s) * STEPS_PER_S) + _AHEAD
        self.right[message.instrument] = is_right = truth.has(bids, asks, until)
        if not is_right:
            self.wrong += 1


class StreamsRecord(Noted, kw_only=True):
    """What was seen of one case.

    Attributes:
        case: Which.
        wrong: As `StreamNotes`'s.
        again: As `StreamNotes`'s.
        gaps: How many incidents the ledger got.
        lacks: What did not do well at the end, in words.
    """

    case: StreamCase
    wrong: int = 0
    again: int = 0
    gaps: int = 0
    lacks: str = ""


async def play(pair: Pair, part: Streams, patience_s: float) -> Verdict:
    """Play one case, from all being live to all being live."""
    notes, case = pair.book, part.case
    if not isinstance(notes, StreamNotes):
        raise TypeError("a pair with streams is needed")
    logged = len(pair.daemon.log)
    record = StreamsRecord(case=case, before=notes.turn_over())
    record.began_s = record.cleared_s = time.monotonic()

    async def wait(is_so: Callable[[], bool], most_s: float) -> bool:
        return await wait_until(notes, is_so, lambda: bool(pair.failure), most_s)

    try:
        before = await _missed(pair)
        for fault in case.faults:
            await order(pair.venues.port, msgspec.to_builtins(fault))
        if case.book:
            await wait(lambda: bool(_troubles(notes.entries)), NOTICE_S)
        else:
            await wait(lambda: False, LASTS_S)
        if any(isinstance(fault, Lasting) for fault in case.faults):
            record.cleared_s = time.monotonic()
        await order(pair.venues.port, {"clear": True})
        if await wait(partial(notes.is_well, time.monotonic()), patience_s):
            record.recovered_s = time.monotonic()
        record.lacks = notes.lacks
        await wait(lambda: False, SETTLE_S)
        record.gaps = await _missed(pair) - before
    except (OSError, trio.TooSlowError, RuntimeError, msgspec.DecodeError) as error:
        record.failure = f"the simulator or the daemon does not answer: {error!r}"
    record.entries, record.log = notes.entries, pair.daemon.log[logged:]
    record.wrong, record.again = notes.wrong, notes.again
    record.failure = pair.failure or record.failure
    return judge_streams(record)


def judge_streams(record: StreamsRecord) -> Verdict:
    """Whether it ended well: see the module. Pure."""
    case, troubles = record.case, _troubles(record.entries)
    told = [entry for entry in record.entries if isinstance(entry, Told)]
    may_be_told = case.book is not False or case.trades is not False
    return Verdict(
        fault=case.title,
        told=tuple(dict.fromkeys(one.state for one in told)),
        reason=next((one.reason for one in troubles if one.reason), ""),
        notice_s=troubles[0].at_s - record.began_s if troubles else None,
        recover_s=None if record.recovered_s is None else record.recovered_s - record.cleared_s,
        doubled=record.again,
        up=not record.failure,
        problems=(
            *([record.failure] if record.failure else []),
            *errors(record),
            *(["clients were not told of a gap"] if case.book and not any(one.reason for one in troubles) else []),
            *([f"told {troubles[0].state}: {troubles[0].reason}"] if troubles and not may_be_told else []),
            *(["the ledger has no gap"] if (case.book or case.trades) and not record.gaps else []),
            *([f"the ledger has {record.gaps} incidents"] if record.gaps and not may_be_told else []),
            *([f"a book was silently wrong {record.wrong} times"] if record.wrong else []),
            *([f"{record.again} trades doubled"] if record.again else []),
            *([f"not recovered: {record.lacks}"] if record.recovered_s is None else []),
        ),
    )


def _troubles(entries: Sequence[Entry]) -> list[Told]:
    return [entry for entry in entries if isinstance(entry, Told) and entry.state in TROUBLE]


async def _missed(pair: Pair) -> int:
    """How often something was missing, by the ledger."""
    found = await incidents(pair.daemon.port)
    return sum(found[cause] for cause in _CAUSES)
