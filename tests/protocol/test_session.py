"""The session of one client, rule by rule, and any input; `test_session_model.py` has all rules together."""

import gc
import json
import random
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from protocol.channels import Catalogue, Channel
from protocol.codes import CloseCode, ErrorCode
from protocol.grant import Grant
from protocol.kinds import KINDS, Kind, TopicState, View
from protocol.messages import Error, Format, Id, Pong, Position, PriceUpdate, encode_as
from protocol.session import (
    ALL,
    EVERY_MESSAGE,
    Close,
    CommandLimits,
    Effect,
    Join,
    Leave,
    Reply,
    Selection,
    Session,
    Subscription,
)

NOW = "2025-12-08T16:30:45.123Z"
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
CATALOGUE = Catalogue(
    [
        Channel(
            name="binance_prices",
            exchange="binance",
            kind=KINDS["prices"],
            instruments=(*PAIRS, "DOGE/USDT"),
        ),
        Channel(name="binance_orderbook", exchange="binance", kind=KINDS["orderbook"], instruments=PAIRS),
        Channel(name="coingecko_global", exchange="coingecko", kind=KINDS["global"]),
        Channel(name="bitcoinprice", exchange="okx", kind=KINDS["ticker"], instruments=("BTC/USDT",)),
        Channel(name="ethprice", exchange="okx", kind=KINDS["ticker"], instruments=("ETH/USDT",)),
    ]
)
LIMITS = CommandLimits(commands_per_s=50, commands_burst=100, channels_per_command=64, errors_in_a_row=20)


class Client:
    """A session with a clock, and what its client would write."""

    def __init__(
        self,
        catalogue: Catalogue = CATALOGUE,
        wire: Format = Format.JSON,
        limits: CommandLimits = LIMITS,
        now_s: float = 5.0,
    ) -> None:
        self.now_s = now_s
        self.session = Session(catalogue, wire, limits, now_s)

    def send(self, raw: str | bytes) -> list[Effect]:
        return self.session.receive(raw, self.now_s, NOW)

    def subscribe(self, *channels: str, **options: object) -> list[Effect]:
        return self.send(json.dumps({"type": "subscribe", "channels": channels, **options}))

    def unsubscribe(self, *channels: str, **options: object) -> list[Effect]:
        return self.send(json.dumps({"type": "unsubscribe", "channels": channels, **options}))

    def ping(self) -> list[Effect]:
        return self.send('{"type":"ping"}')


def only_error(effects: list[Effect]) -> Error:
    [effect] = effects
    return error_of(effect)


def error_of(effect: Effect) -> Error:
    assert isinstance(effect, Reply)
    assert isinstance(effect.message, Error)
    assert effect.message.timestamp == NOW
    return effect.message


def everything(*channels: str) -> Selection:
    return frozenset((channel, ALL) for channel in channels)


def join(*channels: str, selection: Selection | None = None, id: Id | None = None) -> Join:
    """What a `subscribe` without the other options gives."""
    chosen = everything(*channels) if selection is None else selection
    return Join(channels, chosen, interval_ms=EVERY_MESSAGE, snapshot=True, since=None, id=id)


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_the_commands_of_the_first_description() -> None:
    client = Client()
    assert client.send('{"type": "subscribe", "channels": ["binance_prices", "binance_orderbook"]}') == [
        join("binance_prices", "binance_orderbook")
    ]
    assert client.send('{"type": "unsubscribe", "channels": ["binance_prices"]}') == [Leave(("binance_prices",), None)]
    assert client.send('{"type": "ping"}') == [Reply(Pong(timestamp=NOW))]
    assert client.session.subscriptions == {"binance_orderbook": Subscription(None, EVERY_MESSAGE)}


def test_a_join_carries_every_option() -> None:
    client = Client()
    effects = client.subscribe(
        "binance_prices",
        instruments=["BTC/USDT"],
        interval_ms=1000,
        snapshot=False,
        since={"epoch": "k3v", "seq": 1287},
        id=7,
    )
    selection = frozenset({("binance_prices", "BTC/USDT")})
    since = Position("k3v", 1287)
    assert effects == [Join(("binance_prices",), selection, interval_ms=1000, snapshot=False, since=since, id=7)]
    assert client.session.subscriptions == {"binance_prices": Subscription(("BTC/USDT",), 1000)}


