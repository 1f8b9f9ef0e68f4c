"""OKX's frames: what each means, digit for digit, and that nothing but PayloadError comes of any bytes."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Event, PayloadError, Rows
from connectors.push.feed import Feed
from connectors.push.venue import (
    ClosingNotice,
    Control,
    Heartbeat,
    Ignored,
    SubscribeAck,
    SubscribeEnded,
    SubscribeRefused,
)
from connectors.venues.okx.streams import Okx, OkxStreams, build
from protocol.channels import Channel
from protocol.kinds import KINDS

NOW = 1_765_211_445_122


def channel(name: str, *instruments: str) -> Channel:
    return Channel(name=name, exchange="okx", kind=KINDS["ticker"], instruments=instruments)


VENUE = OkxStreams([channel("bitcoinprice", "BTC/USDT"), channel("majors", "BTC/USDT", "ETH/USDT")])


def ticker(inst_id: str = "BTC-USDT", **fields: str) -> str:
    """One ticker object, as OKX writes it."""
    known = {"instType": "SPOT", "instId": inst_id, "last": "42150.50", "lastSz": "0.1", "ts": "1765211445101"}
    return json.dumps(known | fields, separators=(",", ":"))


def tickers(*objects: str, inst_id: str = "BTC-USDT") -> bytes:
    arg = json.dumps({"channel": "tickers", "instId": inst_id}, separators=(",", ":"))
    return f'{{"arg":{arg},"data":[{",".join(objects)}]}}'.encode()


def handle(payload: bytes | str) -> list[Event] | Rows | Control:
    return VENUE.converse().handle(payload if isinstance(payload, bytes) else payload.encode(), NOW)


def odd(payload: bytes) -> tuple[str, str]:
    """Of a frame of which nothing can be used: the cause and the reason, which are told of both channels."""
    said = handle(payload)
    assert isinstance(said, Rows)
    assert said.events == []
    assert [(note.channel, note.instrument) for note in said.notes] == [
        ("bitcoinprice", "BTC/USDT"),
        ("majors", "BTC/USDT"),
    ]
    [told] = {(note.cause, note.reason) for note in said.notes}
    assert len(told[1]) < 300
    return told


def test_a_ticker_becomes_one_event_for_each_channel_that_carries_it() -> None:
    body = ticker()
    assert handle(tickers(body)) == [
        Event(
            name,
            "BTC/USDT",
            body.encode(),
            NOW,
            price="42150.50",
            exchange_ms=1_765_211_445_101,
            order=1_765_211_445_101,
        )
        for name in ("bitcoinprice", "majors")
    ]
    [only] = handle(tickers(ticker("ETH-USDT"), inst_id="ETH-USDT"))  # type: ignore[misc] # a list, as the line says
    assert (only.channel, only.instrument) == ("majors", "ETH/USDT")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"arg":{"instId":"BTC-USDT","channel":"tickers"},"data":[%s]}',
        b' { "arg" : {"channel":"tickers","instId":"BTC-USDT"} , "data" : [ %s ] } ',
        b'{"data":[%s],"arg":{"channel":"tickers","instId":"BTC-USDT"}}',
        b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[%s],"more":[1]}',
        b'{"arg":{"channel":"tickers","instId":"BTC-USDT","uly":""},"data":[%s]}',
    ],
)
def test_other_spellings_of_the_same_frame_give_the_same_events(payload: bytes) -> None:
    body = ticker().encode()
    assert handle(payload % body) == handle(tickers(ticker()))


def test_a_frame_with_several_tickers_gives_all_of_them_in_order() -> None:
    said = handle(tickers(ticker(last="1.10"), ticker(last="1.2")))
    assert isinstance(said, list)
    assert [event.price for event in said] == ["1.10", "1.10", "1.2", "1.2"]
    assert handle(tickers()) == Ignored("a push without a row, of tickers and BTC-USDT")


@given(
    st.from_regex(r"[1-9][0-9]{0,12}(\.[0-9]{1,18})?|0\.[0-9]{1,17}[1-9]", fullmatch=True),
    st.integers(NOW - 14_000_000, 4_102_444_800_000),
    st.text(),
)
def test_every_digit_and_every_byte_is_kept(last: str, ts: int, more: str) -> None:
    for body in (ticker(last=last, ts=str(ts), more=more), json.dumps(json.loads(ticker(last=last, ts=str(ts))))):
        said = handle(tickers(body))
        assert isinstance(said, list)
        assert {(e.price, e.exchange_ms, e.data) for e in said} == {(last, ts, body.encode())}


@pytest.mark.parametrize("last", ["9" * 5_000, "0." + "1" * 5_000, "1e400", "1e-400"])
def test_a_price_that_no_client_could_read_is_set_aside(last: str) -> None:
    cause, reason = odd(tickers(ticker(last=last)))
    assert cause == "unreadable"
    assert reason.startswith(f'`last` is "{last[:5]}') or reason == "the row has a number of 300 digits"


@pytest.mark.parametrize(
    "more",
    ["1e400", "[1e400]", '{"x":-1e400}', "9" * 5_000, "0." + "1" * 400, "[" * 900 + "]" * 900, '"a:b",\n"x": 1e400'],
)
def test_a_ticker_with_a_number_or_a_depth_that_no_client_could_read_is_set_aside(more: str) -> None:
    body = ticker(last="1.5")[:-1] + f',"more":{more}}}'
    json.loads(body, parse_int=str)
    assert odd(tickers(body))[0] == "unreadable"


ODD_TICKERS = [
    (ticker(last=""), "halted", "not trading: it has no last price yet"),
    (ticker(last="", ts=""), "halted", "not trading: it has no last price yet"),
    (ticker(last="0"), "halted", 'not trading: `last` is "0"'),
    (ticker(last="0.000"), "halted", 'not trading: `last` is "0.000"'),
    (ticker(ts=str(NOW - 23 * 86_400_000)), "halted", "not trading: `ts` is 23 days old"),
    ("7", "unreadable", "the row is 7, not an object"),
    ("null", "unreadable", "the row is null, not an object"),
    ("[]", "unreadable", "the row is [], not an object"),
    ("{}", "unreadable", "`last` is missing"),
    ('{"last":1,"ts":"1"}', "unreadable", "`last` is 1"),
    ('{"last":null,"ts":"1"}', "unreadable", "`last` is null"),
    ('{"last":"1"}', "unreadable", "`ts` is missing"),
    ('{"last":"1","ts":null}', "unreadable", "`ts` is null"),
    ('{"last":"1","ts":1765211445101}', "unreadable", "`ts` is 1765211445101"),
    *(
        (ticker(last=last), "unreadable", f'`last` is "{last}"')
        for last in ("NaN", "Infinity", "-Infinity", "1.", "+1")
    ),
    (ticker(last="-1.5"), "unreadable", '`last` is "-1.5", below 0'),
    *((ticker(ts=ts), "unreadable", f'`ts` is "{ts}"') for ts in ("soon", "-1", "9" * 16, "NaN")),
    *((ticker(ts=ts), "unreadable", f"`ts` is {int(ts)}") for ts in ("0", "1765211445", "176521144510100")),
    (ticker("ETH-USDT"), "unreadable", '`instId` is "ETH-USDT", in a push about BTC-USDT'),
]


@pytest.mark.parametrize(("row", "cause", "reason"), ODD_TICKERS)
def test_an_odd_row_is_set_aside_by_name_and_the_others_of_the_push_go_on(row: str, cause: str, reason: str) -> None:
    seen = odd(tickers(row))
    assert seen[0] == cause
    assert seen[1].startswith(reason)
    for rows in ((row, ticker(last="1.5")), (ticker(last="1.5"), row)):
        said = handle(tickers(*rows))
        assert isinstance(said, Rows)
        assert [event.price for event in said.events] == ["1.5", "1.5"]
        assert {(note.instrument, note.cause) for note in said.notes} == {("BTC/USDT", cause)}


def test_what_stands_still_is_not_trading_and_what_moves_on_is_whatever_our_clock_says() -> None:
    venue, ahead = OkxStreams([channel("bitcoinprice", "BTC/USDT")]).converse(), 9 * 3_600_000
    first = venue.handle(tickers(ticker(ts=str(NOW))), NOW + ahead)
    again = venue.handle(tickers(ticker(ts=str(NOW))), NOW + ahead + 100)
    assert isinstance(first, Rows)
    assert isinstance(again, Rows)
    assert {note.cause for note in (*first.notes, *again.notes)} == {"halted"}
    moved = venue.handle(tickers(ticker(ts=str(NOW + 200))), NOW + ahead + 200)
    assert isinstance(moved, list)
    quiet = OkxStreams([channel("bitcoinprice", "BTC/USDT")]).converse()
    assert isinstance(quiet.handle(tickers(ticker(ts=str(NOW - 3_600_000))), NOW), list), "an hour without a trade"


@pytest.mark.parametrize("more", ["1", "-1.5e-7", "[1,2]", '{"x":[null,true]}', '"a:b"', '":"'])
def test_what_a_ticker_may_one_day_hold_beside_texts_is_passed_on(more: str) -> None:
    body = ticker(last="1.5")[:-1] + f',"more":{more}}}'
    said = handle(tickers(body))
    assert isinstance(said, list)
    assert {event.data for event in said} == {body.encode()}


def test_a_ticker_without_a_time_is_an_event_without_one() -> None:
    said = handle(tickers(ticker(ts="")))
    assert isinstance(said, list)
    assert [event.exchange_ms for event in said] == [None, None]


@pytest.mark.parametrize(
    ("payload", "means"),
    [
        ("pong", Heartbeat()),
        ("ping", Heartbeat(answer="pong")),
        (
            '{"id":"tickers1","event":"subscribe","arg":{"channel":"tickers","instId":"ETH-USDT"}}',
            SubscribeAck("tickers1"),
        ),
        ('{"event":"subscribe","arg":{"channel":"tickers","instId":"ETH-USDT"}}', SubscribeAck("tickers1")),
        (
            '{"id":"tickers1","event":"error","code":"60018","msg":"Subscribe failed, wrong URL or '
            'channel:tickers,instId:ETH-USDT doesn\'t exist.","connId":"5e1f2fe5"}',
            SubscribeRefused("tickers1", "unknown to OKX: ETH/USDT", retry=False),
        ),
        (
            '{"event":"error","msg":"channel:tickers,instId:ETH-USDT doesn\'t exist","code":"60018"}',
            SubscribeRefused("tickers1", "unknown to OKX: ETH/USDT", retry=False),
        ),
        (
            '{"id":"tickers0","event":"error","code":"60014","msg":"Requests too frequent"}',
            SubscribeRefused("tickers0", "OKX cannot serve BTC/USDT now: 60014 Requests too frequent", retry=True),
        ),
        (
            '{"id":"tickers0","event":"error","code":"64007","msg":"Operation failed\\u0007"}',
            SubscribeRefused("tickers0", "OKX cannot serve BTC/USDT now: 64007 Operation failed", retry=True),
        ),
        *(
            (
                f'{{"id":"tickers0","event":"error","code":"{code}","msg":"Not now"}}',
                SubscribeRefused("tickers0", f"OKX cannot serve BTC/USDT now: {code} Not now", retry=True),
            )
            for code in (63999, 50001, 50004, 50011, 50013, 50026)
        ),
        (
            '{"event":"error","code":"60012","msg":"Invalid request"}',
            SubscribeRefused("", "refused by OKX: a request: 60012 Invalid request", retry=False),
        ),
        (
            '{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade."}',
            ClosingNotice("OKX is about to close the connection for a service upgrade"),
        ),
        ('{"event":"notice","code":"64999","msg":"?"}', Ignored("the event notice 64999")),
        ('{"event":"unsubscribe","arg":{"channel":"tickers","instId":"ETH-USDT"}}', SubscribeEnded("tickers1")),
        ('{"event":"channel-conn-count","channel":"x"}', Ignored("the event channel-conn-count")),
        (
            '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{}]}',
            Ignored("a frame of the channel trades, of BTC-USDT"),
        ),
        (
            '{"arg":{"channel":"tickers","instId":"XRP-USDT"},"data":[{}]}',
            Ignored("a frame of the channel tickers, of XRP-USDT"),
        ),
    ],
)
def test_what_is_not_data_is_a_named_control_frame(payload: str, means: Control) -> None:
    assert handle(payload) == means


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"{}",
        b"PONG",
        b"[1,2]",
        b'{"arg":{"channel":"tickers","instId":"BTC-USDT"}}',
        b'{"data":[{"last":"1","ts":"1"}]}',
        b'{"event":7}',
        b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":null}',
        b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":{}}',
        tickers(ticker())[:-1],
        tickers(ticker()).replace(b"SPOT", b"SP\xffT"),
        b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[' + b"[" * 100_000,
    ],
)
def test_what_is_not_documented_is_a_payload_error(payload: bytes) -> None:
    with pytest.raises(PayloadError, match=r"^OKX sent "):
        handle(payload)


def test_a_frame_that_only_looks_like_one_ticker_is_not_spliced() -> None:
    two_keys = tickers(ticker() + '],"data":[' + ticker(last="2"))
    said = handle(two_keys)
    assert isinstance(said, list)
    assert {event.data for event in said} == {ticker(last="2").encode()}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
frames = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(["subscribe", "error", "notice", "x"]) | json_values,
        "id": st.sampled_from(["tickers0", "x"]) | json_values,
        "code": st.sampled_from(["60018", "64008"]) | json_values,
        "msg": json_values,
        "arg": st.just({"channel": "tickers", "instId": "BTC-USDT"}) | json_values,
        "data": st.lists(st.fixed_dictionaries({}, optional={"last": json_values, "ts": json_values})) | json_values,
    },
)


@given(st.binary() | st.text().map(str.encode) | frames.map(lambda f: json.dumps(f).encode()))
def test_arbitrary_bytes_raise_nothing_but_payload_error(payload: bytes) -> None:
    # Also behind the opening by which a ticker is recognised.
    for sent in (payload, b'{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[' + payload + b"]}"):
        try:
            said = handle(sent)
        except PayloadError:
            continue
        for event in said if isinstance(said, list) else said.events if isinstance(said, Rows) else []:
            msgspec.json.decode(event.data.decode())
            assert float(event.price) > 0


@given(st.integers(0), st.binary(min_size=1, max_size=3))
def test_a_damaged_ticker_is_either_refused_or_still_json(place: int, damage: bytes) -> None:
    payload = tickers(ticker())
    at = place % len(payload)
    try:
        said = handle(payload[:at] + damage + payload[at + len(damage) :])
    except PayloadError:
        return
    for event in said if isinstance(said, list) else []:
        assert isinstance(json.loads(event.data.decode()), dict)
        assert float(event.price) >= 0 or event.price.startswith("-")


def test_each_instrument_is_asked_for_once_under_its_own_id() -> None:
    requests = VENUE.subscribe_requests()
    assert [json.loads(request.text) for request in requests] == [
        {"id": "tickers0", "op": "subscribe", "args": [{"channel": "tickers", "instId": "BTC-USDT"}]},
        {"id": "tickers1", "op": "subscribe", "args": [{"channel": "tickers", "instId": "ETH-USDT"}]},
    ]
    assert [request.channels for request in requests] == [("bitcoinprice", "majors"), ("majors",)]
    assert all(request.id.isalnum() and len(request.id) <= 32 for request in requests)


def test_one_connector_serves_all_channels() -> None:
    channels = [channel("bitcoinprice", "BTC/USDT"), channel("ethprice", "ETH/USDT")]
    [connector] = build(channels, Okx(), "tickerd")
    assert (connector.name, connector.channels) == ("okx", ("bitcoinprice", "ethprice"))
    assert isinstance(connector, Feed)
    assert (connector.target.address.host_header, connector.target.address.resource) == ("ws.okx.com", "/ws/v5/public")
    assert build([], Okx(), "tickerd") == []


def test_every_recorded_frame_is_an_event_or_a_named_control_frame(recorded: Path) -> None:
    venue = OkxStreams([channel("bitcoinprice", "BTC/USDT")]).converse()
    seen = 0
    for line in (recorded / "okx_ws_btcusdt_2022-05-13.jsonl").read_text().splitlines():
        text = json.loads(line)["frame"]
        frame = json.loads(text)
        # Received when it was made.
        rows = frame.get("data", [])
        made_ms = int(rows[0]["ts"]) if rows and "ts" in rows[0] else NOW
        said = venue.handle(text.encode(), made_ms)
        if frame.get("arg", {}).get("channel") == "tickers" and "data" in frame:
            [event] = said  # type: ignore[misc] # a list: it is a ticker
            [sent] = frame["data"]
            seen += 1
            assert (event.price, event.exchange_ms) == (sent["last"], int(sent["ts"]))
            assert event.data.decode() in text
            assert json.loads(event.data) == sent
        elif "event" in frame:
            assert isinstance(said, SubscribeAck)
        else:
            assert said == Ignored(f"a frame of the channel {frame['arg']['channel']}, of BTC-USDT")
    assert seen == 25
