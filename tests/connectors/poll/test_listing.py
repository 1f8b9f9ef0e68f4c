"""A venue's own list of instruments: what is asked, what is noted, and what a failure leaves alone."""

from contextlib import suppress

import httpx
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from connectors.base import ConnectorError, PayloadError, VenueRefused, VenueThrottled, VenueUnavailable
from connectors.limits.notes import RENEW_S
from connectors.poll.listing import AGAIN_S, DAY_S, InstrumentCheck, Wrong, beside, explained
from connectors.poll.venue import Answer
from connectors.venues.binance.listing import BinanceListing
from connectors.venues.bybit.listing import BybitListing
from connectors.venues.okx.listing import OkxListing
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.connectors.poll.test_poller import Venue, World

NAMES = ("BTC/USDT", "ETH/USDT", "币安人生/USDT")


def channel(*instruments: str, name: str = "c") -> Channel:
    return Channel(name=name, exchange="acme", kind=KINDS["ticker"], instruments=instruments or NAMES)


class Exchange(Venue):
    """Binance's `exchangeInfo`: what is listed, and in which state."""

    def __init__(self, **states: str) -> None:
        super().__init__(self._answer)
        self.states = states
        self.failure: httpx.Response | None = None

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            return self.failure
        asked = msgspec.json.decode(request.url.params["symbols"])
        if not set(asked) <= self.states.keys():
            return httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."})
        rows = [{"symbol": symbol, "status": self.states[symbol], "filters": []} for symbol in asked]
        return httpx.Response(200, json={"timezone": "UTC", "symbols": rows})


LISTED = {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING", "币安人生USDT": "TRADING"}


def check(venue: Venue, *channels: Channel) -> InstrumentCheck:
    return InstrumentCheck("acme", BinanceListing(), venue.host(), channels or [channel()])


async def test_nothing_is_noted_where_all_is_listed_and_it_is_asked_again_a_day_later(
    autojump_clock: MockClock,
) -> None:
    venue, world = Exchange(**LISTED), World()
    with trio.move_on_after(DAY_S + 10):
        await check(venue).run(world)
    assert venue.times == [0, DAY_S]
    assert venue.asked[0][1].url.params["symbols"] == '["BTCUSDT","ETHUSDT","币安人生USDT"]'
    assert world.notes == []
    assert check(venue).channels == (), "no channel goes down with it"


async def test_what_is_not_listed_or_traded_is_named_and_noted_again_while_it_is_so(
    autojump_clock: MockClock,
) -> None:
    venue, world = Exchange(BTCUSDT="TRADING", ETHUSDT="BREAK"), World()
    one = check(venue, channel(), channel("ETH/USDT", name="d"))
    with trio.move_on_after(2 * RENEW_S + 1):
        await one.run(world)
    assert len(world.notes) == 9
    assert {(note.channel, note.instrument, note.cause, note.reason) for note in world.notes} == {
        ("c", "ETH/USDT", "halted", "Binance has it as BREAK"),
        ("d", "ETH/USDT", "halted", "Binance has it as BREAK"),
        ("c", "币安人生/USDT", "refused", "Binance does not list it"),
    }
    assert all(note.listed for note in world.notes)


async def test_while_something_is_wrong_it_is_asked_again_soon_and_what_is_well_again_is_noted_no_more(
    autojump_clock: MockClock,
) -> None:
    venue, world = Exchange(**LISTED | {"ETHUSDT": "HALT"}), World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check(venue).run, world)
        await trio.sleep(AGAIN_S - 1)
        assert venue.times == [0]
        noted = len(world.notes)
        assert noted == AGAIN_S / RENEW_S
        venue.states = LISTED
        await trio.sleep(AGAIN_S)
        assert venue.times == [0, AGAIN_S]
        assert len(world.notes) == noted
        nursery.cancel_scope.cancel()


async def test_a_failure_keeps_what_is_known_and_another_look_goes_on_where_it_was(
    autojump_clock: MockClock,
) -> None:
    names = [f"A{number}/USDT" for number in range(120)]
    venue, world = Exchange(**{name.replace("/", ""): "TRADING" for name in names} | {"A3USDT": "HALT"}), World()
    one = check(venue, channel(*names))
    with trio.move_on_after(AGAIN_S - 1):
        await one.run(world)
    assert len(venue.asked) == 3, "fifty in each part"
    venue.failure = httpx.Response(503)
    noted = len(world.notes)
    with pytest.raises(VenueUnavailable, match="Binance is in trouble"):
        await one.run(world)
    assert len(world.notes) == noted + 1, "what was wrong is said again before it is asked"
    assert one.wrong == {"A3/USDT": Wrong("halted", "Binance has it as HALT")}
    venue.failure = None
    assert await one.look(world.now_ms) == one.wrong