def test_subscribing_twice_changes_the_options() -> None:
    client = Client()
    client.subscribe("binance_prices", "ethprice", instruments=["ETH/USDT"], interval_ms=1000)
    client.subscribe("binance_prices")
    assert client.session.subscriptions == {
        "binance_prices": Subscription(None, EVERY_MESSAGE),
        "ethprice": Subscription(("ETH/USDT",), 1000),
    }
    assert client.session.intervals == {EVERY_MESSAGE, 1000}
    assert client.session.selection(EVERY_MESSAGE) == {("binance_prices", ALL)}
    assert client.session.selection(1000) == {("ethprice", "ETH/USDT")}
    assert client.session.selection(50) == frozenset()


def test_a_selection_is_the_union_over_the_channels() -> None:
    client = Client()
    client.subscribe("binance_prices", instruments=["ETH/USDT", "BTC/USDT"])
    client.subscribe("ethprice", "coingecko_global")
    assert client.session.selection(EVERY_MESSAGE) == {
        ("binance_prices", "BTC/USDT"),
        ("binance_prices", "ETH/USDT"),
        ("ethprice", ALL),
        ("coingecko_global", ALL),
    }


def test_a_name_twice_is_one_channel_and_the_order_is_kept() -> None:
    assert Client().subscribe("ethprice", "bitcoinprice", "ethprice") == [join("ethprice", "bitcoinprice")]
    assert Client().unsubscribe("ethprice", "bitcoinprice", "ethprice") == [Leave(("ethprice", "bitcoinprice"), None)]


def test_a_star_is_every_channel() -> None:
    client = Client()
    assert client.subscribe(ALL) == [join(*CATALOGUE.names)]
    assert client.unsubscribe("ethprice", ALL, id="all") == [
        Leave(("ethprice", "binance_prices", "binance_orderbook", "coingecko_global", "bitcoinprice"), "all")
    ]
    assert client.session.subscriptions == {}
    assert client.session.intervals == frozenset()


def test_a_star_is_answered_also_where_there_are_no_channels() -> None:
    client = Client(Catalogue([]))
    assert client.subscribe(ALL) == [join()]
    assert client.unsubscribe(ALL) == [Leave((), None)]


def test_leaving_what_was_not_subscribed_is_no_error() -> None:
    client = Client()
    client.subscribe("ethprice")
    assert client.unsubscribe("bitcoinprice", id=8) == [Leave(("bitcoinprice",), 8)]
    assert set(client.session.subscriptions) == {"ethprice"}


def test_the_subscriptions_cannot_be_written_from_outside() -> None:
    assert isinstance(Client().session.subscriptions, MappingProxyType)


@pytest.mark.parametrize("id_text", ['"x"', '""', "7", "-1.5", "123456789012345678901234567890"])
@pytest.mark.parametrize("data", ["null", '"x"', "[1,\n 2.50]", '{"a": 1e999}'])
def test_a_pong_echoes_id_and_data_to_the_byte(id_text: str, data: str) -> None:
    [effect] = Client().send(f'{{"type":"ping","id":{id_text},"data":{data}}}')
    assert isinstance(effect, Reply)
    payload = encode_as(effect.message, Format.JSON)
    assert payload.decode() == f'{{"type":"pong","timestamp":"{NOW}","id":{id_text},"data":{data}}}'


@pytest.mark.parametrize("data", [None, {"a": [1, b"\x00", 2.5]}, msgspec.msgpack.Ext(5, b"x")])
def test_a_pong_echoes_in_messagepack_what_json_could_not_say(data: object) -> None:
    raw = msgspec.msgpack.encode({"type": "ping", "id": 2**64 - 1, "data": data})
    [effect] = Client(wire=Format.MSGPACK).send(raw)
    assert isinstance(effect, Reply)
    packed = encode_as(effect.message, Format.MSGPACK)
    assert msgspec.msgpack.decode(packed) == {"type": "pong", "timestamp": NOW, "id": 2**64 - 1, "data": data}


