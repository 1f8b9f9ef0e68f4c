"""`daemon.commands.terminal.table`: what is seen of what was told."""

import io
from datetime import datetime
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw
from rich.console import Console

from daemon.client import (
    Gap,
    Lagged,
    Lost,
    OrderbookUpdate,
    PriceUpdate,
    Received,
    Reconnecting,
    Resumed,
    Status,
    Test,
)
from daemon.commands.terminal.headline import words
from daemon.commands.terminal.lines import Changes
from daemon.commands.terminal.peer import clean
from daemon.commands.terminal.picture import Scroll
from daemon.commands.terminal.table import Sheet, seconds
from protocol.messages import (
    CandleUpdate,
    ConsolidatedQuote,
    DataMessage,
    DepthSnapshot,
    DepthUpdate,
    QuoteUpdate,
    State,
    Trade,
)

STAMP = "2025-12-08T16:30:45.123Z"


def _status(channel: str, state: State = "live", reason: str = "") -> Status:
    return Status(timestamp=STAMP, channel=channel, state=state, since=STAMP, reason=reason)


def _price(digits: str, instrument: str = "BTC/USDT", channel: str = "bitcoinprice", seq: int = 1) -> PriceUpdate:
    return PriceUpdate(
        connector_id=channel,
        exchange="okx",
        instrument=instrument or UNSET,
        price=Raw(digits.encode()),
        timestamp=STAMP,
        seq=seq,
        prev_seq=0,
        received_ms=100_000,
        data=Raw(b"{}"),
    )


def _drawn(
    sheet: Sheet,
    now_s: float = 0.0,
    wall_s: float = 100.0,
    *,
    width: int = 100,
    height: int = 24,
    scroll: Scroll | None = None,
    styled: bool = False,
) -> str:
    """A window of that size, as text."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=styled, color_system="standard" if styled else None)
    for line in (scroll or Scroll()).frame(sheet.draw(now_s, wall_s, width), height):
        console.print(line)
    return file.getvalue()


def _sheet(*received: Received) -> Sheet:
    sheet = Sheet("tickerd 1", ahead_s=0.0)
    for each in received:
        sheet.take(each, 0.0)
    return sheet


def test_a_row_has_the_venues_digits_the_age_and_the_state() -> None:
    sheet = _sheet(_status("bitcoinprice"), _price("42150.50"))
    for wall_s, age in ((102.5, "2.5 s"), (165.0, "1:05 min")):
        row = _drawn(sheet, wall_s=wall_s).splitlines()[2]
        assert row.split() == ["bitcoinprice", "BTC/USDT", "42150.50", *age.split(), "live"]


def test_ages_are_by_the_daemons_clock() -> None:
    sheet = Sheet("x", ahead_s=3.0)
    sheet.take(_price("1"), 0.0)
    assert " 3.0 s" in _drawn(sheet, wall_s=100.0)


@pytest.mark.parametrize("wall_s", [-3_500.0, 99.0, 107.0])
def test_an_age_is_never_less_than_the_time_that_a_message_has_been_here(wall_s: float) -> None:
    """This machine's clock was set back, or stands as it should."""
    assert " 7.0 s" in _drawn(_sheet(_price("1")), now_s=7.0, wall_s=wall_s)


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_new_message_says_where_the_daemons_clock_is_now(step_s: float) -> None:
    sheet = Sheet("x", ahead_s=0.0)
    stamped_s = datetime.fromisoformat(STAMP).timestamp()
    message = msgspec.structs.replace(_price("1"), received_ms=round(stamped_s * 1000) - 100)
    sheet.take(message, 0.0, stamped_s + step_s)
    assert " 2.1 s" in _drawn(sheet, now_s=2.0, wall_s=stamped_s + step_s + 2.0)


def test_a_change_flashes_and_fades() -> None:
    sheet = _sheet(_price("9.50"))
    sheet.take(_price("10.50"), 1.0)
    flashing = _drawn(sheet, 1.5, styled=True)
    assert "\x1b[1;32m▲" in flashing
    faded = _drawn(sheet, 3.0, styled=True)
    assert "▲" in faded
    assert "\x1b[1;32m" not in faded
    sheet.take(_price("9.75"), 3.0)
    assert "\x1b[1;31m▼" in _drawn(sheet, 3.1, styled=True)


def test_a_book_shows_its_best_prices() -> None:
    book = OrderbookUpdate(
        connector_id="books",
        exchange="binance",
        instrument="BTC/USDT",
        timestamp=STAMP,
        seq=1,
        prev_seq=0,
        received_ms=1,
        data=Raw(b'{"bids":[["1.10","3"],["1.00","4"]],"asks":[]}'),
    )
    assert "1.10 / -" in _drawn(_sheet(book))


