"""The client on asyncio, in a thread, against the daemon's own front door and hub: what only a shell can get wrong.

What both clients have in common is shown by `test_scenarios.py`, and by the tests of the core.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

import tickerd
from protocol.codes import ErrorCode
from tests.daemon.client.scripted_daemon import open_relay
from tests.daemon.front.test_admitted import open_door
from tests.daemon.serving import SOON_S, Gateway, certificate, open_gateway, price
from tickerd.asyncio import Client, Subscription, connect

T = TypeVar("T")


async def there(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in a thread with an event loop of its own."""

    async def in_time() -> T:
        async with asyncio.timeout(2 * SOON_S):
            return await main()

    return await trio.to_thread.run_sync(lambda: asyncio.run(in_time()))


def url(gateway: Gateway) -> str:
    return f"127.0.0.1:{gateway.port}"


async def joined(client: Client, *channels: str) -> Subscription:
    """A subscription whose channels' states have come."""
    subscription = client.subscribe(*(channels or ("bitcoinprice",)))
    for _ in channels or ("bitcoinprice",):
        assert isinstance(await anext(subscription), tickerd.Status)
    return subscription


async def test_messages_come_typed_and_as_the_daemon_sent_them() -> None:
    async with open_gateway() as gateway:
        gateway.publish(price(1))

        async def main() -> tuple[tickerd.Received, str]:
            async with connect(url(gateway)) as client:
                assert client.welcome.channels == ("bitcoinprice", "ethprice")
                subscription = await joined(client)
                return await anext(subscription), subscription.raw

        received, raw = await there(main)
        assert isinstance(received, tickerd.PriceUpdate)
        [entry] = gateway.tape.latest(frozenset({("bitcoinprice", "*")}))
        assert (received.seq, raw.encode()) == (1, entry.payload)


async def test_being_cancelled_between_two_messages_loses_none() -> None:
    async with open_gateway() as gateway:
        for number in range(1, 51):
            gateway.publish(price(number))
        since = tickerd.Position(gateway.tape.epoch, 0)

        async def main() -> list[int]:
            seqs: list[int] = []
            async with connect(url(gateway)) as client:
                subscription = client.subscribe("bitcoinprice", since=since)
                while len(seqs) < 50:
                    step = asyncio.ensure_future(anext(subscription))
                    # Cancelled after as many turns of the loop as there were messages, so at many places.
                    for _ in range(len(seqs) % 7):
                        await asyncio.sleep(0)
                    step.cancel()
                    try:
                        received = await step
                    except asyncio.CancelledError:
                        received = await anext(subscription)
                    if isinstance(received, tickerd.Data):
                        seqs.append(received.seq)
            return seqs

        assert await there(main) == list(range(1, 51))


async def test_closing_ends_an_iteration_that_waits_in_another_task_and_may_be_repeated() -> None:
    async with open_gateway() as gateway:

        async def main() -> list[tickerd.Received]:
            async with connect(url(gateway)) as client:
                subscription = await joined(client)

                async def rest() -> list[tickerd.Received]:
                    return [each async for each in subscription]

                task = asyncio.ensure_future(rest())
                await asyncio.sleep(0.05)
                await subscription.aclose()
                await subscription.aclose()
                found = await task
                async with subscription:
                    return found + [each async for each in subscription]

        assert await there(main) == []


async def test_leaving_the_last_channel_ends_the_iteration() -> None:
    async with open_gateway() as gateway:

        async def main() -> list[tickerd.Received]:
            async with connect(url(gateway)) as client:
                subscription = await joined(client, "bitcoinprice", "ethprice")
                await subscription.unsubscribe("bitcoinprice")
                await subscription.unsubscribe(tickerd.ALL)
                return [each async for each in subscription]

        assert await there(main) == []


async def test_one_subscription_is_for_one_task() -> None:
    async with open_gateway() as gateway:

        async def main() -> None:
            async with connect(url(gateway)) as client:
                subscription = await joined(client)
                first = asyncio.ensure_future(anext(subscription))
                await asyncio.sleep(0)
                with pytest.raises(RuntimeError, match="another task is iterating"):
                    await anext(subscription)
                first.cancel()
                await asyncio.wait([first])

        await there(main)


async def test_a_timeout_of_the_users_own_is_theirs() -> None:
    async with open_gateway() as gateway:

        async def main() -> None:
            async with connect(url(gateway)) as client:
                subscription = await joined(client)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await anext(subscription)

        await there(main)


async def test_a_cut_connection_is_resumed_without_a_hole_or_a_double() -> None:
    async with open_gateway() as gateway, open_relay() as relay:
        relay.target = gateway.port
        token = trio.lowlevel.current_trio_token()

        async def main() -> list[tickerd.Received]:
            async with connect(f"127.0.0.1:{relay.port}", retry_base_s=0.01, retry_cap_s=0.01) as client:
                subscription = await joined(client)
                token.run_sync_soon(gateway.publish, price(1))
                assert isinstance(await anext(subscription), tickerd.Data)
                token.run_sync_soon(relay.cut)
                token.run_sync_soon(gateway.publish, price(2), price(3))
                found: list[tickerd.Received] = []
                while len([each for each in found if isinstance(each, tickerd.Data | tickerd.Resumed)]) < 3:
                    found.append(await anext(subscription))
                return found

        found = await there(main)
        assert [each.seq for each in found if isinstance(each, tickerd.Data)] == [2, 3]
        assert any(isinstance(each, tickerd.Reconnecting) for each in found)
        assert [each for each in found if isinstance(each, tickerd.Gap | tickerd.Lost)] == []