# ---- what cannot be carried out --------------------------------------------------------------------------------------


def test_unknown_channels_are_one_error_and_the_known_ones_take_effect() -> None:
    client = Client()
    refusal, joined = client.subscribe("binance_price", "ethprice", "btcoinprice", id=3)
    error = error_of(refusal)
    assert (error.code, error.id, error.channels) == (
        ErrorCode.UNKNOWN_CHANNEL,
        3,
        ("binance_price", "btcoinprice"),
    )
    assert error.message == (
        "unknown channels: 'binance_price' (nearest: binance_prices, binance_orderbook, bitcoinprice), "
        "'btcoinprice' (nearest: bitcoinprice, binance_prices, ethprice)"
    )
    assert joined == join("ethprice", id=3)
    assert set(client.session.subscriptions) == {"ethprice"}


def test_where_nothing_is_near_the_valid_names_are_listed() -> None:
    error = only_error(Client().subscribe("x"))
    assert error.message == f"unknown channel: 'x'; there are: {', '.join(CATALOGUE.names)}"


def test_without_a_known_channel_there_is_only_the_error() -> None:
    client = Client()
    assert only_error(client.subscribe("x", instruments=["BTC/USDT"], id=1)).channels == ("x",)
    assert only_error(client.unsubscribe("x", id="u")).id == "u"
    assert client.session.subscriptions == {}


def test_leaving_unknown_channels_leaves_the_known_ones() -> None:
    client = Client()
    client.subscribe(ALL)
    refusal, left = client.unsubscribe("nope", "ethprice")
    assert error_of(refusal).channels == ("nope",)
    assert left == Leave(("ethprice",), None)
    assert "ethprice" not in client.session.subscriptions


def test_many_unknown_names_are_counted_and_cut() -> None:
    names = [f"{index}" + "x" * 900 for index in range(64)]
    error = only_error(Client().subscribe(*names))
    assert len(error.message) <= 300
    assert len(error.channels) == 64
    assert max(map(len, error.channels)) == 64
    error = only_error(Client().subscribe("a", "b", "c", "d", "e"))
    assert error.message.startswith("unknown channels: 'a', 'b', 'c', 2 more; there are: binance_prices, ")


def test_an_instrument_that_no_channel_has_is_named_and_the_others_take_effect() -> None:
    client = Client()
    refusal, joined = client.subscribe("binance_prices", "coingecko_global", instruments=["BTC/USD", "ETH/USDT"], id=1)
    error = error_of(refusal)
    assert (error.code, error.id, error.channels) == (ErrorCode.UNKNOWN_INSTRUMENT, 1, ())
    assert error.message.startswith("unknown instrument: 'BTC/USD' (nearest: BTC/USDT")
    selection = frozenset({("binance_prices", "ETH/USDT"), ("coingecko_global", ALL)})
    assert joined == join("binance_prices", "coingecko_global", selection=selection, id=1)


def test_a_channel_without_any_of_the_instruments_takes_no_effect_and_is_named() -> None:
    client = Client()
    refusal, joined = client.subscribe("ethprice", "bitcoinprice", instruments=["BTC/USDT"])
    error = error_of(refusal)
    assert (error.code, error.channels) == (ErrorCode.UNKNOWN_INSTRUMENT, ("ethprice",))
    assert error.message == "ethprice has only ETH/USDT"
    assert joined == join("bitcoinprice", selection=frozenset({("bitcoinprice", "BTC/USDT")}))


def test_where_no_channel_is_left_there_is_only_the_error() -> None:
    client = Client()
    error = only_error(client.subscribe("ethprice", "bitcoinprice", instruments=["X/Y"]))
    assert error.channels == ("ethprice", "bitcoinprice")
    assert error.message == (
        "unknown instrument: 'X/Y'; there are: ETH/USDT, BTC/USDT; "
        "ethprice has only ETH/USDT; bitcoinprice has only BTC/USDT"
    )
    assert client.session.subscriptions == {}