def test_a_channel_without_a_message_shows_its_state_and_why() -> None:
    drawn = _drawn(_sheet(_status("ethprice", "down", "OKX does not serve this address")))
    assert "ethprice" in drawn
    assert "down   OKX does not serve this address" in drawn


def test_the_first_line_tells_of_the_connection() -> None:
    sheet = _sheet(_price("1"))
    sheet.take(Reconnecting("closed with 1001 stopping", 1001, 2.0), 10.0)
    assert "reconnecting in 1.5 s: closed with 1001 stopping" in _drawn(sheet, 10.5)
    sheet.take(Resumed(3.0, restarted=False), 13.0)
    assert "resumed after 3.0 s: nothing was lost" in _drawn(sheet, 13.0)
    assert "resumed" not in _drawn(sheet, 30.0)


def test_what_does_not_fit_is_counted() -> None:
    sheet = _sheet(*(_price("1", f"A{number}/USDT") for number in range(10)))
    drawn = _drawn(sheet, height=6)
    assert [f"A{number}/USDT" in drawn for number in range(10)] == [True] * 3 + [False] * 7
    assert "1-3 of 10; arrows and PgUp, PgDn scroll; q ends" in drawn
    assert _drawn(sheet, height=13).splitlines()[-1] == "q ends"


def test_texts_from_outside_are_neither_markup_nor_commands() -> None:
    drawn = _drawn(_sheet(_status("[bold]x[/bold]", "down", "\x1b[2J\u202e[red]y\nz")))
    assert "[bold]x[/bold]" in drawn
    assert r"\x1b[2J\u202e[red]y\nz" in drawn
    assert clean("a" * 400, 10) == "aaaaaaaaa…"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Lagged(timestamp=STAMP, missed=3, from_seq=1, to_seq=9), "lagged: 3 messages were missed; the newest follow"),
        (Lost(("a", "b"), {"a": 2}, "too old"), "lost (2 messages) of a, b: too old"),
        (Lost(("a",), {}, "another epoch"), "lost of a: another epoch"),
        (Gap("a", "BTC/USDT", 3, 9), "gap: a BTC/USDT between 3 and 9"),
        (Test(timestamp=STAMP, message="hello\x07"), r"test: hello\x07"),
        (Resumed(1.0, restarted=True), "resumed after 1.0 s: the daemon was restarted"),
        (Resumed(1.0, restarted=True, lost=("a",)), "resumed after 1.0 s: messages of a were lost"),
    ],
)
def test_every_event_has_words(event: Lagged | Lost | Gap | Test | Resumed, said: str) -> None:
    assert words(event) == said


def test_ages_are_short() -> None:
    assert [seconds(age_s) for age_s in (0.04, 59.9, 60, 3599, 7260)] == [
        "0.0 s",
        "59.9 s",
        "1:00 min",
        "59:59 min",
        "2:01 h",
    ]


@pytest.mark.parametrize(
    ("width", "price"), [(10, "42150.50"), (20, "42150.50"), (59, "1234567.12345678"), (10, "1" * 30)]
)
def test_in_a_narrow_window_a_price_is_whole_or_not_there(width: int, price: str) -> None:
    sheet = _sheet(_status("bitcoinprice"), _price(price))
    rows = _drawn(sheet, width=width, height=6).splitlines()[2:5]
    assert all(len(row) <= width for row in rows)
    assert any(price in row.split() for row in rows) == (len(price) < width)
    assert any("1" in row for row in rows) == (price != "1" * 30)


def test_what_is_not_current_is_marked_where_its_state_has_no_room() -> None:
    sheet = _sheet(_status("bitcoinprice", "stale", "no data for 9 s"), _price("42150.50"))
    assert _drawn(sheet, width=20, height=3).splitlines()[1].split() == ["BTC/USDT", "42150.50", "!"]


def test_in_a_narrow_window_a_whole_market_is_known_by_its_channel() -> None:
    sheet = _sheet(_status("coingecko_top"), _price("", "", "coingecko_top"), _price("42150.50"))
    drawn = _drawn(sheet, width=20)
    assert "coingecko_…" in drawn
    assert "42150.50" in drawn


@pytest.mark.parametrize(
    ("before", "after", "arrow"),
    [
        ("42150.50", "42150.5", ""),
        ("1e-8", "0.00000001", ""),
        ("12345678901234567", "12345678901234568", "▲"),
        ("12345678901234568", "12345678901234567", "▼"),
    ],
)
def test_only_another_number_is_a_move(before: str, after: str, arrow: str) -> None:
    sheet = _sheet(_status("bitcoinprice"), _price(before), _price(after, seq=2))
    assert ("▲" in _drawn(sheet), "▼" in _drawn(sheet)) == (arrow == "▲", arrow == "▼")


