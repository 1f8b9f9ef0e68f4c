"""Kraken's history of candles: what is asked, and what each row means."""

from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import ConnectorError, PayloadError, VenueRefused, VenueThrottled, VenueUnavailable
from connectors.limits.rows import Odd
from connectors.poll.candles import Row, Stretch
from connectors.poll.venue import Answer
from connectors.venues.kraken.history import KrakenHistory, pair_of

HISTORY = KrakenHistory()
STRETCH = Stretch("BTC/USD", "1h", 1_765_209_600_000, 1_767_801_600_000)
ROW = b'[1765209600,"30306.1","30306.2","30305.7","30305.7","30306.1","3.39243896",23]'


def body(rows: bytes) -> bytes:
    return b'{"error":[],"result":{"XXBTZUSD":[' + rows + b'],"last":1688672160}}'


def test_a_stretch_is_asked_for_from_just_before_it() -> None:
    parts = urlsplit(HISTORY.path(STRETCH, STRETCH.until_ms))
    assert parts.path == "/0/public/OHLC"
    assert parse_qs(parts.query) == {"pair": ["XBTUSD"], "interval": ["60"], "since": ["1765209599"]}


@pytest.mark.parametrize(
    ("instrument", "pair"),
    [("BTC/USDT", "XBTUSDT"), ("DOGE/USD", "XDGUSD"), ("ETH/BTC", "ETHXBT"), ("XTZ/EUR", "XTZEUR")],
)
def test_pairs_have_names_of_their_own(instrument: str, pair: str) -> None:
    assert pair_of(instrument) == pair


def test_a_row_keeps_its_digits() -> None:
    [raw] = HISTORY.read(body(ROW))
    row = HISTORY.row(bytes(raw), STRETCH)
    row.check()
    data = b'{"symbol":"BTC/USD","ohlc":' + ROW + b"}"
    assert row == Row(1_765_209_600_000, "30306.1", "30306.2", "30305.7", "30305.7", "3.39243896", data)


@pytest.mark.parametrize("raw", [b"[]", b"7", ROW.replace(b"1765209600", b'"soon"'), b'[1,"2","3","4","5","6"]'])
def test_a_row_of_another_form_is_odd(raw: bytes) -> None:
    with pytest.raises(Odd):
        HISTORY.row(raw, STRETCH)


@pytest.mark.parametrize(
    ("said", "type_"),
    [
        (b'{"error":["EGeneral:Too many requests"]}', VenueThrottled),
        (b'{"error":["EAPI:Rate limit exceeded"]}', VenueThrottled),
        (b'{"error":["EQuery:Unknown asset pair"]}', VenueRefused),
        (b'{"error":["EGeneral:Invalid arguments:interval"]}', VenueRefused),
        (b'{"error":["EService:Unavailable"]}', VenueUnavailable),
        (b'{"error":[],"result":{"last":1}}', PayloadError),
        (b'{"error":[],"result":{"A":[],"B":[],"last":1}}', PayloadError),
        (b'{"error":[],"result":{"A":{},"last":1}}', PayloadError),
        (b"[]", PayloadError),
    ],
)
def test_a_body_that_says_no(said: bytes, type_: type[ConnectorError]) -> None:
    with pytest.raises(ConnectorError) as caught:
        HISTORY.read(said)
    assert type(caught.value) is type_


def test_a_status_is_explained() -> None:
    assert HISTORY.explain(Answer(200, {}, b"", 0, 0.0)) is None
    assert isinstance(HISTORY.explain(Answer(520, {}, b"", 0, 0.0)), VenueUnavailable)
    assert HISTORY.pause(Answer(200, {}, b"", 0, 0.0)) is None


@given(st.binary() | st.integers(0, len(ROW)).flatmap(lambda cut: st.binary().map(lambda junk: ROW[:cut] + junk)))
def test_nothing_else_comes_of_any_bytes(payload: bytes) -> None:
    with suppress(ConnectorError, Odd):
        for raw in HISTORY.read(body(payload)):
            HISTORY.row(bytes(raw), STRETCH).check()