def test_an_instrument_of_every_channel_there_is() -> None:
    selection = frozenset(
        {("binance_prices", "SOL/USDT"), ("binance_orderbook", "SOL/USDT"), ("coingecko_global", ALL)}
    )
    assert Client().subscribe(ALL, instruments=["SOL/USDT", "SOL/USDT"]) == [
        join("binance_prices", "binance_orderbook", "coingecko_global", selection=selection)
    ]


def test_a_whole_market_is_not_filtered() -> None:
    client = Client()
    assert client.subscribe("coingecko_global", instruments=["X/Y"]) == [join("coingecko_global")]
    assert client.session.subscriptions == {"coingecko_global": Subscription(None, EVERY_MESSAGE)}


def test_both_kinds_of_unknown_names_are_told_before_the_answer() -> None:
    effects = Client().subscribe("nope", "ethprice", instruments=["ETH/USDT", "nope"], id="b")
    assert [error_of(effect).code for effect in effects[:2]] == [
        ErrorCode.UNKNOWN_CHANNEL,
        ErrorCode.UNKNOWN_INSTRUMENT,
    ]
    assert effects[2:] == [join("ethprice", selection=frozenset({("ethprice", "ETH/USDT")}), id="b")]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"channels": []}, ErrorCode.INVALID_FIELD, 'channels: empty; name at least one, or "*" for all'),
        (
            {"channels": ["ethprice"] * 65},
            ErrorCode.TOO_MANY_CHANNELS,
            'channels: 65 names; at most 64 in one command, or "*" for all',
        ),
        ({"interval_ms": 49}, ErrorCode.INVALID_FIELD, "interval_ms: 49; 50 to 3600000 are allowed"),
        ({"interval_ms": 0}, ErrorCode.INVALID_FIELD, "interval_ms: 0; 50 to 3600000 are allowed"),
        ({"interval_ms": 3_600_001}, ErrorCode.INVALID_FIELD, "interval_ms: 3600001; 50 to 3600000 are allowed"),
        ({"since": {"epoch": "e", "seq": -1}}, ErrorCode.INVALID_FIELD, "since.seq: -1; 0 or more is allowed"),
        (
            {"instruments": []},
            ErrorCode.INVALID_FIELD,
            "instruments: empty; name at least one, or leave the field out for all",
        ),
    ],
)
def test_a_field_outside_its_limits_is_refused(options: dict[str, object], code: ErrorCode, message: str) -> None:
    client = Client()
    command = {"type": "subscribe", "channels": ["ethprice"], "id": 9, **options}
    error = only_error(client.send(json.dumps(command)))
    assert (error.code, error.message, error.id) == (code, message, 9)
    assert client.session.subscriptions == {}


@pytest.mark.parametrize("channels", [[], ["ethprice"] * 65])
def test_unsubscribe_keeps_the_same_limits(channels: list[str]) -> None:
    client = Client()
    client.subscribe("ethprice")
    assert only_error(client.unsubscribe(*channels, id="u")).id == "u"
    assert set(client.session.subscriptions) == {"ethprice"}


def test_the_limits_themselves_are_allowed() -> None:
    for interval_ms in (50, 3_600_000):
        [effect] = Client().subscribe(*["ethprice"] * 64, interval_ms=interval_ms, since={"epoch": "", "seq": 0})
        assert isinstance(effect, Join)
        assert effect.interval_ms == interval_ms


@pytest.mark.parametrize("value", ["9" * 4300, "-" + "9" * 4299])
def test_a_number_of_any_length_is_refused_in_few_words(value: str) -> None:
    for field in (f'"interval_ms":{value}', f'"since":{{"epoch":"e","seq":-{value.lstrip("-")}}}'):
        error = only_error(Client().send(f'{{"type":"subscribe","channels":["ethprice"],{field}}}'))
        assert error.code is ErrorCode.INVALID_FIELD
        assert len(error.message) <= 300


