"""Coinbase's history of candles: what is asked, and what each row means."""

from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import ConnectorError, PayloadError, VenueRefused, VenueThrottled
from connectors.limits.rows import Odd
from connectors.poll.candles import Row, Stretch
from connectors.poll.venue import Answer
from connectors.venues.coinbase.history import CoinbaseHistory

HISTORY = CoinbaseHistory()
STRETCH = Stretch("BTC/USD", "5m", 1_765_170_000_000, 1_765_260_000_000)
ROW = b'{"start":"1765170000","low":"140.21","high":"141","open":"140.5","close":"140.90","volume":"56437345"}'


def test_a_stretch_is_asked_for_in_seconds_and_within_350_candles() -> None:
    parts = urlsplit(HISTORY.path(STRETCH, STRETCH.until_ms))
    assert parts.path == "/api/v3/brokerage/market/products/BTC-USD/candles"
    asked = parse_qs(parts.query)
    assert asked == {
        "start": ["1765170000"],
        "end": ["1765259999"],
        "granularity": ["FIVE_MINUTE"],
        "limit": ["300"],
    }
    assert (int(asked["end"][0]) - int(asked["start"][0])) / 300 < 350


def test_what_is_against_usdc_is_the_product_against_usd() -> None:
    path = HISTORY.path(Stretch("BTC/USDC", "5m", 0, 1), 0)
    assert path.startswith("/api/v3/brokerage/market/products/BTC-USD/candles?")


def test_a_row_keeps_its_digits() -> None:
    [raw] = HISTORY.read(b'{"candles":[' + ROW + b"]}")
    row = HISTORY.row(bytes(raw), STRETCH)
    row.check()
    assert row == Row(1_765_170_000_000, "140.5", "141", "140.21", "140.90", "56437345", ROW)


@pytest.mark.parametrize("raw", [b"{}", b"7", ROW.replace(b"1765170000", b"soon"), ROW.replace(b'"141"', b"141")])
def test_a_row_of_another_form_is_odd(raw: bytes) -> None:
    with pytest.raises(Odd):
        HISTORY.row(raw, STRETCH)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"candles":{}}'])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadError):
        HISTORY.read(body)


@pytest.mark.parametrize(("status", "type_"), [(429, VenueThrottled), (404, VenueRefused)])
def test_a_status_is_explained(status: int, type_: type[ConnectorError]) -> None:
    assert type(HISTORY.explain(Answer(status, {}, b"", 0, 0.0))) is type_
    assert HISTORY.explain(Answer(200, {}, b"", 0, 0.0)) is None
    assert HISTORY.pause(Answer(200, {}, b"", 0, 0.0)) is None


@given(st.binary() | st.integers(0, len(ROW)).flatmap(lambda cut: st.binary().map(lambda junk: ROW[:cut] + junk)))
def test_nothing_else_comes_of_any_bytes(payload: bytes) -> None:
    with suppress(PayloadError, Odd):
        for raw in HISTORY.read(b'{"candles":[' + payload + b"]}"):
            HISTORY.row(bytes(raw), STRETCH).check()
