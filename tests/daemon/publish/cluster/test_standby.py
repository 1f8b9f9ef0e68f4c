"""A stand-by that takes over goes on where the leader's last message was: nothing twice, nothing left out."""

import json

from msgspec import Raw

from connectors.base import Event, StateChange, TopicNote
from daemon.health.board import Board
from daemon.host.clock import WallClock
from daemon.ingest.inbox import Item, TopicNotes
from daemon.publish.bus import Bus
from daemon.publish.cluster.standby import Remembered
from daemon.publish.sequencer import Passes, Sequencer
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.channels import Catalogue, Channel
from protocol.fields import CandleFields, DepthFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS

NOW_MS = 1_765_211_445_123
CATALOGUE = Catalogue(
    [
        Channel(name="trades", exchange="okx", kind=KINDS["trades"], instruments=("X/U", "Y/U")),
        Channel(name="ticker", exchange="okx", kind=KINDS["ticker"], instruments=("X/U",)),
        Channel(name="depth", exchange="okx", kind=KINDS["depth"], instruments=("X/U", "Y/U")),
        Channel(name="candles", exchange="okx", kind=KINDS["candles"], instruments=("X/U",)),
    ]
)


class Pair:
    """A tape that a leader made, and what a stand-by remembers."""

    def __init__(self) -> None:
        self.tape = Tape(1000, 10**7)
        self.sequencer = Sequencer(
            self.tape, Board(CATALOGUE, NOW_MS), Ledger(), WallClock(lambda: NOW_MS * 10**6), Bus(), Passes()
        )
        self.remembered = Remembered(CATALOGUE, 20.0)

    def both(self, *items: Item) -> None:
        """Leader and stand-by hear it."""
        self.leader(*items)
        self.stand_by(*items)

    def leader(self, *items: Item) -> None:
        self.sequencer.publish(items)

    def stand_by(self, *items: Item) -> None:
        for item in items:
            self.remembered.take(item)

    def take_over(self) -> list[dict[str, object]]:
        """What is published first then: the data, in order."""
        head = self.tape.head
        self.sequencer.publish(self.remembered.rest(self.tape))
        return [json.loads(entry.payload) for entry in self.tape.between(head, self.tape.head) if entry.data]


def trade(number: int, instrument: str = "X/U", *, id_: str | None = None, past: bool = False) -> list[Event]:
    fields = TradeFields(Raw(b"1"), "buy", str(number) if id_ is None else id_)
    data = b'{"n":%d}' % number
    return [Event("trades", instrument, data, NOW_MS + number, "1.5", NOW_MS + number, fields=fields, past=past)]


def ticker(number: int) -> list[Event]:
    return [Event("ticker", "X/U", b'{"n":%d}' % number, NOW_MS + number, "1.5", NOW_MS + number)]


def candle(start: int, number: int, *, closed: bool = False) -> list[Event]:
    digits = Raw(b"1")
    fields = CandleFields("1m", NOW_MS + start, digits, digits, digits, digits, digits, closed)
    return [Event("candles", "X/U", b'{"n":%d}' % number, NOW_MS + number, "", NOW_MS + number, fields=fields)]


def book(instrument: str, number: int, bids: bytes, *, whole: bool = False) -> list[Event]:
    fields = SnapshotFields(Raw(bids), Raw(b"[]")) if whole else DepthFields(Raw(bids), Raw(b"[]"))
    return [Event("depth", instrument, b'{"n":%d}' % number, NOW_MS + number, "", NOW_MS + number, fields=fields)]


def test_trades_that_the_tape_lacks_are_published_once_and_in_order() -> None:
    pair = Pair()
    pair.leader(trade(1), trade(2))
    pair.both(trade(3), trade(1, "Y/U"), trade(4))
    pair.stand_by(trade(5), trade(2, "Y/U"), trade(6), trade(7, past=True))
    assert [(each["instrument"], each["trade_id"]) for each in pair.take_over()] == [
        ("X/U", "5"),
        ("Y/U", "2"),
        ("X/U", "6"),
    ]
    assert pair.take_over() == []


def test_trades_without_ids_are_known_by_their_data() -> None:
    pair = Pair()
    pair.both(trade(1, id_=""), trade(2, id_=""))
    pair.stand_by(trade(3, id_=""))
    assert [each["data"] for each in pair.take_over()] == [{"n": 3}]


def test_a_trade_that_is_older_than_anybody_waits_is_forgotten() -> None:
    pair = Pair()
    pair.stand_by(trade(1), trade(30_000))
    assert [each["trade_id"] for each in pair.take_over()] == ["30000"]


def test_of_what_only_the_newest_counts_a_newer_one_is_published() -> None:
    pair = Pair()
    pair.both(ticker(1))
    assert pair.take_over() == []
    pair.stand_by(ticker(2), ticker(3))
    assert [each["data"] for each in pair.take_over()] == [{"n": 3}]


def test_a_candle_that_closed_meanwhile_is_not_left_out() -> None:
    pair = Pair()
    pair.both(candle(0, 1))
    pair.stand_by(candle(0, 2), candle(0, 3, closed=True), candle(60_000, 4))
    assert [each["data"] for each in pair.take_over()] == [{"n": 3}, {"n": 4}]


def test_books_are_published_whole_as_they_are_after_the_last_change() -> None:
    pair = Pair()
    pair.both(book("X/U", 1, b'[["1","5"],["2","5"]]', whole=True), book("X/U", 2, b'[["1","0"]]'))
    pair.stand_by(book("X/U", 3, b'[["3","7"]]'), book("Y/U", 3, b'[["3","7"]]'))
    [whole] = pair.take_over()
    assert (whole["type"], whole["reset"], whole["bids"]) == ("depth_snapshot", True, [["3", "7"], ["2", "5"]])
    pair.leader(book("X/U", 4, b'[["3","0"]]'))
    assert len(pair.tape.state(("depth", "X/U"))) == 2


def test_a_book_that_is_lost_is_not_passed_off_as_the_venues() -> None:
    for lost in (
        StateChange("depth", "reconnecting", "gone"),
        TopicNotes((TopicNote("depth", "X/U", "gap", "a hole"),)),
        book("X/U", 2, b'"none"'),
    ):
        pair = Pair()
        pair.stand_by(book("X/U", 1, b'[["1","5"]]', whole=True), lost)
        assert pair.take_over() == []


def test_the_state_of_each_channel_is_told_first() -> None:
    pair = Pair()
    pair.stand_by(StateChange("ticker", "connecting"), StateChange("ticker", "live"), ticker(1))
    first, *_ = pair.remembered.rest(pair.tape)
    assert first == StateChange("ticker", "live")