def test_a_wrong_kind_of_frame_closes() -> None:
    assert Client().send(b'{"type":"ping"}') == [
        Close(CloseCode.UNSUPPORTED_DATA, "a binary frame on the JSON protocol")
    ]
    client = Client(wire=Format.MSGPACK)
    assert client.send('{"type":"ping"}') == [
        Close(CloseCode.UNSUPPORTED_DATA, "a text frame on the MessagePack protocol")
    ]
    assert client.send(msgspec.msgpack.encode({"type": "ping"})) == []


# ---- what an interval may leave out ----------------------------------------------------------------------------------

# No kind of this version has to come whole, so these are made up.
EVERY = Kind(
    name="made_up",
    message=PriceUpdate,
    payloads=(),
    view=View.PRICE,
    state=TopicState.EVERY,
    instead="prices",
)
WHOLE = Catalogue(
    [
        *CATALOGUE,
        *(Channel(name=f"whole{at}", exchange="binance", kind=EVERY, instruments=PAIRS) for at in range(1, 5)),
        Channel(name="alone", exchange="okx", kind=EVERY, instruments=PAIRS),
    ]
)


def test_an_interval_is_refused_where_every_message_counts_and_the_other_channels_take_effect() -> None:
    client = Client(WHOLE)
    refused, taken = client.subscribe("whole1", "ethprice", interval_ms=1000, id=3)
    error = error_of(refused)
    assert (error.code, error.id, error.channels) == (ErrorCode.INTERVAL_REFUSED, 3, ("whole1",))
    reason = "no message of whole1 may be left out; leave interval_ms out, or subscribe to binance_prices instead"
    assert error.message == f"interval_ms: {reason}"
    assert taken == Join(("ethprice",), frozenset({("ethprice", ALL)}), 1000, snapshot=True, since=None, id=3)
    assert set(client.session.subscriptions) == {"ethprice"}


def test_without_an_interval_such_a_channel_is_one_like_any_other_and_a_refused_interval_changes_nothing() -> None:
    client = Client(WHOLE)
    [join] = client.subscribe("whole1", instruments=["BTC/USDT"])
    assert isinstance(join, Join)
    assert only_error(client.subscribe("whole1", interval_ms=50)).code is ErrorCode.INTERVAL_REFUSED
    assert client.session.subscriptions == {"whole1": Subscription(("BTC/USDT",), EVERY_MESSAGE)}


def test_what_to_take_instead_is_named_only_where_the_venue_has_it() -> None:
    message = only_error(Client(WHOLE).subscribe("alone", interval_ms=50)).message
    assert message == "interval_ms: no message of alone may be left out; leave interval_ms out"


def test_all_channels_at_an_interval_are_all_that_an_interval_may_thin() -> None:
    refused, taken = Client(WHOLE).subscribe("*", interval_ms=50)
    error = error_of(refused)
    assert error.channels == ("whole1", "whole2", "whole3", "whole4", "alone")
    assert "of whole1, whole2, whole3 and 2 more may" in error.message
    assert isinstance(taken, Join)
    assert taken.channels == CATALOGUE.names


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_a_burst_over_the_command_rate_is_refused_until_tokens_have_grown() -> None:
    client = Client()
    for _ in range(100):
        assert client.ping() == [Reply(Pong(timestamp=NOW))]
    error = only_error(client.send('{"type":"ping","id":5}'))
    assert (error.code, error.id) == (ErrorCode.RATE_LIMITED, 5)
    assert error.message == "more than 50 commands/s (in a burst 100): this one was not carried out"
    client.now_s += 0.021
    assert client.ping() == [Reply(Pong(timestamp=NOW))]
    assert only_error(client.ping()).code is ErrorCode.RATE_LIMITED


def test_what_is_refused_by_the_rate_changes_nothing() -> None:
    client = Client(
        limits=CommandLimits(commands_per_s=1, commands_burst=1, channels_per_command=64, errors_in_a_row=20)
    )
    client.subscribe("ethprice")
    assert only_error(client.unsubscribe("ethprice")).code is ErrorCode.RATE_LIMITED
    assert only_error(client.subscribe("bitcoinprice")).code is ErrorCode.RATE_LIMITED
    assert set(client.session.subscriptions) == {"ethprice"}