async def test_a_refused_command_is_an_error_with_its_code() -> None:
    async with open_gateway() as gateway:

        async def main() -> ErrorCode:
            async with connect(url(gateway)) as client:
                with pytest.raises(tickerd.CommandRefused, match=r"^unknown_channel: ") as caught:
                    await anext(client.subscribe("bitcoin"))
                return caught.value.code

        assert await there(main) is ErrorCode.UNKNOWN_CHANNEL


async def test_a_ping_measures_round_trip_and_clock_offset_also_beside_a_subscription() -> None:
    async with open_gateway() as gateway:

        async def main() -> tickerd.RoundTrip:
            async with connect(url(gateway)) as client:
                await joined(client)
                await client.ping()
                return await client.ping()

        trip = await there(main)
        assert 0 < trip.round_trip_s < SOON_S
        assert abs(trip.clock_offset_s) < 1


async def test_history_comes_typed_and_is_refused_in_the_daemons_words() -> None:
    async with open_door("") as door:

        async def main() -> tickerd.History:
            async with connect(f"127.0.0.1:{door.port}") as client:
                with pytest.raises(tickerd.CommandRefused, match="no channel 'binance_price'"):
                    await client.history("binance_price")
                return await client.history("binance_prices", limit=3)

        found = await there(main)
        assert (found.messages, found.seq, found.more) == ((), door.daemon.tape.head, False)


async def test_tls_with_a_context_of_ones_own(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    async with open_door(f'[server]\ncertificate = "{pem}"\nkey = "{key}"\n') as door:

        async def main() -> None:
            trusting = ssl.create_default_context(cafile=pem)
            async with connect(f"wss://localhost:{door.port}/ws", ssl_context=trusting) as client:
                await client.ping()
                await client.history("binance_prices")
            with pytest.raises(tickerd.ServerUnavailable, match="the TLS handshake with localhost failed: "):
                async with connect(f"wss://localhost:{door.port}/ws"):
                    pass

        await there(main)


async def test_leaving_the_block_closes_every_connection() -> None:
    async with open_gateway() as gateway:

        async def main() -> None:
            async with connect(url(gateway)) as client:
                await joined(client)
                await joined(client, "ethprice")
                await client.ping()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        await there(main)
        with trio.fail_after(SOON_S):
            while gateway.sessions:  # noqa: ASYNC110 # the hub tells nobody
                await trio.sleep(0.01)


async def test_being_cancelled_closes_everything_at_once() -> None:
    async with open_gateway() as gateway:

        async def main() -> None:
            async def use() -> None:
                async with connect(url(gateway)) as client:
                    subscription = await joined(client)
                    async for _ in subscription:
                        pass

            task = asyncio.ensure_future(use())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        await there(main)


@pytest.mark.parametrize(
    ("address", "more", "said"),
    [
        ("ftp://localhost", {}, "must begin with"),
        ("localhost", {"token": "two words"}, "printable ASCII"),
        ("localhost", {"retry_base_s": 0}, "above 0"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    address: str, more: dict[str, Any], said: str
) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=said):
            async with connect(address, **more):
                pass

    await there(main)


async def test_where_nobody_listens_the_address_is_named() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()

    async def main() -> None:
        with pytest.raises(tickerd.ServerUnavailable, match=rf"127.0.0.1:{port}: no connection to .*refused"):
            async with connect(f"127.0.0.1:{port}"):
                pass

    await there(main)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (None, tickerd.ServerUnavailable, "did not answer the opening handshake in 0.3 s"),
        (b"", tickerd.ServerUnavailable, "hung up during the opening handshake"),
        (b"HTTP/1.1 101 Swi", tickerd.ServerUnavailable, "hung up during the opening handshake"),
        (b"220 mail.example.com ready\r\n\r\n", tickerd.NotUnderstood, "does not speak the websocket protocol"),
        (b"HTTP/1.1 101 Fine\r\n\r\n", tickerd.NotUnderstood, "does not speak the websocket protocol"),
    ],
)
async def test_whoever_is_no_daemon_is_given_up(answer: bytes | None, error: type[Exception], said: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer is None:
                await trio.sleep_forever()
            elif answer:
                await stream.send_all(answer)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def main() -> None:
        with pytest.raises(error, match=said):
            async with connect(f"127.0.0.1:{port}", timeout_s=0.3 if answer is None else SOON_S):
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        await there(main)
        nursery.cancel_scope.cancel()


def test_importing_it_loads_neither_trio_nor_the_daemon() -> None:
    program = "import sys, daemon.client.asyncio; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"trio", "trio_websocket", "httpx", "daemon.tape", "daemon.client.trio"}.isdisjoint(loaded)


def test_without_the_library_it_is_said_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['websockets'] = None; import daemon.client.asyncio"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = ran.stderr.strip().splitlines()[-1]
    assert last == "ImportError: tickerd's client for asyncio needs `websockets`: pip install 'tickerd[asyncio]'"
