"""OKX's history of candles: what is asked, and what each row means."""

from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import ConnectorError, PayloadError, VenueRefused, VenueThrottled, VenueUnavailable
from connectors.limits.rows import Odd
from connectors.poll.candles import Row, Stretch
from connectors.poll.venue import Answer
from connectors.venues.okx.history import OkxHistory, build
from connectors.venues.okx.streams import Okx
from protocol.channels import Channel
from protocol.kinds import KINDS

HISTORY = OkxHistory()
HOUR = 3_600_000
START = 1_765_209_600_000
STRETCH = Stretch("BTC/USDT", "1h", START, START + 100 * HOUR)
ROW = b'["1765209600000","8533.02","8553.74","8527.17","8548.26","45247","529.5858061","5529.5858061","1"]'
"""The documented one, with a time of today."""


@pytest.mark.parametrize(("back", "path"), [(1, "/api/v5/market/candles"), (1_500, "/api/v5/market/history-candles")])
def test_recent_candles_and_older_ones_have_addresses_of_their_own(back: int, path: str) -> None:
    parts = urlsplit(HISTORY.path(STRETCH, START + back * HOUR))
    assert parts.path == path
    assert parse_qs(parts.query) == {
        "instId": ["BTC-USDT"],
        "bar": ["1H"],
        "after": [str(STRETCH.until_ms)],
        "limit": ["100"],
    }


def test_long_candles_are_those_that_open_by_utc() -> None:
    assert "bar=1Dutc&" in HISTORY.path(Stretch("BTC/USDT", "1d", 0, 1), START)


@pytest.mark.parametrize(("confirm", "closed"), [(b'"1"]', True), (b'"0"]', False)])
def test_a_row_keeps_its_digits_and_says_whether_it_is_closed(confirm: bytes, closed: bool) -> None:
    sent = ROW.replace(b'"1"]', confirm)
    [raw] = HISTORY.read(b'{"code":"0","msg":"","data":[' + sent + b"]}")
    row = HISTORY.row(bytes(raw), STRETCH)
    row.check()
    data = b'{"instId":"BTC-USDT","candle":' + sent + b"}"
    assert row == Row(START, "8533.02", "8553.74", "8527.17", "8548.26", "45247", data, closed)


@pytest.mark.parametrize(
    "raw", [b"[]", b"7", ROW.replace(b'"1"]', b'"2"]'), ROW.replace(b"1765209600000", b"soon"), ROW[:-5] + b"]"]
)
def test_a_row_of_another_form_is_odd(raw: bytes) -> None:
    with pytest.raises(Odd):
        HISTORY.row(raw, STRETCH)


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        (b'{"code":"50011","msg":"Too Many Requests","data":[]}', VenueThrottled),
        (b'{"code":"51001","msg":"Instrument ID doesn\'t exist.","data":[]}', VenueRefused),
        (b'{"code":"50026","msg":"System error. Try again later.","data":[]}', VenueUnavailable),
        (b"[]", PayloadError),
        (b"", PayloadError),
    ],
)
def test_a_body_that_says_no(body: bytes, type_: type[ConnectorError]) -> None:
    with pytest.raises(ConnectorError) as caught:
        HISTORY.read(body)
    assert type(caught.value) is type_


def test_a_status_is_explained() -> None:
    assert HISTORY.explain(Answer(200, {}, b"", 0, 0.0)) is None
    refused = HISTORY.explain(Answer(404, {}, b"", 0, 0.0))
    assert isinstance(refused, VenueRefused)
    assert str(refused) == "OKX refused to show its candles (HTTP 404)"
    assert HISTORY.pause(Answer(200, {}, b"", 0, 0.0)) is None


def test_it_asks_beside_the_websocket() -> None:
    channel = Channel(name="c", exchange="okx", kind=KINDS["candles"], instruments=("BTC/USDT",))
    assert build([], Okx(), "tickerd", 1.0) == []
    [made] = build([channel], Okx(url="ws://127.0.0.1:7/ws/v5/public", proxy=""), "tickerd", 1.0)
    assert made.name == "okx-history"


@given(st.binary() | st.integers(0, len(ROW)).flatmap(lambda cut: st.binary().map(lambda junk: ROW[:cut] + junk)))
def test_nothing_else_comes_of_any_bytes(payload: bytes) -> None:
    with suppress(ConnectorError, Odd):
        for raw in HISTORY.read(b'{"code":"0","data":[' + payload + b"]}"):
            HISTORY.row(bytes(raw), STRETCH).check()
