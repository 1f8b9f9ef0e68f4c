"""`daemon.client` against the daemon's own front door, sessions and hub, over real sockets."""

import random
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import trio
from msgspec import UnsetType

from connectors.base import StateChange
from connectors.push.address import Address
from connectors.push.dial import dial
from daemon import client as package
from daemon.client import (
    CommandRefused,
    Gap,
    Lagged,
    Lost,
    PriceUpdate,
    Received,
    Reconnecting,
    Resumed,
    ServerUnavailable,
    Status,
    Subscription,
    connect,
    websocket_url,
)
from daemon.client.trio import link
from daemon.tape.tape import Tape
from tests.daemon import serving
from tests.daemon.client.scripted_daemon import Relay, open_relay
from tests.daemon.serving import SOON_S, Gateway, certificate, open_gateway, price


def _number(received: Received) -> int:
    """Which of the test's prices it is; 0 for anything else."""
    if not isinstance(received, PriceUpdate):
        return 0
    assert not isinstance(received.price, UnsetType)
    return int(bytes(received.price).removesuffix(b".50"))


async def _next(subscription: Subscription) -> Received:
    with trio.fail_after(SOON_S):
        return await anext(subscription)


async def _until(subscription: Subscription, number: int) -> list[Received]:
    """Read on to the price of that number; what came before it."""
    before: list[Received] = []
    while _number(received := await _next(subscription)) != number:
        before.append(received)
    return before


async def _joined(subscription: Subscription, channels: int = 1) -> None:
    """Subscribed: the states of its channels have come."""
    for _ in range(channels):
        assert isinstance(await _next(subscription), Status)


def _url(gateway: Gateway) -> str:
    return f"127.0.0.1:{gateway.port}"


def test_every_type_that_a_subscription_yields_can_be_had_from_the_package() -> None:
    assert [type_.__name__ for type_ in get_args(Received) if getattr(package, type_.__name__, None) is not type_] == []


async def test_messages_come_typed_in_order_and_as_the_daemon_sent_them() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        assert client.welcome.channels == ("bitcoinprice", "ethprice")
        gateway.publish(price(1))
        subscription = client.subscribe("bitcoinprice")
        status = await _next(subscription)
        assert isinstance(status, Status)
        assert (status.channel, status.state) == ("bitcoinprice", "connecting")
        gateway.publish(price(2), price(3))
        received = [await _next(subscription) for _ in range(3)]
        assert [_number(each) for each in received] == [1, 2, 3]
        last = received[-1]
        assert isinstance(last, PriceUpdate)
        assert (last.instrument, last.exchange, last.seq, last.prev_seq) == ("BTC/USDT", "okx", 3, 2)
        [entry] = gateway.tape.latest(frozenset({("bitcoinprice", "*")}))
        assert subscription.raw.encode() == entry.payload
        assert '"price":3.50,' in subscription.raw
        assert subscription.positions["bitcoinprice"].seq == 3


async def test_a_cut_connection_is_resumed_without_a_hole_or_a_double_however_often_it_is_cut() -> None:
    dice = random.Random(1)
    last = 400
    async with open_gateway() as gateway, open_relay() as relay:
        relay.target = gateway.port
        async with connect(f"127.0.0.1:{relay.port}", retry_base_s=0.01, retry_cap_s=0.01) as client:
            subscription = client.subscribe("bitcoinprice", "ethprice", snapshot=False)
            await _joined(subscription, 2)

            async def publish() -> None:
                for number in range(1, last + 1):
                    gateway.publish(price(number, channel=dice.choice(("bitcoinprice", "ethprice"))))
                    await trio.sleep(0.001)
                    if dice.random() < 0.05:
                        relay.cut()

            had: dict[str, list[int]] = {"bitcoinprice": [], "ethprice": []}
            events: list[Received] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                while sum(map(len, had.values())) < last:
                    received = await _next(subscription)
                    if isinstance(received, PriceUpdate):
                        had[received.connector_id].append(_number(received))
                    else:
                        events.append(received)
            assert sorted(had["bitcoinprice"] + had["ethprice"]) == list(range(1, last + 1))
            for numbers in had.values():  # each channel for itself is in order
                assert numbers == sorted(numbers)
            kinds = {type(event) for event in events}
            assert kinds == {Reconnecting, Resumed, Status}
            resumed = [event for event in events if isinstance(event, Resumed)]
            assert resumed
            assert all(not event.lost and not event.restarted for event in resumed)


