"""Bybit's history of candles: what is asked, and what each row means."""

from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import ConnectorError, PayloadError, VenueRefused, VenueThrottled, VenueUnavailable
from connectors.limits.rows import Odd
from connectors.poll.candles import Row, Stretch
from connectors.poll.venue import Answer
from connectors.venues.bybit.history import BybitHistory

HISTORY = BybitHistory()
STRETCH = Stretch("BTC/USDT", "4h", 1_765_200_000_000, 1_769_520_000_000)
ROW = b'["1765200000000","17071","17073","17027","17055.5","268.611","15.74462667"]'


def body(rows: bytes) -> bytes:
    return (
        b'{"retCode":0,"retMsg":"OK","result":{"category":"spot","symbol":"BTCUSDT","list":[' + rows + b"]},"
        b'"retExtInfo":{},"time":1672025956592}'
    )


def test_a_stretch_is_asked_for_by_its_first_and_last_moment() -> None:
    parts = urlsplit(HISTORY.path(STRETCH, STRETCH.until_ms))
    assert parts.path == "/v5/market/kline"
    assert parse_qs(parts.query) == {
        "category": ["spot"],
        "symbol": ["BTCUSDT"],
        "interval": ["240"],
        "start": ["1765200000000"],
        "end": ["1769519999999"],
        "limit": ["300"],
    }


def test_a_row_keeps_its_digits_and_leaves_to_time_whether_it_is_closed() -> None:
    [raw] = HISTORY.read(body(ROW))
    row = HISTORY.row(bytes(raw), STRETCH)
    row.check()
    data = b'{"symbol":"BTCUSDT","kline":' + ROW + b"}"
    assert row == Row(1_765_200_000_000, "17071", "17073", "17027", "17055.5", "268.611", data)


@pytest.mark.parametrize("raw", [b"[]", b"7", ROW.replace(b"1765200000000", b"soon"), b'["1","2","3","4","5"]'])
def test_a_row_of_another_form_is_odd(raw: bytes) -> None:
    with pytest.raises(Odd):
        HISTORY.row(raw, STRETCH)


@pytest.mark.parametrize(
    ("said", "type_"),
    [
        (b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}', VenueThrottled),
        (b'{"retCode":10001,"retMsg":"Not supported symbols","result":{}}', VenueRefused),
        (b'{"retCode":10016,"retMsg":"Server error.","result":{}}', VenueUnavailable),
        (b"[]", PayloadError),
        (b"", PayloadError),
    ],
)
def test_a_body_that_says_no(said: bytes, type_: type[ConnectorError]) -> None:
    with pytest.raises(ConnectorError) as caught:
        HISTORY.read(said)
    assert type(caught.value) is type_


def test_a_status_is_explained_and_403_is_ten_minutes() -> None:
    assert HISTORY.explain(Answer(200, {}, b"", 0, 0.0)) is None
    banned = HISTORY.explain(Answer(403, {}, b"", 0, 0.0))
    assert isinstance(banned, VenueThrottled)
    assert banned.retry_after_s == 600.0
    assert isinstance(HISTORY.explain(Answer(500, {}, b"", 0, 0.0)), VenueUnavailable)
    assert HISTORY.pause(Answer(200, {}, b"", 0, 0.0)) is None


@given(st.binary() | st.integers(0, len(ROW)).flatmap(lambda cut: st.binary().map(lambda junk: ROW[:cut] + junk)))
def test_nothing_else_comes_of_any_bytes(payload: bytes) -> None:
    with suppress(ConnectorError, Odd):
        for raw in HISTORY.read(body(payload)):
            HISTORY.row(bytes(raw), STRETCH).check()