async def test_a_request_for_a_pause_is_kept_to(autojump_clock: MockClock) -> None:
    venue, world = Exchange(**LISTED), World()
    venue.failure = httpx.Response(429, headers={"retry-after": "30"})
    one = check(venue)
    with pytest.raises(VenueThrottled) as refused:
        await one.look(world.now_ms)
    assert refused.value.retry_after_s == 30
    venue.failure = None
    with pytest.raises(VenueThrottled):
        await one.look(world.now_ms)
    assert len(venue.asked) == 1, "the gate is closed"
    await trio.sleep(30)
    assert await one.look(world.now_ms) == {}


@given(st.sets(st.integers(0, 59)), st.integers(1, 60))
def test_all_that_are_wrong_are_found_however_many_there_are(unknown: set[int], count: int) -> None:
    names = [f"A{number}/USDT" for number in range(count)]
    listed = {name.replace("/", ""): "TRADING" for number, name in enumerate(names) if number not in unknown}
    venue = Exchange(**listed)
    found = trio.run(check(venue, channel(*names)).look, World().now_ms)
    assert found.keys() == {name for number, name in enumerate(names) if number in unknown}
    assert len(venue.asked) <= 2 + 14 * max(1, len(unknown))


# The venues.

OKX_BODY = b"""{"code":"0","msg":"","data":[{"instId":"BTC-USDT","state":"live","tickSz":"0.1"},
{"instId":"ETH-USDT","state":"suspend"},{"instId":"X-USDT","state":"preopen"}]}"""


def test_okx_says_the_state_of_all_in_one_list() -> None:
    okx = OkxListing()
    assert okx.path(["BTC-USDT"]) == "/api/v5/public/instruments?instType=SPOT"
    assert okx.symbol("币安人生/USDT") == "币安人生-USDT"
    assert okx.read(OKX_BODY) == {
        "BTC-USDT": None,
        "ETH-USDT": Wrong("halted", "OKX has it as suspend"),
        "X-USDT": Wrong("halted", "OKX has it as preopen"),
    }


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"code":"50011","msg":"Too Many Requests","data":[]}', VenueUnavailable),
        (b'{"code":"0","msg":"","data":[]}', PayloadError),
        (b"<html>", PayloadError),
        (b'{"code":"0","data":[{"instId":"BTC-USDT"}]}', PayloadError),
    ],
)
def test_what_is_no_list_of_okxs_is_no_reason_to_call_an_instrument_wrong(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        OkxListing().read(body)


BYBIT_BODY = b"""{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"symbol":"BTCUSDT","status":"Trading"},
{"symbol":"ETHUSDT","status":"PreLaunch"}]},"retExtInfo":{},"time":1716863719382}"""


def test_bybit_says_the_state_of_all_in_one_list() -> None:
    bybit = BybitListing()
    assert bybit.path([]) == "/v5/market/instruments-info?category=spot"
    assert bybit.read(BYBIT_BODY) == {"BTCUSDT": None, "ETHUSDT": Wrong("halted", "Bybit has it as PreLaunch")}
    with pytest.raises(VenueUnavailable, match="10006 Too many visits"):
        bybit.read(b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}')
    with pytest.raises(PayloadError):
        bybit.read(b'{"retCode":0,"retMsg":"OK","result":{"list":[]}}')
    too_many = bybit.explain(Answer(403, {}, b"access too frequent", 0, 0.0))
    assert isinstance(too_many, VenueThrottled)
    assert too_many.retry_after_s == 600
    assert beside("wss://stream.bybit.com/v5/public/spot", bybit.hosts) == "https://api.bybit.com"


@pytest.mark.parametrize(
    "listing", [OkxListing(), BinanceListing(), BybitListing()], ids=lambda listing: type(listing).__name__
)
@given(data=st.data())
def test_nothing_but_a_venues_fault_comes_of_any_bytes(
    listing: OkxListing | BinanceListing, data: st.DataObject
) -> None:
    body = data.draw(st.binary() | st.sampled_from([OKX_BODY[:-1], BYBIT_BODY[:-1], BYBIT_BODY]))
    with suppress(ConnectorError):
        listing.read(body)


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (302, VenueRefused), (403, VenueRefused), (429, VenueThrottled), (500, VenueUnavailable)],
)
def test_what_a_status_means(status: int, error: type[Exception] | None) -> None:
    said = explained("OKX", Answer(status, {}, b"", 0, 0.0))
    assert (said is None) if error is None else type(said) is error


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("wss://ws.okx.com/ws/v5/public", "https://openapi.okx.com"),
        ("wss://wseea.okx.com/ws/v5/public", "https://eea.okx.com"),
        ("ws://127.0.0.1:9000/ws/v5/public", "http://127.0.0.1:9000"),
        ("wss://mirror.example:8443/okx", "https://mirror.example:8443"),
    ],
)
def test_the_list_is_asked_for_where_the_websocket_is(url: str, base: str) -> None:
    assert beside(url, OkxListing.hosts) == base
