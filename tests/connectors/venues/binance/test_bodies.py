"""Binance's bodies: good rows become events, digit for digit; what is wrong with one is said by name."""

import json
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.limits.rows import OLD_S, Ages
from connectors.venues.binance import bodies
from connectors.venues.binance.bodies import short, whole
from tests.connectors.venues.binance.answers import NAMES, NOW_MS, ticker
from tests.connectors.venues.binance.answers import tickers as body

DAY_MS = 86_400_000


def read(payload: bytes, data: bodies.Data = short, *, ages: Ages | None = None, received_ms: int = NOW_MS) -> Rows:
    return bodies.tickers(
        payload, data, channel="c", instruments=NAMES, received_ms=received_ms, ages=ages or Ages(OLD_S)
    )


def book(payload: bytes) -> Rows:
    return bodies.book(payload, channel="b", instrument="BTC/USDT", symbol="BTCUSDT", received_ms=7)


def test_a_price_carries_the_venues_digits() -> None:
    made = read(body(ticker(), ticker("ETHUSDT", "5.9e-06"), ticker("NOTASKED")))
    assert made.notes == []
    first, second = made.events
    assert first == Event(
        channel="c",
        instrument="BTC/USDT",
        data=b'{"symbol":"BTCUSDT","price":"42150.50000000","priceChangePercent":"2.450"}',
        received_ms=NOW_MS,
        price="42150.50000000",
        exchange_ms=NOW_MS - 40,
    )
    assert (second.instrument, second.price) == ("ETH/USDT", "5.9e-06")


def test_the_day_is_spliced_as_it_is() -> None:
    row = ticker(unknown={"nested": [1.50, None]})
    made = read(body(row, ticker("ETHUSDT")), whole)
    assert made.events[0].data == row
    assert made.events[0].exchange_ms == NOW_MS - 40


