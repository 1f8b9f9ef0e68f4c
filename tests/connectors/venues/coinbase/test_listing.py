"""Coinbase's list of products: what is on it, and what is traded."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import PayloadError, VenueUnavailable
from connectors.poll.listing import Wrong, beside
from connectors.poll.venue import Answer
from connectors.venues.coinbase.listing import CoinbaseListing

ROW = {
    "product_id": "BTC-USD",
    "price": "68925.98",
    "status": "online",
    "cancel_only": False,
    "trading_disabled": False,
    "is_disabled": False,
    "view_only": False,
    "alias_to": ["BTC-USDC"],
}
LISTING = CoinbaseListing()


def body(*rows: dict[str, object]) -> bytes:
    """The list, of these rows."""
    return msgspec.json.encode({"products": rows, "num_products": len(rows)})


def test_all_are_asked_for_at_once_beside_the_websocket() -> None:
    assert LISTING.symbol("BTC/USD") == "BTC-USD"
    assert LISTING.path(["BTC-USD"]) == "/api/v3/brokerage/market/products?product_type=SPOT"
    assert beside("wss://advanced-trade-ws.coinbase.com", LISTING.hosts) == "https://api.coinbase.com"


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, None),
        ({"status": "delisted"}, Wrong("halted", "Coinbase has it as delisted")),
        ({"trading_disabled": True}, Wrong("halted", "Coinbase has it as trading_disabled")),
        ({"is_disabled": True}, Wrong("halted", "Coinbase has it as is_disabled")),
        ({"view_only": True}, Wrong("halted", "Coinbase has it as view_only")),
        ({"cancel_only": True}, Wrong("halted", "Coinbase has it as cancel_only")),
    ],
)
def test_a_product_is_traded_if_it_is_online_and_nothing_forbids_it(
    changed: dict[str, object], wrong: Wrong | None
) -> None:
    other = ROW | {"product_id": "ETH-USD"}
    assert LISTING.read(body(ROW | changed, other)) == {"BTC-USD": wrong, "ETH-USD": None}


@pytest.mark.parametrize("no_list", [b"", b"[]", b"{}", body(), b'{"products":[{"status":"online"}]}'])
def test_what_is_no_list_is_no_reason_to_call_an_instrument_wrong(no_list: bytes) -> None:
    with pytest.raises(PayloadError):
        LISTING.read(no_list)


def test_a_failure_is_the_venues() -> None:
    assert isinstance(LISTING.explain(Answer(503, {}, b"", 0, 0.0)), VenueUnavailable)
    assert LISTING.explain(Answer(200, {}, b"{}", 0, 0.0)) is None
    assert LISTING.pause(Answer(200, {}, b"{}", 0, 0.0)) is None


@given(st.binary() | st.integers(0, 200).map(lambda cut: body(ROW)[:cut]))
def test_nothing_but_a_payload_error_comes_of_any_bytes(payload: bytes) -> None:
    with suppress(PayloadError):
        LISTING.read(payload)