async def _restart(monkeypatch: pytest.MonkeyPatch, relay: Relay, *, same_tape: bool) -> list[Received]:
    """Prices 1 to 3, a restart of the daemon, prices 4 and 5, of which a client behind the relay is away for 4."""
    tape = Tape(1000, 2**20)
    if same_tape:
        monkeypatch.setattr(serving, "Tape", lambda *_: tape)

    async def serve(stop: trio.Event, *, task_status: trio.TaskStatus[Gateway]) -> None:
        async with open_gateway() as gateway:
            task_status.started(gateway)
            await stop.wait()

    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        gateway = await nursery.start(serve, stop)
        relay.target = gateway.port
        async with connect(f"127.0.0.1:{relay.port}", retry_base_s=0.01, retry_cap_s=0.05) as client:
            subscription = client.subscribe("bitcoinprice")
            await _joined(subscription)
            gateway.publish(price(1), price(2), price(3))
            assert await _until(subscription, 3)
            stop.set()
            stop = trio.Event()
            gateway = await nursery.start(serve, stop)
            gateway.publish(price(4))
            relay.target = gateway.port
            relay.cut()
            received = await _until(subscription, 4)
            gateway.publish(price(5))
            received += await _until(subscription, 5)
            stop.set()
        return received


async def test_a_restart_of_the_daemon_on_the_same_tape_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_relay() as relay:
        received = await _restart(monkeypatch, relay, same_tape=True)
    assert [type(each) for each in received if not isinstance(each, Reconnecting)] == [Status, Resumed]
    [resumed] = [each for each in received if isinstance(each, Resumed)]
    assert (resumed.lost, resumed.restarted) == ((), False)
    assert 0 < resumed.away_s < SOON_S