ODD_ROWS = [
    (ticker(price=""), "unreadable", '`lastPrice` is "", not a number'),
    (ticker(price="NaN"), "unreadable", '`lastPrice` is "NaN", not a number'),
    (ticker(price="Infinity"), "unreadable", '`lastPrice` is "Infinity", not a number'),
    (ticker(price="-Infinity"), "unreadable", '`lastPrice` is "-Infinity", not a number'),
    *(
        (ticker(price=text), "unreadable", f'`lastPrice` is "{text}", not a number')
        for text in (".5", "1.", "+1", "01")
    ),
    (ticker(price="1e400"), "unreadable", '`lastPrice` is "1e400", not a number'),
    (ticker(price="7" * 5_000), "unreadable", "the row has a number of 300 digits"),
    (ticker(price="-1.5"), "unreadable", '`lastPrice` is "-1.5", below 0'),
    (ticker(lastPrice=1.5), "unreadable", "`lastPrice` is 1.5"),
    (ticker(lastPrice=None), "unreadable", "`lastPrice` is null"),
    (ticker(lastPrice=["1"]), "unreadable", '`lastPrice` is ["1"]'),
    (ticker().replace(b"lastPrice", b"price"), "unreadable", "`lastPrice` is missing"),
    (ticker(priceChangePercent=None), "unreadable", "`priceChangePercent` is null"),
    (ticker(closeTime="1"), "unreadable", '`closeTime` is "1"'),
    (ticker(closeTime=None), "unreadable", "`closeTime` is null"),
    (ticker(closeTime=-1), "unreadable", "`closeTime` is -1, not in milliseconds since 1970"),
    (ticker(closeTime=0), "unreadable", "`closeTime` is 0, not in milliseconds since 1970"),
    (ticker(closeTime=NOW_MS // 1_000), "unreadable", f"`closeTime` is {NOW_MS // 1_000}, not in milliseconds"),
    (ticker(closeTime=NOW_MS * 1_000), "unreadable", f"`closeTime` is {NOW_MS * 1_000}, not in milliseconds"),
    (ticker(closeTime=2**60), "unreadable", f"`closeTime` is {2**60}, not in milliseconds"),
    (ticker(more=[1e300]).replace(b"1e+300", b"1e400"), "unreadable", "not the row that is documented"),
    (ticker().replace(b"2.450", b"\xff"), "unreadable", "not the row that is documented"),
    (ticker(price="0.00000000"), "halted", 'not trading: `lastPrice` is "0.00000000"'),
    (ticker(price="0"), "halted", 'not trading: `lastPrice` is "0"'),
    (ticker(closeTime=NOW_MS - 23 * DAY_MS), "halted", "not trading: `closeTime` is 23 days old"),
    (ticker(closeTime=NOW_MS - 5 * 3_600_000), "halted", "not trading: `closeTime` is 5 h old"),
    (ticker(bidPrice="0.00000000", askPrice="0.00000000"), "halted", "not trading: nobody bids or asks"),
]


@pytest.mark.parametrize("data", [short, whole])
@pytest.mark.parametrize(("row", "cause", "reason"), ODD_ROWS)
def test_one_odd_row_is_set_aside_by_name_and_the_others_are_published(
    row: bytes, cause: str, reason: str, data: bodies.Data
) -> None:
    for rows in ((row, ticker("ETHUSDT")), (ticker("ETHUSDT"), row)):
        made = read(body(*rows), data)
        assert [event.instrument for event in made.events] == ["ETH/USDT"]
        [note] = made.notes
        assert (note.channel, note.instrument, note.cause) == ("c", "BTC/USDT", cause)
        assert note.reason.startswith(reason)
        assert len(note.reason) < 250


@pytest.mark.parametrize("row", [b"7", b"null", b'"x"', b"[]", b"{}", b'{"symbol":null}', b'{"symbol":7}', b"true"])
def test_a_row_without_a_name_costs_no_other_and_who_is_missing_is_said(row: bytes) -> None:
    made = read(body(row, ticker("ETHUSDT")))
    assert [event.instrument for event in made.events] == ["ETH/USDT"]
    [note] = made.notes
    assert (note.instrument, note.cause) == ("BTC/USDT", "silent")
    assert note.reason.startswith("missing from Binance's answer; a row without a known symbol: ")


def test_a_symbol_that_is_missing_from_the_answer_is_said() -> None:
    made = read(body(ticker("ETHUSDT"), ticker("NOTASKED")))
    assert made.notes == [TopicNote("c", "BTC/USDT", "silent", "missing from Binance's answer")]
    assert [note.instrument for note in read(b"[]").notes] == ["BTC/USDT", "ETH/USDT"]


def test_a_row_that_comes_twice_counts_once_and_two_that_differ_not_at_all() -> None:
    same = read(body(ticker(), ticker("ETHUSDT"), ticker()))
    assert ([event.instrument for event in same.events], same.notes) == (["BTC/USDT", "ETH/USDT"], [])
    made = read(body(ticker(), ticker("ETHUSDT"), ticker(price="1")))
    assert [event.instrument for event in made.events] == ["ETH/USDT"]
    [note] = made.notes
    assert (note.instrument, note.reason) == ("BTC/USDT", "it is in the body twice, with different values")


def test_a_quiet_pair_is_no_halted_one() -> None:
    """The quietest of the recorded pairs was seven minutes behind; and our own clock may be wrong."""
    assert read(body(ticker(closeTime=NOW_MS - 440_000), ticker("ETHUSDT"))).notes == []
    assert read(body(ticker(closeTime=NOW_MS + 3_600_000), ticker("ETHUSDT"))).notes == []
    ages, ahead_ms = Ages(OLD_S), 9 * 3_600_000
    first = read(body(ticker(), ticker("ETHUSDT")), ages=ages, received_ms=NOW_MS + ahead_ms)
    assert {note.cause for note in first.notes} == {"halted"}
    later = [ticker(name, closeTime=NOW_MS + 10_000) for name in NAMES]
    second = read(body(*later), ages=ages, received_ms=NOW_MS + ahead_ms + 10_000)
    assert second.notes == [], "what moves on is traded, whatever our clock says"


def test_the_venues_own_clock_counts_where_ours_is_wrong() -> None:
    received_ms = NOW_MS + 9 * 3_600_000
    rows = body(ticker(), ticker("ETHUSDT"))
    made = bodies.tickers(
        rows, short, channel="c", instruments=NAMES, received_ms=received_ms, ages=Ages(OLD_S), venue_ms=NOW_MS
    )
    assert made.notes == []


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"7", b"null", ticker(), b"[" * 5_000 + b"]" * 5_000, b"[{]", b'{"code":-1,"msg":"x"}']
)
def test_only_what_is_no_list_of_rows_is_a_payload_error(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        read(payload)


def test_a_body_that_is_blown_up_by_its_number_of_tickers_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"^the body has 101 tickers, of which at most 100 are looked at$"):
        read(body(*(ticker(f"X{number}") for number in range(101))))


