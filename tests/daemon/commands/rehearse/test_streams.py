"""Rehearsed streams: books that a client rebuilds are the venue's or they are not, and how a case is judged."""

import json

import pytest

from connectors.simulator.faults.faults import LostUpdates
from connectors.simulator.faults.table import StreamCase
from connectors.simulator.venues.market import OKX, Book, Market, unpadded
from connectors.simulator.venues.stream import MarketStream
from daemon.commands.rehearse.client import Pushes
from daemon.commands.rehearse.records import Entry, LogLine, Told
from daemon.commands.rehearse.streams import StreamNotes, StreamsRecord, judge_streams

STREAM = MarketStream(Market(1))
LISTING = OKX["BTC-USDT"]
PUSHES = Pushes(1)


def levels(side: object) -> list[tuple[str, str]]:
    assert isinstance(side, list | tuple)
    return [(unpadded(price, LISTING.price_digits), unpadded(size, LISTING.size_digits)) for price, size in side]


def depth(type_: str, bids: object, asks: object) -> str:
    named = {"connector_id": "okx_depth", "instrument": "BTC/USDT", "seq": 2, "prev_seq": 1, "timestamp": "x"}
    return json.dumps({"type": type_, **named, "bids": levels(bids), "asks": levels(asks)})


def began(book: Book) -> StreamNotes:
    notes = StreamNotes(PUSHES, 1, "okx")
    notes.note(depth("depth_snapshot", book.bids, book.asks))
    return notes


def test_a_book_that_follows_the_venues_is_right_at_every_step() -> None:
    notes = began(STREAM.book(LISTING, 10))
    for step in (11, 12, 13):
        change = STREAM.change(LISTING, step)
        notes.note(depth("depth_update", change.bids, change.asks))

    assert (notes.wrong, notes.right) == (0, {"BTC/USDT": True})


def test_one_of_which_a_level_is_missing_is_wrong_until_it_begins_anew() -> None:
    notes = began(STREAM.book(LISTING, 10))
    change = STREAM.change(LISTING, 11)
    notes.note(depth("depth_update", change.bids[:-1], change.asks))

    assert (notes.wrong, notes.right) == (1, {"BTC/USDT": False})
    book = STREAM.book(LISTING, 12)
    notes.note(depth("depth_snapshot", book.bids[:5], book.asks[:5]))
    assert notes.right == {"BTC/USDT": True}


def test_a_trade_that_comes_again_is_counted() -> None:
    notes = StreamNotes(PUSHES, 1, "okx")
    for number in ("7", "8", "7"):
        trade = {"type": "trade", "connector_id": "okx_trades", "instrument": "BTC/USDT", "trade_id": number}
        notes.note(json.dumps({**trade, "seq": 1, "prev_seq": 0}))

    assert notes.again == 1


def test_a_topic_that_does_not_do_well_is_trouble_of_its_channel() -> None:
    notes = began(STREAM.book(LISTING, 10))
    status = {"type": "status", "channel": "okx_depth", "state": "live", "reason": "BTC/USDT: a gap"}
    notes.note(json.dumps({**status, "topics": {"BTC/USDT": {"state": "stale", "reason": "a gap"}}}))

    assert [entry.state for entry in notes.entries if isinstance(entry, Told)] == ["stale"]
    assert "a gap" in notes.lacks
    assert not notes.is_well(0.0)
    notes.note(json.dumps({**status, "reason": ""}))
    assert notes.is_well(0.0)


STALE = Told(2.5, 2_500, "okx_depth", "stale", "an update is missing")


def judged(
    case: StreamCase,
    *entries: Entry,
    gaps: int = 0,
    wrong: int = 0,
    again: int = 0,
    recovered_s: float | None = 4.0,
    log: tuple[LogLine, ...] = (),
) -> tuple[str, ...]:
    record = StreamsRecord(case=case, entries=entries, gaps=gaps, wrong=wrong, again=again, log=log)
    record.began_s, record.cleared_s, record.recovered_s, record.lacks = 2.0, 3.0, recovered_s, "okx_depth is silent"
    return judge_streams(record).problems


FAULTS = (LostUpdates(venue="okx", times=1),)
TOLD = StreamCase(FAULTS, book=True)
QUIET = StreamCase(FAULTS)


def test_a_gap_that_was_told_and_noted_is_well() -> None:
    assert judged(TOLD, STALE, gaps=1) == ()
    assert judged(QUIET) == ()
    assert judged(StreamCase(FAULTS, book=None), STALE, gaps=2) == ()
    assert judged(StreamCase(FAULTS, trades=True), gaps=1) == ()


@pytest.mark.parametrize(
    ("problems", "problem"),
    [
        (judged(TOLD, gaps=1), "clients were not told of a gap"),
        (judged(TOLD, STALE), "the ledger has no gap"),
        (judged(QUIET, STALE), "told stale: an update is missing"),
        (judged(QUIET, gaps=2), "the ledger has 2 incidents"),
        (judged(TOLD, STALE, gaps=1, wrong=3), "a book was silently wrong 3 times"),
        (judged(QUIET, again=4), "4 trades doubled"),
        (judged(QUIET, recovered_s=None), "not recovered: okx_depth is silent"),
        (judged(StreamCase(FAULTS, trades=True)), "the ledger has no gap"),
        (judged(QUIET, log=(LogLine(0, "error", "boom"),)), "the daemon logged an error: boom"),
    ],
)
def test_whatever_is_wrong_is_said(problems: tuple[str, ...], problem: str) -> None:
    assert problems == (problem,)
