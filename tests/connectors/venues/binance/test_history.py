"""Binance's history of candles: what is asked, and what each row means."""

from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import ConnectorError, PayloadError, VenueRefused, VenueThrottled, VenueUnavailable
from connectors.limits.rows import Odd
from connectors.poll.candles import Row, Stretch
from connectors.poll.venue import Answer
from connectors.venues.binance.history import BinanceHistory

HISTORY = BinanceHistory()
STRETCH = Stretch("BTC/USDT", "1m", 1_765_211_400_000, 1_765_229_400_000)
ROW = (
    b'[1765211400000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1765211459999,'
    b'"2434.19055334",308,"1756.87402397","28.46694368","0"]'
)
"""The documented one, with times of today."""


def answer(status: int) -> Answer:
    return Answer(status, {}, b"", 1_765_211_445_000, 0.0)


def test_a_stretch_is_asked_for_by_its_first_and_last_moment() -> None:
    parts = urlsplit(HISTORY.path(STRETCH, STRETCH.until_ms))
    assert parts.path == "/api/v3/klines"
    assert parse_qs(parts.query) == {
        "symbol": ["BTCUSDT"],
        "interval": ["1m"],
        "startTime": ["1765211400000"],
        "endTime": ["1765229399999"],
        "limit": ["300"],
    }


def test_a_row_keeps_its_digits() -> None:
    [raw] = HISTORY.read(b"[" + ROW + b"]")
    row = HISTORY.row(bytes(raw), STRETCH)
    row.check()
    data = b'{"symbol":"BTCUSDT","kline":' + ROW + b"}"
    digits = ("0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815")
    assert row == Row(1_765_211_400_000, *digits, data)


@pytest.mark.parametrize("raw", [b"[]", ROW.replace(b'"0.8', b"0.8").replace(b'0000",', b"0000,", 1), b"{}", b'["1"]'])
def test_a_row_of_another_form_is_odd(raw: bytes) -> None:
    with pytest.raises(Odd):
        HISTORY.row(raw, STRETCH)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"code":-1121,"msg":"Invalid symbol."}', b"[1e999]"])
def test_a_body_that_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        HISTORY.read(body)


@pytest.mark.parametrize(
    ("status", "type_"), [(429, VenueThrottled), (418, VenueThrottled), (503, VenueUnavailable), (400, VenueRefused)]
)
def test_a_status_says_what_it_says_to_pollers(status: int, type_: type[ConnectorError]) -> None:
    assert type(HISTORY.explain(answer(status))) is type_
    assert HISTORY.explain(answer(200)) is None


def test_a_used_up_budget_is_a_pause() -> None:
    assert HISTORY.pause(answer(200)) is None
    pause = HISTORY.pause(Answer(200, {"x-mbx-used-weight-1m": "4900"}, b"", 1_765_211_445_000, 0.0))
    assert pause is not None
    assert 0 < pause.seconds <= 60


@given(st.binary() | st.integers(0, len(ROW)).flatmap(lambda cut: st.binary().map(lambda junk: ROW[:cut] + junk)))
def test_nothing_else_comes_of_any_bytes(payload: bytes) -> None:
    with suppress(PayloadError, Odd):
        for raw in HISTORY.read(b"[" + payload + b"]"):
            HISTORY.row(bytes(raw), STRETCH).check()