# ---- books


def test_a_book_gains_its_symbol_and_the_middle_as_its_price() -> None:
    payload = b'{"lastUpdateId":7,"bids":[["4.00000000","431.0"],["3.9","1"]],"asks":[["4.00000201","12.00"]]}'
    made = book(payload)
    assert made.events == [
        Event(
            channel="b",
            instrument="BTC/USDT",
            data=b'{"symbol":"BTCUSDT",' + payload[1:],
            received_ms=7,
            price="4.000001005",
        )
    ]
    assert made.notes == []


def test_a_book_with_one_side_has_no_price_and_no_time_and_is_remarked_on() -> None:
    payload = b'{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[]}'
    made = book(payload)
    [event] = made.events
    assert (event.price, event.exchange_ms, event.data) == ("", None, b'{"symbol":"BTCUSDT",' + payload[1:])
    assert made.notes == [TopicNote("b", "BTC/USDT", "halted", "its book has no asks", partial=True)]


@pytest.mark.parametrize(
    ("payload", "cause", "reason"),
    [
        (b'{"lastUpdateId":1,"bids":[],"asks":[]}', "halted", "not trading: its book is empty"),
        (b'{"lastUpdateId":1,"bids":[["1","2"]]}', "unreadable", "`asks` is missing"),
        (b'{"bids":[],"asks":[]}', "unreadable", "`lastUpdateId` is missing"),
        (b'{"lastUpdateId":"1","bids":[],"asks":[]}', "unreadable", '`lastUpdateId` is "1"'),
        (b'{"lastUpdateId":9223372036854775808,"bids":[],"asks":[]}', "unreadable", "`lastUpdateId` is 9223372036"),
        (b'{"lastUpdateId":-1,"bids":[],"asks":[]}', "unreadable", "`lastUpdateId` is -1"),
        (b'{"lastUpdateId":1,"bids":{},"asks":[]}', "unreadable", "`bids` is {}"),
        (b'{"lastUpdateId":1,"bids":[],"asks":null}', "unreadable", "`asks` is null"),
        (b'{"lastUpdateId":1,"bids":[["1"]],"asks":[]}', "unreadable", '`bids` is [["1"]]'),
        (b'{"lastUpdateId":1,"bids":[["1","2","3"]],"asks":[]}', "unreadable", "`bids` is "),
        (b'{"lastUpdateId":1,"bids":[[1,2]],"asks":[]}', "unreadable", "`bids` is [[1,2]]"),
        (b'{"lastUpdateId":7,"bids":[["1","2"]],"asks":[["","2"]]}', "unreadable", '`asks` has the price ""'),
        (b'{"lastUpdateId":7,"bids":[["NaN","2"]],"asks":[["2","2"]]}', "unreadable", '`bids` has the price "NaN"'),
        (b'{"lastUpdateId":7,"bids":[["0.0","2"]],"asks":[["2","2"]]}', "unreadable", '`bids` has the price "0.0"'),
        (b'{"lastUpdateId":7,"bids":[["-1","2"]],"asks":[["2","2"]]}', "unreadable", '`bids` has the price "-1"'),
        (b'{"lastUpdateId":7,"bids":[["1","x"]],"asks":[["2","2"]]}', "unreadable", '`bids` has the quantity "x"'),
        (b'{"lastUpdateId":7,"bids":[["1","-2"]],"asks":[["2","2"]]}', "unreadable", '`bids` has the quantity "-2"'),
    ],
)
def test_a_book_that_is_none_is_noted_of_its_instrument(payload: bytes, cause: str, reason: str) -> None:
    made = book(payload)
    assert made.events == []
    [note] = made.notes
    assert (note.channel, note.instrument, note.cause) == ("b", "BTC/USDT", cause)
    assert note.reason.startswith(reason)