def test_garbage_counts_for_the_rate_and_is_told_so() -> None:
    client = Client(
        limits=CommandLimits(commands_per_s=1, commands_burst=1, channels_per_command=64, errors_in_a_row=20)
    )
    assert only_error(client.send("garbage")).code is ErrorCode.MALFORMED
    error = only_error(client.send('{"type":"nope","id":4}'))
    assert (error.code, error.id) == (ErrorCode.RATE_LIMITED, 4)


def test_what_cannot_be_carried_out_leaves_nothing_for_the_collector() -> None:
    """Else each such frame keeps a session that is over, until old objects are looked at."""
    client = Client(limits=CommandLimits(commands_per_s=1, commands_burst=4, channels_per_command=64))
    gc.collect()
    gc.disable()
    try:
        for frame in ("garbage", '{"type":"nope"}', '{"type":"subscribe","channels":["nothing"]}', "[]", "garbage"):
            client.send(frame)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_tokens_do_not_grow_past_the_burst_nor_shrink_when_the_clock_steps_back() -> None:
    client = Client(
        limits=CommandLimits(commands_per_s=1, commands_burst=2, channels_per_command=64, errors_in_a_row=20)
    )
    client.now_s += 1_000
    assert [len(client.ping()) for _ in range(2)] == [1, 1]
    client.now_s -= 500
    assert only_error(client.ping()).code is ErrorCode.RATE_LIMITED
    client.now_s += 1
    assert client.ping() == [Reply(Pong(timestamp=NOW))]


@pytest.mark.parametrize(
    "fruitless",
    [
        "garbage",
        '{"type":"nope"}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","channels":["nope"]}',
        '{"type":"subscribe","channels":["ethprice"],"interval_ms":1}',
    ],
)
def test_twenty_errors_in_a_row_close(fruitless: str) -> None:
    client = Client()
    for _ in range(19):
        only_error(client.send(fruitless))
    client.ping()
    for _ in range(19):
        only_error(client.send(fruitless))
    last, closed = client.send(fruitless)
    only_error([last])
    assert closed == Close(CloseCode.POLICY, "20 frames in a row of which nothing could be carried out")
    assert client.ping() == client.send("x") == client.send(b"x") == []


HEARTBEATS = [
    *("ping", "pong", "PING", '"ping"', '{"type":"pong"}', '{"action":"ping"}', '{"op":"ping"}', '{"ping":1765211445}'),
    *(
        "",
        " ",
        "[]ping",
        '{"method":"PING","id":1}',
        '{"event":"heartbeat"}',
        "heart-beat",
        '"h"',
        '{"type":"keepalive"}',
    ),
]


@pytest.mark.parametrize("every_s", [0.6, 5, 15, 60])
@pytest.mark.parametrize("sent", HEARTBEATS)
def test_another_servers_heartbeat_is_told_how_to_ping_and_never_closed(sent: str, every_s: float) -> None:
    client = Client()
    for _ in range(200):
        error = only_error(client.send(sent))
        assert 'send {"type":"ping"}' in error.message
        client.now_s += every_s
    assert client.ping() == [Reply(Pong(timestamp=NOW))]


@pytest.mark.parametrize("sent", HEARTBEATS)
def test_a_flood_of_heartbeats_is_closed(sent: str) -> None:
    client = Client()
    effects: list[Effect] = []
    for _ in range(20):
        effects = client.send(sent)
        client.now_s += 0.4
    assert isinstance(effects[-1], Close)


@pytest.mark.parametrize("sent", ["x", '{"type":"subscibe"}', '{"type":"ping","id":[]}', "[]", "shipping" * 100])
def test_what_is_no_heartbeat_is_not_told_how_to_ping(sent: str) -> None:
    assert 'send {"type":"ping"}' not in only_error(Client().send(sent)).message


