"""The tape of trades and the book of `tickerd watch`, and what of them a window shows."""

from typing import Any

from msgspec import Raw
from rich.text import Text

from daemon.client import DepthSnapshot, DepthUpdate, OrderbookUpdate, Reconnecting, Resumed, Status, Trade
from daemon.commands.terminal.keys import Key
from daemon.commands.terminal.ladder import Ladder
from daemon.commands.terminal.picture import Picture, Scroll, View
from daemon.commands.terminal.trades import TradeTape

STAMP = "2025-12-08T16:30:45.123Z"

COMMON: dict[str, Any] = {
    "connector_id": "x",
    "exchange": "okx",
    "instrument": "BTC/USDT",
    "timestamp": STAMP,
    "seq": 1,
    "prev_seq": 0,
    "received_ms": 1_765_211_445_123,
    "data": Raw(b"{}"),
}


def _trade(price: str, **more: Any) -> Trade:
    return Trade(**COMMON | more, price=Raw(price.encode()), size=Raw(b"0.010"), side="sell", trade_id="7")


def _body(view: View, width: int = 100) -> list[str]:
    return [line.plain for line in view.draw(0.0, 0.0, width).body]


def test_the_newest_trade_is_at_the_top_with_the_venues_time_and_digits() -> None:
    tape = TradeTape("tickerd")
    tape.take(_trade("100.50"), 0.0)
    tape.take(_trade("100.60", exchange_ms=1_765_211_445_001), 0.0)
    assert [line.split() for line in _body(tape)] == [
        ["16:30:45.001", "x", "BTC/USDT", "sell", "100.60", "0.010"],
        ["16:30:45.123", "x", "BTC/USDT", "sell", "100.50", "0.010"],
    ]
    assert _body(tape, 20)[0].split() == ["sell", "100.60", "0.010"]


def test_a_time_that_is_no_date_is_shown_all_the_same() -> None:
    tape = TradeTape("tickerd")
    tape.take(_trade("1", exchange_ms=2**62), 0.0)
    assert len(_body(tape)) == 1


def test_a_channel_that_is_not_live_is_told_above_the_tape() -> None:
    tape = TradeTape("tickerd")
    tape.take(Status(timestamp=STAMP, channel="x", state="down", since=STAMP, reason="no\x1b"), 0.0)
    assert _body(tape) == [r"x down no\x1b"]
    tape.take(Status(timestamp=STAMP, channel="x", state="live", since=STAMP, reason=""), 0.0)
    assert _body(tape) == []


def test_a_book_is_shown_while_it_is_whole() -> None:
    ladder = Ladder("x BTC/USDT")
    assert _body(ladder) == ["no whole book yet"]
    levels: dict[str, Any] = {"bids": Raw(b'[["1.10","3"],["1.00","4"]]'), "asks": Raw(b'[["1.20","5"]]')}
    ladder.take(DepthSnapshot(**COMMON | {"seq": 5}, **levels), 0.0)
    assert [line.split() for line in _body(ladder)] == [["3", "1.10", "1.20", "5"], ["4", "1.00"]]
    ladder.take(DepthUpdate(**COMMON | {"seq": 6, "prev_seq": 5}, bids=Raw(b'[["1.10","0"]]'), asks=Raw(b"[]")), 0.0)
    assert _body(ladder)[0].split() == ["4", "1.00", "1.20", "5"]
    ladder.take(DepthUpdate(**COMMON | {"seq": 9, "prev_seq": 8}, bids=Raw(b'[["1","1"]]'), asks=Raw(b"[]")), 0.0)
    assert _body(ladder) == ["no whole book yet"], "a change is missing"


def test_the_levels_of_a_polled_book_are_a_book_too() -> None:
    ladder = Ladder("x")
    book = OrderbookUpdate(**COMMON | {"data": Raw(b'{"bids":[["1.10","3",0]],"asks":[[]]}')})
    ladder.take(book, 0.0)
    assert [line.split() for line in _body(ladder)] == [["3", "1.10"]]
    ladder.take(OrderbookUpdate(**COMMON | {"data": Raw(b'{"bids":[],"asks":[]}')}), 0.0)
    assert _body(ladder) == ["an empty book"]


def test_in_a_narrow_window_what_has_happened_comes_before_the_title() -> None:
    ladder = Ladder("a title that is long")
    ladder.take(Reconnecting("closed", 1006, 2.0), 0.0)
    assert ladder.draw(0.5, 0.0, 30).title.plain == "reconnecting in 1.5 s: closed"
    ladder.take(Resumed(1.0, restarted=False), 1.0)
    assert ladder.draw(20.0, 0.0, 30).title.plain == "a title that is long"


def _shown(scroll: Scroll, lines: range, height: int = 6, grown: int = 0) -> list[str]:
    body = [Text(str(number)) for number in lines]
    framed = scroll.frame(Picture(Text("title"), Text("head"), body, grown), height)
    assert len(framed) <= height
    return [line.plain for line in framed]


def test_a_window_shows_a_part_and_says_which() -> None:
    scroll = Scroll()
    foot = "; arrows and PgUp, PgDn scroll; q ends"
    assert _shown(scroll, range(10)) == ["title", "head", "0", "1", "2", f"1-3 of 10{foot}"]
    scroll.press(Key.END)
    assert _shown(scroll, range(10)) == ["title", "head", "7", "8", "9", f"8-10 of 10{foot}"]
    scroll.press(Key.UP)
    scroll.press(Key.PAGE_UP)
    assert _shown(scroll, range(10))[2:5] == ["4", "5", "6"]
    assert _shown(scroll, range(10), 100)[2:12] == [str(each) for each in range(10)], "a larger window shows all"
    assert _shown(scroll, range(10), 4) == ["title", "head", "0", "1"]
    assert _shown(scroll, range(10), 3) == ["title", "0", "1"]
    assert _shown(scroll, range(10), 1) == ["0"]


def test_what_was_scrolled_to_stays_where_it_is_while_lines_come_in_above() -> None:
    scroll = Scroll()
    assert _shown(scroll, range(10, 20))[2] == "10"
    assert _shown(scroll, range(8, 20), grown=2)[2] == "8", "at the top the newest is seen"
    scroll.press(Key.DOWN)
    assert _shown(scroll, range(8, 20))[2] == "9"
    assert _shown(scroll, range(5, 20), grown=3)[2] == "9"
