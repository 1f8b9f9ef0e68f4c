"""CoinGecko's bodies: one event each, digit for digit; rows that cannot be used are left out, and named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Event, PayloadError, Rows
from connectors.limits.rows import OLD_S, Ages
from connectors.venues.coingecko import bodies
from connectors.venues.coingecko.polls import ENDPOINTS

NOW_MS = 1_765_211_445_000
GLOBAL = (
    b'{"data":{"active_cryptocurrencies":17397,"total_market_cap":{"btc":34570737.199462704,'
    b'"clp":1.52899720736006e+15},"updated_at":1765211351}}'
)
BITCOIN = b'{"id":"bitcoin","symbol":"btc","name":"Bitcoin","current_price":77671,"roi":null}'
PEPE = b'{"id":"pepe","symbol":"pepe","name":"Pepe","current_price":5.9e-06}'
MARKETS = b"[" + BITCOIN + b",\n " + PEPE + b"]"
BONK = b'{"item":{"id":"bonk","price_btc":7.821066970851871e-11,"data":{"price":5.9e-06,"content":null}}}'
TRENDING = b'{"coins":[' + BONK + b'],"nfts":[]}'


def made(normalise: bodies.Normaliser, body: bytes, received_ms: int = NOW_MS) -> Rows:
    return normalise(body, channel="c", received_ms=received_ms, ages=Ages(OLD_S))


def test_the_global_market_is_unwrapped() -> None:
    rows = made(bodies.market, GLOBAL)
    data = GLOBAL.removeprefix(b'{"data":').removesuffix(b"}")
    assert rows == Rows([Event("c", "", data, NOW_MS, exchange_ms=1_765_211_351_000)], [])


def test_the_top_coins_become_an_object_on_one_line() -> None:
    [event] = made(bodies.top, MARKETS).events
    assert event.data == b'{"coins":' + MARKETS.replace(b"\n ", b"") + b"}"
    assert event.exchange_ms is None


def test_what_is_trending_stays_as_it_is() -> None:
    [event] = made(bodies.trending, TRENDING).events
    assert (event.data, event.price) == (TRENDING, "")


ODD_COINS = [
    (b"1", "row 1: the row is 1, not an object"),
    (b"null", "row 1: the row is null, not an object"),
    (b"[]", "row 1: the row is [], not an object"),
    (b"{}", "row 1: `id` is missing"),
    (b'{"id":"x"}', "x: `symbol` is missing"),
    (BITCOIN.replace(b'"bitcoin"', b'""'), "row 1: `id` is empty"),
    (BITCOIN.replace(b'"bitcoin"', b"null"), "row 1: `id` is null"),
    (BITCOIN.replace(b'"btc"', b"7"), "bitcoin: `symbol` is 7"),
    (BITCOIN.replace(b"77671", b'"77671"'), 'bitcoin: `current_price` is "77671"'),
    (BITCOIN.replace(b"77671", b'"NaN"'), 'bitcoin: `current_price` is "NaN"'),
    (BITCOIN.replace(b"77671", b"-1"), "bitcoin: `current_price` is -1.0, below 0"),
    (BITCOIN.replace(b"77671", b"0"), "bitcoin: not trading: `current_price` is 0"),
    (BITCOIN.replace(b"77671", b"1e999"), "bitcoin: not the row that is documented"),
    (BITCOIN.replace(b"Bitcoin", b"B\xff"), "bitcoin: not the row that is documented"),
    (BITCOIN[:-1] + b',"last_updated":"soon"}', 'bitcoin: `last_updated` is "soon", no time'),
    (BITCOIN[:-1] + b',"last_updated":7}', "bitcoin: `last_updated` is 7"),
    (
        BITCOIN[:-1] + b',"last_updated":"2025-11-01T00:00:00.000Z"}',
        "bitcoin: not trading: `last_updated` is 38 days old",
    ),
    (
        BITCOIN[:-1] + b',"last_updated":"1900-01-01T00:00:00.000Z"}',
        "bitcoin: `last_updated` is -2208988800000, not in",
    ),
]


@pytest.mark.parametrize(("row", "reason"), ODD_COINS)
def test_an_odd_coin_is_left_out_by_name_and_the_others_are_passed_on(row: bytes, reason: str) -> None:
    rows = made(bodies.top, b"[" + row + b", " + PEPE + b"]")
    [event] = rows.events
    assert event.data == b'{"coins":[' + PEPE + b"]}"
    [note] = rows.notes
    assert (note.instrument, note.cause, note.partial, note.count) == ("", "unreadable", True, 1)
    assert note.reason.startswith(f"coins left out: {reason}")


@pytest.mark.parametrize("price", [b"null", b"1", b"1.5", b"5.9e-06"])
def test_a_coin_without_a_price_and_a_quiet_one_are_right(price: bytes) -> None:
    row = BITCOIN.replace(b"77671", price)[:-1] + b',"last_updated":"2025-12-08T13:30:45.000Z"}'
    assert made(bodies.top, b"[" + row + b"]").notes == []


def test_a_coin_that_comes_twice_counts_once_and_what_is_left_out_is_counted() -> None:
    rows = made(bodies.top, b"[" + b",".join([PEPE, BITCOIN, PEPE, b"1", b"2", b"3", b"4"]) + b"]")
    [event] = rows.events
    assert event.data == b'{"coins":[' + PEPE + b"," + BITCOIN + b"]}"
    assert [note.count for note in rows.notes] == [4]
    assert rows.notes[0].reason.endswith("; row 6: the row is 3, not an object and 1 more")
    other = made(bodies.top, b"[" + PEPE + b"," + PEPE.replace(b"5.9", b"6") + b"]")
    assert other.notes[0].reason == "coins left out: pepe: it is in the list twice, with different values"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1", "row 1: the row is 1"),
        (b"{}", "row 1: `item` is missing"),
        (b'{"item":null}', "row 1: `item` is null"),
        (b'{"item":{}}', "row 1: `id` is missing"),
        (b'{"item":{"id":"x","price_btc":"1"}}', "x: "),
        (b'{"item":{"id":"x","price_btc":-1}}', "x: `price_btc` is -1.0, below 0"),
        (b'{"item":{"id":"x","data":[]}}', "x: "),
        (b'{"item":{"id":"x","data":{"price_change_percentage_24h":7}}}', "x: "),
        (b'{"item":{"id":"x","data":{"price":1e400}}}', "row 1: not the row that is documented: Number out of range"),
    ],
)
def test_an_odd_trending_coin_is_left_out_by_name(row: bytes, reason: str) -> None:
    rows = made(bodies.trending, b'{"nfts":[{"id":1.50}],"coins":[' + row + b"," + BONK + b"]}")
    [event] = rows.events
    assert json.loads(event.data) == {"nfts": [{"id": 1.5}], "coins": [json.loads(BONK)]}
    assert BONK in event.data
    assert rows.notes[0].reason.startswith(f"trending coins left out: {reason}")


def test_figures_that_are_not_updated_for_hours_are_not_passed_on() -> None:
    rows = made(bodies.market, GLOBAL, NOW_MS + 40 * 3_600_000)
    assert rows.events == []
    [note] = rows.notes
    assert (note.instrument, note.cause) == ("", "halted")
    assert note.reason == "CoinGecko's figures are old: `updated_at` is 40 h old"


@pytest.mark.parametrize(
    ("normalise", "body"),
    [
        (bodies.market, b"{}"),
        (bodies.market, b'{"data":[]}'),
        (bodies.market, b'{"data":{}}'),
        (bodies.market, b'{"data":{"total_market_cap":{}}}'),
        (bodies.market, b'{"data":{"total_market_cap":{"usd":-1}}}'),
        (bodies.market, b'{"data":{"total_market_cap":{"usd":"1"}}}'),
        (bodies.market, GLOBAL.replace(b"1765211351", b'"now"')),
        (bodies.market, GLOBAL.replace(b"1765211351", b"-1")),
        (bodies.market, GLOBAL.replace(b"1765211351", b"9999999999999999")),
        (bodies.market, GLOBAL.replace(b"btc", b"b\xff")),
        (bodies.top, b"{}"),
        (bodies.top, b"[]"),
        (bodies.top, b"[1]"),
        (bodies.top, b'[{"id":"bitcoin"}]'),
        (bodies.trending, b"[]"),
        (bodies.trending, b"{}"),
        (bodies.trending, b'{"coins":{}}'),
        (bodies.trending, b'{"coins":[]}'),
        (bodies.trending, b'{"coins":[1]}'),
        (bodies.trending, TRENDING.replace(b"[]", b"[1e400]")),
    ],
)
def test_a_body_of_which_nothing_can_be_used_is_a_payload_error(normalise: Callable[..., Rows], body: bytes) -> None:
    with pytest.raises(PayloadError):
        made(normalise, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields = ["data", "total_market_cap", "updated_at", "coins", "item", "id", "symbol", "name", "error", "status"]
near_misses = st.recursive(
    json_values,
    lambda inner: st.dictionaries(st.sampled_from(fields), inner) | st.lists(inner),
)


@given(st.binary() | near_misses.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_rows_or_a_payload_error(body: bytes) -> None:
    for endpoint in ENDPOINTS.values():
        try:
            rows = made(endpoint.normalise, body)
        except PayloadError:
            continue
        for event in rows.events:
            assert isinstance(json.loads(event.data.decode()), dict)


def digits(body: bytes) -> object:
    """The value of a JSON text, its numbers as they are written."""
    return json.loads(body, parse_float=str, parse_int=str)


def test_recorded_bodies_keep_every_digit(recorded: Path) -> None:
    body = (recorded / "coingecko_global_2021-05-18.json").read_bytes()
    at_ms = json.loads(body)["data"]["updated_at"] * 1_000
    [event] = made(bodies.market, body, at_ms).events
    assert event.data in body
    assert {"data": digits(event.data)} == digits(body)
    assert event.exchange_ms == at_ms

    for path in sorted(recorded.glob("coingecko_markets_b*.json")):
        body = path.read_bytes()
        rows = made(bodies.top, body, 0)
        assert digits(rows.events[0].data) == {"coins": digits(body)}
        assert rows.notes == []

    body = (recorded / "coingecko_trending_2021-05-18.json").read_bytes()
    rows = made(bodies.trending, body)
    assert digits(rows.events[0].data) == digits(body)
    assert rows.notes == []
    assert b"\n" not in rows.events[0].data