def test_a_command_that_took_effect_in_part_is_no_failure() -> None:
    client = Client(
        limits=CommandLimits(commands_per_s=50, commands_burst=100, channels_per_command=64, errors_in_a_row=2)
    )
    for _ in range(10):
        assert len(client.subscribe("ethprice", "nope")) == 2


def test_who_keeps_sending_over_the_rate_is_closed() -> None:
    client = Client()
    effects = [effect for _ in range(200) for effect in client.ping()]
    assert [type(effect) for effect in effects] == [Reply] * 120 + [Close]
    assert [error_of(effect).code for effect in effects[100:120]] == [ErrorCode.RATE_LIMITED] * 20
    assert effects[120] == Close(CloseCode.POLICY, "20 frames in a row of which nothing could be carried out")


@pytest.mark.parametrize("times", [18, 4, 1.3])
def test_who_is_over_the_rate_is_closed_though_one_in_twenty_is_accepted(times: float) -> None:
    client = Client()
    for _ in range(100):
        client.ping()
    began_s = client.now_s
    for _ in range(20_000):
        client.now_s += 1 / (times * LIMITS.commands_per_s)
        effects = client.ping()
        if isinstance(effects[-1], Close):
            break
    else:
        raise AssertionError("it is answered for ever")
    assert effects[-1] == Close(
        CloseCode.POLICY, "more than 10 frames/s (in a burst 100) of which nothing could be carried out"
    )
    assert client.now_s - began_s < 25


def test_whoever_keeps_to_the_rate_is_never_closed_for_a_few_too_many() -> None:
    client = Client()
    for _ in range(100):
        client.ping()
    for _ in range(20_000):
        client.now_s += 1 / (1.15 * LIMITS.commands_per_s)
        assert isinstance(client.ping()[-1], Reply)


def test_errors_between_good_commands_are_counted_too() -> None:
    client = Client()
    for _ in range(100):
        client.now_s += 0.02
        assert isinstance(client.send("garbage")[-1], Reply)
        client.now_s += 0.02
        client.ping()
    for _ in range(100):
        client.now_s += 0.02
        closed = client.send("garbage")[-1]
        client.now_s += 0.02
        client.ping()
        if isinstance(closed, Close):
            return
    raise AssertionError("it is answered for ever")


# ---- reload ----------------------------------------------------------------------------------------------------------


def test_a_reload_judges_later_commands_and_keeps_the_subscriptions() -> None:
    client = Client()
    client.subscribe("ethprice", "bitcoinprice")
    client.session.catalogue = Catalogue([CATALOGUE["bitcoinprice"]])
    assert set(client.session.subscriptions) == {"ethprice", "bitcoinprice"}
    assert only_error(client.subscribe("ethprice")).code is ErrorCode.UNKNOWN_CHANNEL
    assert client.subscribe(ALL) == [join("bitcoinprice")]
    # A channel that is gone can be left, once.
    assert client.unsubscribe("ethprice") == [Leave(("ethprice",), None)]
    assert only_error(client.unsubscribe("ethprice")).code is ErrorCode.UNKNOWN_CHANNEL


# ---- any input -------------------------------------------------------------------------------------------------------


@given(st.lists(st.text() | st.binary(), max_size=30), st.sampled_from([Format.JSON, Format.MSGPACK]))
@example(["\ud800"], Format.JSON)
@example([b"\x82\xa4type\xa4ping\xa2id\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"], Format.MSGPACK)
@example(['{"type":"subscribe","channels":["' + "x" * 65_000 + '"],"instruments":["y"]}'], Format.JSON)
@example(['{"type":"subscribe","channels":["*"],"instruments":' + json.dumps(["y"] * 9_000 + ["z"]) + "}"], Format.JSON)
def test_any_input_gives_effects_that_can_be_sent(frames: list[str | bytes], wire: Format) -> None:
    client = Client(wire=wire)
    for raw in frames:
        for effect in client.send(raw):
            if isinstance(effect, Reply):
                assert len(encode_as(effect.message, wire)) < 1_000