@pytest.mark.parametrize("payload", [b"", b"[]", b"7", b"<html>", b'{"code":-1003,"msg":"Too many requests queued."}'])
def test_what_is_no_book_at_all_is_a_payload_error(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        book(payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields = ["symbol", "lastPrice", "closeTime", "priceChangePercent", "lastUpdateId", "bids", "asks"]
near_misses = st.dictionaries(
    st.sampled_from(fields), json_values | st.sampled_from(["BTCUSDT", "1.5", 7, NOW_MS, [["1", "2"]]])
)


@given(
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | near_misses.map(lambda row: json.dumps(row).encode())
    | st.lists(near_misses).map(lambda rows: json.dumps(rows).encode())
)
def test_any_bytes_are_rows_or_a_payload_error(payload: bytes) -> None:
    for make in (read, partial(read, data=whole), book):
        try:
            made = make(payload)
        except PayloadError:
            continue
        for event in made.events:
            json.loads(event.data.decode())
            assert not event.price or float(event.price) > 0
        for note in made.notes:
            assert note.instrument in NAMES.values()
            assert note.reason.isprintable()


@given(near_misses.map(lambda row: json.dumps(row).encode()), st.booleans())
def test_whatever_one_row_is_the_others_are_published(row: bytes, first: bool) -> None:
    good = ticker("ETHUSDT")
    made = read(body(row, good) if first else body(good, row))
    assert "ETH/USDT" in [event.instrument for event in made.events]


# ---- recorded bodies


def test_recorded_tickers_keep_every_digit(recorded: Path) -> None:
    seen = 0
    for path in sorted(recorded.glob("binance_rest_ticker24hr_*.json")):
        payload = path.read_bytes()
        if not payload.lstrip().startswith(b"["):
            payload = b"[" + payload + b"]"
        rows = msgspec.json.decode(payload, type=list[dict[str, str | int]])
        names = {str(row["symbol"]): f"X/{row['symbol']}" for row in rows}
        now_ms = max(int(row["closeTime"]) for row in rows)
        made = [
            bodies.tickers(payload, data, channel="p", instruments=names, received_ms=now_ms, ages=Ages(OLD_S))
            for data in (short, whole)
        ]
        assert [each.notes for each in made] == [[], []], "nothing of what was recorded is set aside"
        for row, price, full in zip(rows, made[0].events, made[1].events, strict=True):
            seen += 1
            assert price.price == full.price == row["lastPrice"]
            assert price.exchange_ms == full.exchange_ms == row["closeTime"]
            assert msgspec.json.decode(full.data) == row
            assert msgspec.json.decode(price.data) == {
                "symbol": row["symbol"],
                "price": row["lastPrice"],
                "priceChangePercent": row["priceChangePercent"],
            }
            assert str(row["lastPrice"]).encode() in full.data
    assert seen > 8


def test_recorded_books_keep_every_level(recorded: Path) -> None:
    payloads = [(recorded / "binance_rest_depth_BTCUSDT.json").read_bytes()]
    lines = (recorded / "binance_rest_depth1000_2021-10-12.jsonl").read_text().splitlines()
    payloads += [json.loads(line)["body"].encode() for line in lines]
    for payload in payloads:
        (event,) = book(payload).events
        assert json.loads(event.data) == {"symbol": "BTCUSDT", **json.loads(payload)}
    assert len(payloads) == 3
