"""`tickerd.records`: rows that tables take as they are, with every digit, or as floats."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

import tickerd
from protocol.kinds import MESSAGES
from protocol.messages import Data, Format, decode_message

COMMON = (
    '"connector_id":"c","exchange":"okx","instrument":"BTC/USDT","timestamp":"2025-12-08T16:30:45.123Z","seq":12,'
    '"prev_seq":11,"received_ms":1765211445122,"data":{"last":"42150.50"}'
)


def message(type_: str, more: str = "") -> Data:
    found = decode_message(f'{{"type":"{type_}",{COMMON}{more}}}', Format.JSON)
    assert isinstance(found, Data)
    return found


def test_a_price_is_a_row_with_its_digits_and_its_times() -> None:
    assert tickerd.records(message("price_update", ',"price":42150.50,"exchange_ms":1765211445101')) == [
        {
            "type": "price_update",
            "channel": "c",
            "exchange": "okx",
            "instrument": "BTC/USDT",
            "price": Decimal("42150.50"),
            "timestamp": datetime(2025, 12, 8, 16, 30, 45, 123_000, UTC),
            "seq": 12,
            "prev_seq": 11,
            "exchange_time": datetime(2025, 12, 8, 16, 30, 45, 101_000, UTC),
            "received_time": datetime(2025, 12, 8, 16, 30, 45, 122_000, UTC),
            "cached": False,
        }
    ]


def test_what_is_absent_is_none_so_that_columns_stay() -> None:
    [row] = tickerd.records(message("quote_update", ',"bid":1.50,"bid_size":2'))
    assert (row["bid"], row["ask"], row["price"], row["exchange_time"]) == (Decimal("1.50"), None, None, None)
    assert list(row) == list(tickerd.records(message("quote_update", ',"ask":1'))[0])


@pytest.mark.parametrize(("number", "price"), [(float, 42150.5), (str, "42150.50"), (Decimal, Decimal("42150.50"))])
def test_numbers_are_what_one_makes_of_them(number: type, price: object) -> None:
    [row] = tickerd.records(message("trade", ',"price":42150.50,"size":0.10,"side":"buy","trade_id":"7"'), number)
    assert (row["price"], row["side"], row["trade_id"]) == (price, "buy", "7")


def test_a_candle_has_when_it_began() -> None:
    candle = ',"interval":"1m","start_ms":1765211400000,"open":1,"high":3,"low":0.5,"close":2,"volume":10,"closed":true'
    [row] = tickerd.records(message("candle_update", candle))
    assert row["start_time"] == datetime(2025, 12, 8, 16, 30, tzinfo=UTC)
    assert (row["open"], row["volume"], row["closed"]) == (Decimal(1), Decimal(10), True)


def test_a_book_is_a_row_for_each_level() -> None:
    rows = tickerd.records(message("depth_update", ',"bids":[["1.50","2"],["1.40","0"]],"asks":[["1.60","3"]]'), str)
    assert [(row["side"], row["price"], row["quantity"], row["seq"]) for row in rows] == [
        ("bid", "1.50", "2", 12),
        ("bid", "1.40", "0", 12),
        ("ask", "1.60", "3", 12),
    ]
    with pytest.raises(ValueError, match="no levels of a book"):
        tickerd.records(message("depth_update", ',"bids":[[1]],"asks":[]'))


def test_no_column_is_left_that_a_table_would_not_take() -> None:
    """Every kind of message: a value is a number, a text, a time, a truth or nothing."""
    for struct in MESSAGES:
        fields = set(struct.__struct_fields__) - {"bids", "asks", "data"}
        more = "".join(
            f',"{name}":{value}'
            for name, value in {
                **dict.fromkeys(("size", "open", "high", "low", "close", "volume", "start_ms"), "1"),
                "side": '"buy"',
                "trade_id": '"1"',
                "interval": '"1m"',
                "closed": "true",
            }.items()
            if name in fields
        )
        levels = ',"bids":[["1","2"]],"asks":[]' if "bids" in struct.__struct_fields__ else ""
        for row in tickerd.records(message(str(struct.__struct_config__.tag), more + levels)):
            allowed = str | int | float | Decimal | datetime | None
            assert all(isinstance(value, allowed) for value in row.values()), row