RAW_COMMANDS = st.sampled_from(
    [
        '{"type":"ping","id":"ä€😀"}',
        '{"type":"subscribe","channels":["*"]}',
        '{"type":"subscribe","channels":["ethprice","nöpe"],"interval_ms":50,"id":2}',
        '{"type":"unsubscribe","channels":["ethprice"]}',
        "garbäge",
        "",
    ]
)


@given(st.lists(RAW_COMMANDS, max_size=8), st.randoms(use_true_random=False))
def test_any_split_of_the_clients_bytes_gives_the_same_replies(commands: list[str], chance: random.Random) -> None:
    """A client fragments its messages anywhere, and the network cuts the bytes anywhere (by wsproto at both ends)."""
    sender, receiver = Connection(ConnectionType.CLIENT), Connection(ConnectionType.SERVER)
    written = b""
    for command in commands:
        cuts = sorted(chance.randint(0, len(command)) for _ in range(chance.randint(0, 3)))
        pieces = [command[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
        for count, piece in enumerate(pieces, start=1):
            written += sender.send(TextMessage(data=piece, message_finished=count == len(pieces)))
    split = Client()
    effects: list[Effect] = []
    message = ""
    while written:
        size = chance.randint(1, len(written))
        receiver.receive_data(written[:size])
        written = written[size:]
        for event in receiver.events():
            assert isinstance(event, TextMessage)
            message += event.data
            if event.message_finished:
                effects += split.send(message)
                message = ""
    whole = Client()
    assert effects == [effect for command in commands for effect in whole.send(command)]


# What a token does not cover.

COVERED = CATALOGUE.granted(Grant("bot", ("binance_*",)))


def test_a_channel_that_is_not_covered_is_forbidden_and_the_others_take_effect() -> None:
    client = Client(COVERED)
    forbidden, unknown, join = client.subscribe("bitcoinprice", "binance_prices", "nope", "ethprice", id=3)
    error = error_of(forbidden)
    assert (error.code, error.id, error.channels) == (ErrorCode.FORBIDDEN, 3, ("bitcoinprice", "ethprice"))
    covers = "it covers: binance_prices, binance_orderbook"
    assert error.message == f"the token does not cover bitcoinprice, ethprice; {covers}"
    assert (error_of(unknown).code, error_of(unknown).channels) == (ErrorCode.UNKNOWN_CHANNEL, ("nope",))
    assert "bitcoinprice" not in error_of(unknown).message, "what is not covered is no suggestion"
    assert isinstance(join, Join)
    assert join.channels == ("binance_prices",)
    assert list(client.session.subscriptions) == ["binance_prices"]


def test_all_channels_are_all_that_are_covered() -> None:
    [join] = Client(COVERED).subscribe(ALL)
    assert isinstance(join, Join)
    assert join.channels == ("binance_prices", "binance_orderbook")
    assert join.selection == everything("binance_prices", "binance_orderbook")


def test_a_token_that_covers_nothing_gets_nothing() -> None:
    client = Client(CATALOGUE.granted(Grant("bot", ("none",))))
    error = only_error(client.subscribe("ethprice"))
    assert (error.code, error.message) == (
        ErrorCode.FORBIDDEN,
        "the token does not cover ethprice; it covers: no channel",
    )
    [join] = client.subscribe(ALL)
    assert isinstance(join, Join)
    assert join.channels == ()


def test_what_is_not_covered_cannot_be_left_unless_it_is_subscribed() -> None:
    client = Client()
    client.subscribe("ethprice")
    client.session.catalogue = COVERED
    assert client.unsubscribe("ethprice") == [Leave(("ethprice",), None)]
    assert only_error(client.unsubscribe("ethprice")).code is ErrorCode.FORBIDDEN


def test_what_is_forbidden_counts_as_fruitless() -> None:
    client = Client(COVERED, limits=msgspec.structs.replace(LIMITS, errors_in_a_row=2))
    client.subscribe("ethprice")
    assert isinstance(client.subscribe("ethprice")[-1], Close)