def test_an_age_below_a_minute_is_not_sixty_seconds() -> None:
    assert (seconds(59.94), seconds(59.96), seconds(60.0)) == ("59.9 s", "1:00 min", "1:00 min")


def test_what_is_new_is_a_line_and_what_is_not_is_none() -> None:
    changes = Changes()
    told: list[Received] = [
        _status("bitcoinprice"),
        _price("1.50"),
        _price("1.50"),
        _price("1.60"),
        _status("bitcoinprice"),
    ]
    stale = _status("bitcoinprice", "stale", "silent\x1b[2J")
    assert [changes.line(each) for each in [*told, stale]] == [
        "bitcoinprice is live",
        "bitcoinprice BTC/USDT 1.50",
        "",
        "bitcoinprice BTC/USDT 1.60",
        "",
        "bitcoinprice is stale: silent\\x1b[2J",
    ]


COMMON: dict[str, Any] = {
    "connector_id": "x",
    "exchange": "okx",
    "instrument": "BTC/USDT",
    "timestamp": STAMP,
    "seq": 1,
    "prev_seq": 0,
    "received_ms": 100_000,
    "data": Raw(b"{}"),
}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (Trade(**COMMON, price=Raw(b"100.50"), size=Raw(b"0.010"), side="sell", trade_id="7"), "100.50 0.010 sell"),
        (
            QuoteUpdate(**COMMON, bid=Raw(b"1.10"), bid_size=Raw(b"3"), ask=Raw(b"1.20"), ask_size=Raw(b"4")),
            "1.10 / 1.20",
        ),
        (QuoteUpdate(**COMMON, ask=Raw(b"1.20"), ask_size=Raw(b"4")), "- / 1.20"),
        (
            ConsolidatedQuote(**COMMON, bid=Raw(b"1.10"), bid_size=Raw(b"3"), bid_exchange="kraken"),
            "1.10 kraken / -",
        ),
        (DepthUpdate(**COMMON, bids=Raw(b'[["1","2"],["0.9","0"]]'), asks=Raw(b"[]")), ""),
        (DepthSnapshot(**COMMON, bids=Raw(b'[["1","2"]]'), asks=Raw(b'[["2","2"]]')), "1 / 2"),
        (
            CandleUpdate(
                **COMMON,
                interval="1m",
                start_ms=0,
                open=Raw(b"1"),
                high=Raw(b"3"),
                low=Raw(b"1"),
                close=Raw(b"2.50"),
                volume=Raw(b"9"),
                closed=False,
            ),
            "2.50 1m",
        ),
    ],
    ids=lambda each: type(each).__name__,
)
def test_every_kind_has_something_to_see(message: DataMessage, shown: str) -> None:
    assert shown in _drawn(_sheet(_status("x"), message))
    assert Changes().line(message) == f"x BTC/USDT {shown or 'a new message'}"


def test_the_price_of_a_trade_has_an_arrow_whatever_its_size() -> None:
    one = Trade(**COMMON, price=Raw(b"100.50"), size=Raw(b"0.010"), side="sell", trade_id="7")
    other = msgspec.structs.replace(one, price=Raw(b"100.60"), size=Raw(b"5"), side="buy")
    assert "▲" in _drawn(_sheet(one, other))
    assert "▼" in _drawn(_sheet(other, one))


def _depth(struct: type[Any], seq: int, prev_seq: int, bids: bytes, asks: bytes = b"[]", **more: Any) -> Any:
    return struct(**COMMON | {"seq": seq, "prev_seq": prev_seq}, bids=Raw(bids), asks=Raw(asks), **more)


def test_of_a_book_in_updates_the_best_levels_are_seen_while_nothing_is_missing() -> None:
    sheet = _sheet(_status("x"), _depth(DepthUpdate, 4, 3, b'[["7","1"]]'))
    assert "7" not in _drawn(sheet).splitlines()[2], "no book yet"
    whole = _depth(DepthSnapshot, 6, 4, b'[["100.10","2"],["100.00","1"]]', b'[["100.20","3"]]', through=5)
    for message, shown in (
        (whole, "100.10 / 100.20"),
        (_depth(DepthUpdate, 7, 5, b'[["100.10","0"]]'), "100.00 / 100.20"),
        (_depth(DepthUpdate, 8, 7, b"[]", b'[["100.20","0"]]'), "100.00 / -"),
    ):
        sheet.take(message, 0.0)
        assert shown in _drawn(sheet)
    sheet.take(_depth(DepthUpdate, 12, 9, b'[["99","1"]]'), 0.0)
    assert " / " not in _drawn(sheet), "one is missing"
    sheet.take(msgspec.structs.replace(whole, seq=13, through=12), 0.0)
    assert "100.10 / 100.20" in _drawn(sheet)