async def test_a_restart_with_another_tape_is_told_before_its_first_message(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_relay() as relay:
        received = await _restart(monkeypatch, relay, same_tape=False)
    told = [each for each in received if not isinstance(each, Reconnecting)]
    assert [type(each) for each in told] == [Lost, Status, Resumed]
    lost = told[0]
    assert isinstance(lost, Lost)
    assert lost.channels == ("bitcoinprice",)
    assert "is not this tape's" in lost.reason
    [resumed] = [each for each in received if isinstance(each, Resumed)]
    assert (resumed.lost, resumed.restarted) == (("bitcoinprice",), True)


async def test_another_process_resumes_where_this_one_stopped() -> None:
    async with open_gateway() as gateway:
        async with connect(_url(gateway)) as client:
            subscription = client.subscribe("bitcoinprice", snapshot=False)
            await _joined(subscription)
            gateway.publish(price(1))
            assert _number(await _next(subscription)) == 1
            position = subscription.positions["bitcoinprice"]
        gateway.publish(price(2), price(3))
        async with connect(_url(gateway)) as client:
            subscription = client.subscribe("bitcoinprice", since=position)
            await _joined(subscription)
            assert [_number(await _next(subscription)) for _ in range(2)] == [2, 3]


async def test_who_does_not_read_is_told_lagged_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    total, size = 12_000, 1000

    async def narrow(address: Address, *, ssl_context: ssl.SSLContext | None, timeout_s: float) -> trio.abc.Stream:
        stream = await dial(address, ssl_context=ssl_context, timeout_s=timeout_s)
        assert isinstance(stream, trio.SocketStream)
        # What the kernel keeps for a socket varies; here it is to be little.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        return stream

    monkeypatch.setattr(link, "dial", narrow)
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        idle, busy = client.subscribe("bitcoinprice"), client.subscribe("ethprice")
        await _joined(idle)
        await _joined(busy)
        for number in range(1, total + 1):
            gateway.publish(price(number, size=size))
            if number % 50 == 0:
                gateway.publish(price(number, channel="ethprice"))
                assert _number(await _next(busy)) == number
        before = await _until(idle, total)
        lags = [each for each in before if isinstance(each, Lagged)]
        assert lags
        assert not any(isinstance(each, Gap) for each in before), "what was announced was called a gap, too"
        numbers = [_number(each) for each in before if _number(each)]
        assert numbers == sorted(set(numbers))
        missed = sum(lag.missed for lag in lags)
        assert len(numbers) < total / 10, "it has read ahead although nobody took anything"
        assert len(numbers) + missed == total - 1


async def test_one_subscription_is_for_one_task() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        subscription = client.subscribe("bitcoinprice")
        await _joined(subscription)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until, subscription, 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(subscription)
            gateway.publish(price(1))


async def test_the_options_of_a_running_subscription_can_be_changed() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        subscription = client.subscribe("bitcoinprice", interval_ms=60_000)
        await _joined(subscription)
        await subscription.change()
        await _joined(subscription)
        for number in range(1, 5):
            gateway.publish(price(number))
        assert [_number(await _next(subscription)) for _ in range(4)] == [1, 2, 3, 4]


async def test_being_cancelled_between_two_messages_loses_none() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        subscription = client.subscribe("bitcoinprice", snapshot=False)
        await _joined(subscription)
        numbers: list[int] = []
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                for number in range(1, 101):
                    gateway.publish(price(number))
                    await trio.sleep(0.001)

            nursery.start_soon(publish)
            with trio.fail_after(SOON_S):
                while len(numbers) < 100:
                    with trio.move_on_after(0.0005):
                        numbers.append(_number(await anext(subscription)))
        assert numbers == list(range(1, 101))


async def test_what_is_not_wanted_does_not_come() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        gateway.publish(price(1))
        fresh = client.subscribe("bitcoinprice", snapshot=False)
        one = client.subscribe("*", instruments=["ETH/USDT"])
        spaced = client.subscribe("bitcoinprice", interval_ms=100)
        for each in (fresh, one, spaced):
            await _joined(each)
        assert _number(await _next(spaced)) == 1
        for number in range(2, 40):
            gateway.publish(price(number))
        gateway.publish(price(40, channel="ethprice"))
        assert _number(await _next(fresh)) == 2
        assert _number(await _next(one)) == 40
        assert [type(each) for each in await _until(spaced, 39)] in ([], [PriceUpdate])


async def test_a_channel_that_was_left_is_silent_and_the_last_one_ends_the_iteration() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        subscription = client.subscribe("*")
        await _joined(subscription, 2)
        await subscription.unsubscribe("ethprice", "nonsense")
        gateway.publish(StateChange("ethprice", "down", "left, so not told"))
        gateway.publish(price(1, channel="ethprice"), price(2))
        assert _number(await _next(subscription)) == 2
        await subscription.unsubscribe("bitcoinprice")
        with trio.fail_after(SOON_S):
            assert [received async for received in subscription] == []


async def test_a_subscription_that_is_closed_ends_the_iteration_in_another_task() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        subscription = client.subscribe("bitcoinprice")
        await _joined(subscription)
        async with trio.open_nursery() as nursery:

            async def iterate() -> None:
                assert [received async for received in subscription] == []

            nursery.start_soon(iterate)
            await trio.testing.wait_all_tasks_blocked()
            await subscription.aclose()
        await gateway.all_gone()


async def test_a_refused_command_is_an_error_with_its_code() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        subscription = client.subscribe("bitcoinprise", "ethprice")
        with pytest.raises(CommandRefused, match=r"unknown_channel: .*nearest: bitcoinprice") as refused:
            await _next(subscription)
        assert (refused.value.code, refused.value.channels) == ("unknown_channel", ("bitcoinprise",))
        with pytest.raises(StopAsyncIteration):
            await _next(subscription)
        with pytest.raises(CommandRefused, match="interval_ms: 3"):
            await _next(client.subscribe("ethprice", interval_ms=3))
        with pytest.raises(ValueError, match="at least one channel"):
            client.subscribe()


async def test_a_ping_measures_round_trip_and_clock_offset_also_beside_a_subscription() -> None:
    async with open_gateway() as gateway, connect(_url(gateway)) as client:
        first = await client.ping()
        subscription = client.subscribe("bitcoinprice")
        await _joined(subscription)
        second = await client.ping()
        for found in (first, second):
            assert 0 < found.round_trip_s < SOON_S
            # The same clock, which the daemon cuts to milliseconds.
            assert abs(found.clock_offset_s) <= found.round_trip_s / 2 + 0.002
        assert len(gateway.sessions) == 2


async def test_leaving_in_the_middle_of_everything_leaves_nothing_behind() -> None:
    async with open_gateway() as gateway:
        with trio.fail_after(SOON_S):
            async with connect(_url(gateway)) as client:
                async for _ in client.subscribe("bitcoinprice"):
                    break
                unread = client.subscribe("ethprice")
                await _joined(unread)
                for number in range(1, 1000):
                    gateway.publish(price(number, channel="ethprice", size=5000))
        await gateway.all_gone()
        assert len(gateway.sessions) == 0


async def test_being_cancelled_closes_everything_at_once() -> None:
    async with open_gateway() as gateway:
        began_s = trio.current_time()
        with trio.move_on_after(0.2) as scope:
            async with connect(_url(gateway)) as client:
                async for _ in client.subscribe("bitcoinprice"):
                    continue
        assert scope.cancelled_caught
        assert trio.current_time() - began_s < 2
        await gateway.all_gone()


async def test_an_error_of_the_body_comes_out_as_it_is() -> None:
    async with open_gateway() as gateway:
        cause = KeyError("why")

        async def fail() -> None:
            async with connect(_url(gateway)) as client:
                await anext(client.subscribe("bitcoinprice"))
                raise LookupError("the body's own") from cause

        with pytest.raises(LookupError, match="the body's own") as caught:
            await fail()
        assert caught.value.__cause__ is cause


async def test_tls_with_a_context_of_ones_own(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem, key)
    trusting = ssl.create_default_context(cafile=pem)
    async with (
        open_gateway(tls=tls, trusting=trusting) as gateway,
        connect(f"https://localhost:{gateway.port}", ssl_context=trusting) as client,
    ):
        subscription = client.subscribe("bitcoinprice")
        await _joined(subscription)
        gateway.publish(price(1))
        assert _number(await _next(subscription)) == 1
    async with open_gateway(tls=tls, trusting=trusting) as gateway:
        with pytest.raises(ServerUnavailable, match=r"TLS handshake with localhost failed: self.signed certificate"):
            async with connect(f"https://localhost:{gateway.port}"):
                pass


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8000", "ws://localhost:8000/ws"),
        ("[::1]:8000", "ws://[::1]:8000/ws"),
        ("http://localhost:8000/", "ws://localhost:8000/ws"),
        ("https://example.com/feed/", "wss://example.com/feed/ws"),
        ("https://prices.example.com", "wss://prices.example.com/ws"),
        ("wss://prices.example.com/behind/proxy?a=b#c", "wss://prices.example.com/behind/proxy?a=b"),
    ],
)
def test_an_address_may_be_given_as_people_give_it(given: str, url: str) -> None:
    assert websocket_url(given) == url


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        ("ftp://localhost", {}, "must begin with ws"),
        ("localhost", {"token": "two words"}, "printable ASCII"),
        ("localhost", {"retry_base_s": 0}, "above 0"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    url: str, more: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        async with connect(url, **more):  # type: ignore[arg-type] # wrong on purpose
            pass


def test_importing_it_does_not_load_the_daemon() -> None:
    program = "import sys, daemon.client; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith(("daemon.", "connectors."))}
    books = {"connectors.books", "connectors.books.book"}
    rest = {name for name in ours if not f"{name}.".startswith("daemon.client.")} - books
    assert rest == {"connectors.backoff", "connectors.push", "connectors.push.address"}
    assert {"httpx", "trio", "websockets"}.isdisjoint(loaded)
