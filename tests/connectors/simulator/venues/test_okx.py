"""OKX simulated: REST envelopes and errors, one connection's requests, the text of a push."""

import json
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulator.http.request import VenueRequest, VenueResponse
from connectors.simulator.venues.market import OKX, Market
from connectors.simulator.venues.okx import OkxSubscriptions, SimulatedOkx, TickerText

Json: TypeAlias = Any
"""Whatever JSON decodes to."""


def get(target: str) -> VenueResponse:
    venue = SimulatedOkx(Market(1), lambda: 1_800_000_000.25, lambda: 40)
    return venue.answer(VenueRequest("GET", f"/api/v5/{target}"))


def data(target: str) -> Json:
    response = get(target)
    body = json.loads(response.body)
    assert (response.status, body["code"], body["msg"]) == (200, "0", "")
    return body["data"]


def test_a_ticker_is_the_one_that_is_pushed() -> None:
    (ticker,) = data("market/ticker?instId=DOT-USDT")
    text = TickerText(OKX["DOT-USDT"])
    quote = Market(1).quote(OKX["DOT-USDT"], 40)
    push = json.loads(text.push(quote, 1_800_000_000_250))

    assert push == {"arg": {"channel": "tickers", "instId": "DOT-USDT"}, "data": [ticker]}
    assert (ticker["instType"], ticker["ts"]) == ("SPOT", "1800000000250")
    assert len(ticker) == 16
    numbers = {name: float(ticker[name]) for name in list(ticker)[2:]}
    assert numbers["bidPx"] < numbers["askPx"]
    assert numbers["low24h"] <= numbers["last"] <= numbers["high24h"]
    assert numbers["volCcy24h"] == pytest.approx(numbers["vol24h"] * numbers["last"], rel=0.1)


def test_a_stamp_is_the_first_member() -> None:
    push = TickerText(OKX["DOT-USDT"]).push(Market(1).quote(OKX["DOT-USDT"], 0), 1, mono_ns=17)

    assert b'"data":[{"mono":17,"instType":' in push
    json.loads(push)


def test_instruments_map_names() -> None:
    rows = data("public/instruments?instType=SPOT")

    assert [row["instId"] for row in rows] == list(OKX)
    assert {(row["state"], row["quoteCcy"], row["instType"]) for row in rows} == {("live", "USDT", "SPOT")}
    (bitcoin,) = data("public/instruments?instType=SPOT&instId=BTC-USDT")
    assert (bitcoin["baseCcy"], bitcoin["tickSz"], bitcoin["lotSz"]) == ("BTC", "0.1", "0.00000001")
    assert data("public/instruments?instType=SWAP") == []


def test_time() -> None:
    assert data("public/time") == [{"ts": "1800000000250"}]


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("market/ticker?instId=NOPE-USDT", 200, "51001"),
        ("market/ticker", 400, "50014"),
        ("public/instruments", 400, "50014"),
        ("public/instruments?instType=NONE", 400, "51000"),
        ("public/instruments?instType=SPOT&instId=NOPE", 200, "51001"),
    ],
)
def test_errors_are_in_the_code(target: str, status: int, code: str) -> None:
    response = get(target)

    assert (response.status, json.loads(response.body)["code"]) == (status, code)


def receive(subscriptions: OkxSubscriptions, message: str | bytes) -> list[Any]:
    return [json.loads(reply) for reply in subscriptions.receive(message)]


def command(op: str, *args: tuple[str, str], **more: object) -> str:
    named = [{"channel": channel, "instId": instrument} for channel, instrument in args]
    return json.dumps({**more, "op": op, "args": named})


def test_one_acknowledgement_per_argument_in_the_documented_form() -> None:
    one = OkxSubscriptions("a4d3ae55", {"BTC-USDT", "ETH-USDT"})
    arg = {"channel": "tickers", "instId": "BTC-USDT"}
    ack = {"event": "subscribe", "connId": "a4d3ae55", "arg": arg}

    assert receive(one, command("subscribe", ("tickers", "BTC-USDT"), id="1512")) == [{**ack, "id": "1512"}]
    assert receive(one, command("subscribe", ("tickers", "BTC-USDT"))) == [ack]
    replies = receive(one, command("subscribe", ("tickers", "NOPE"), ("tickers", "ETH-USDT"), id="2"))
    assert [reply["event"] for reply in replies] == ["error", "subscribe"]
    assert one.instruments == {"BTC-USDT", "ETH-USDT"}
    (gone,) = receive(one, command("unsubscribe", ("tickers", "ETH-USDT")))
    assert gone["event"] == "unsubscribe"
    assert one.instruments == {"BTC-USDT"}


def test_errors_carry_no_arg() -> None:
    one = OkxSubscriptions("5e1f2fe5", {"BTC-USDT"})

    assert receive(one, command("subscribe", ("book", "BTC-USDT"), id="ob1")) == [
        {
            "id": "ob1",
            "event": "error",
            "code": "60018",
            "msg": "Subscribe failed, wrong URL or channel:book,instId:BTC-USDT doesn't exist.",
            "connId": "5e1f2fe5",
        }
    ]
    (other,) = receive(one, command("unsubscribe", ("tickers", "NOPE")))
    assert (other["code"], "arg" in other) == ("60018", False)


@pytest.mark.parametrize(
    ("message", "echoed"),
    [
        ("{nonsense", None),
        ("[]", None),
        ("", None),
        ('{"id":"7","op":"subscribe","argss":[]}', "7"),
        ('{"id":"7","op":"subscribe","args":[]}', "7"),
        ('{"id":"7","op":"login","args":[{"channel":"tickers","instId":"BTC-USDT"}]}', "7"),
        ('{"id":"not plain!","op":"ping"}', None),
        (b"\xff\xfe", None),
    ],
)
def test_a_malformed_request_is_60012_with_its_id(message: str | bytes, echoed: str | None) -> None:
    (error,) = receive(OkxSubscriptions("5e1f2fe5", {"BTC-USDT"}), message)

    assert (error["event"], error["code"], error.get("id")) == ("error", "60012", echoed)
    assert error["msg"].startswith("Invalid request: ")


@given(st.text() | st.binary())
def test_nothing_that_a_client_sends_raises(message: str | bytes) -> None:
    one = OkxSubscriptions("5e1f2fe5", {"BTC-USDT"})

    for reply in one.receive(message):
        if reply != b"pong":
            assert json.loads(reply)["connId"] == "5e1f2fe5"


def test_ping_is_text_not_json() -> None:
    assert OkxSubscriptions("5e1f2fe5", set()).receive("ping") == [b"pong"]
