"""Floods over real sockets: frames that carry no command, by the thousand, and what becomes of who sends them.

And what is told to clients whose session ends by a fault that is not theirs.
"""

import logging
import math
import ssl
from contextlib import suppress

import msgspec
import pytest
import trio
import trio.testing

from daemon.fanout.joining import Joining
from daemon.front.limits import Limits
from daemon.sessions.stream import ClientStream
from tests.daemon.serving import (
    CONTINUATION,
    LIMITS,
    PING,
    PONG,
    SOON_S,
    SUBSCRIBE,
    TEXT,
    Gateway,
    HandMade,
    certificate,
    client_frame,
    handshake,
    open_gateway,
    price,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

ALLOWED = "more than 1 control frames and fragments/s (in a burst 50)"
"""By the limits of `serving`."""

FLOODS = {
    "pings": client_frame(PING, b"") * 60,
    "pings with payloads": client_frame(PING, b"x" * 125) * 60,
    "pongs": client_frame(PONG, b"") * 60,
    "empty fragments": client_frame(TEXT, b"", fin=False) + client_frame(CONTINUATION, b"", fin=False) * 60,
    "fragments of a byte": client_frame(TEXT, b"{", fin=False) + client_frame(CONTINUATION, b" ", fin=False) * 60,
    "pings between fragments": client_frame(TEXT, b"{", fin=False)
    + (client_frame(PING, b"") + client_frame(CONTINUATION, b" ", fin=False)) * 30,
}


def limits(**changes: object) -> Limits:
    return msgspec.structs.replace(LIMITS, **changes)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """The server's, and one that trusts it."""
    pem, key = certificate(tmp_path_factory.mktemp("tls"))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem, key)
    return server, ssl.create_default_context(cafile=str(pem))


async def secure_client(gateway: Gateway, trusting: ssl.SSLContext) -> HandMade:
    stream = trio.SSLStream(await gateway.dial(), trusting, server_hostname="localhost", https_compatible=True)
    client = await gateway.upgrade(stream)
    await client.until("welcome")
    return client


async def refused(client: HandMade) -> None:
    """It is closed for its flood, and told so."""
    closed = await client.closed()
    assert (closed.code, closed.reason) == (1008, ALLOWED)


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_is_closed_with_the_limit_that_it_broke_and_nobody_else_notices(
    flood: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_gateway() as gateway, await gateway.client() as good, await gateway.client() as bad:
        await good.subscribe("bitcoinprice")
        await bad.stream.send_all(FLOODS[flood])
        await refused(bad)
        await bad.ended()
        gateway.publish(price(1))
        assert (await good.message())["price"] == 1.5
    assert f"client 127.0.0.1 closed: 1008 {ALLOWED}" in caplog.messages
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_who_is_over_the_rate_is_closed_though_some_of_it_is_carried_out() -> None:
    """One good command in every four: never twenty errors in a row, and once it was answered for ever."""
    some = limits(commands_burst=1_000_000, errors_in_a_row=20, errors_per_s=1.0, errors_burst=30)
    async with open_gateway(limits=some) as gateway, await gateway.client() as client:
        for _ in range(100):
            with suppress(trio.BrokenResourceError):
                for command in (b"garbage", b'{"type":"nope"}', b"[]", b'{"type":"ping"}'):
                    await client.send(command)
        told = [await client.message() for _ in range(40)]
        assert [message["type"] for message in told].count("error") == 30
        closed = await client.closed()
        assert closed.code == 1008
        assert closed.reason == "more than 1 frames/s (in a burst 30) of which nothing could be carried out"


@pytest.mark.parametrize("flood", ["pings", "empty fragments"])
async def test_a_flood_over_tls_is_closed_as_well(flood: str, contexts: Contexts) -> None:
    tls, trusting = contexts
    async with open_gateway(tls=tls, trusting=trusting) as gateway, await secure_client(gateway, trusting) as bad:
        await bad.stream.send_all(FLOODS[flood])
        await refused(bad)


async def test_a_flood_behind_the_handshake_is_a_flood() -> None:
    async with (
        open_gateway() as gateway,
        await gateway.upgrade(await gateway.dial(), behind=FLOODS["pings"]) as client,
    ):
        await refused(client)


async def test_at_the_limit_nobody_is_closed_and_each_ping_is_answered() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.stream.send_all(client_frame(PING, b"x") * 50)
        with trio.fail_after(SOON_S):
            assert [await client.frame() for _ in range(50)] == [(PONG, b"x")] * 50
        await client.say(type="ping", id=1)
        assert (await client.until("pong"))["id"] == 1
        await client.stream.send_all(client_frame(PING, b"") * 5)
        await refused(client)


async def test_a_message_may_come_in_as_many_fragments_as_the_burst_has() -> None:
    fragments = [SUBSCRIBE[at : at + 2] for at in range(0, len(SUBSCRIBE), 2)]
    assert 20 < len(fragments) <= 50
    sent = client_frame(TEXT, fragments[0], fin=False)
    sent += b"".join(client_frame(CONTINUATION, each, fin=False) for each in fragments[1:])
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.stream.send_all(sent + client_frame(CONTINUATION, b""))
        assert (await client.until("subscribed"))["id"] == 1


async def test_the_answers_to_our_own_pings_are_never_too_many() -> None:
    async with (
        open_gateway(limits=limits(ping_every_s=1e-6, silent_after_s=math.inf)) as gateway,
        await gateway.client() as client,
    ):
        [session] = gateway.sessions
        for _ in range(100):
            session.stream.last_received_s = 0.0
            await gateway.sessions.sweep()
            with trio.fail_after(SOON_S):
                assert (await client.frame())[0] == PING
            await client.send(b"", PONG)
            await gateway.wait(lambda: session.stream.last_received_s > 0.0)
        await client.say(type="ping")
        assert await client.until("pong")


async def test_a_flood_of_one_that_never_reads_piles_up_nothing() -> None:
    """Its pongs fill its socket; then it is not read any more, and at the latest the limit ends it."""
    many = limits(commands_per_s=1e6, commands_burst=1_000_000, channels_per_command=8, errors_in_a_row=5)
    ping = client_frame(PING, b"x" * 125)
    async with open_gateway(limits=many) as gateway, await gateway.client(receive_buffer=4096) as bad:
        [session] = gateway.sessions
        sent = 0
        with trio.fail_after(SOON_S):
            while True:
                with trio.move_on_after(0.2) as stuck:
                    await bad.stream.send_all(ping * 100)
                if stuck.cancelled_caught:
                    break
                sent += 100
        assert sent * 127 > 100_000, "its socket has never been full"
        assert sum(map(len, session.stream.pending)) < 1024
    async with open_gateway() as gateway, await gateway.client(receive_buffer=4096) as bad:
        await bad.stream.send_all(ping * 60)
        await gateway.all_gone()


async def test_subscribes_that_ask_for_everything_cannot_be_piled_up() -> None:
    """One command of 60 bytes is answered by a snapshot of 40 KB: what is not read bounds what is answered."""
    many = limits(commands_per_s=1e6, commands_burst=1_000_000, channels_per_command=8, errors_in_a_row=5)
    all_of_it = client_frame(TEXT, b'{"type":"subscribe","channels":["*"],"snapshot":true}')
    async with (
        open_gateway(limits=many) as gateway,
        await gateway.client() as good,
        await gateway.client(receive_buffer=4096) as bad,
    ):
        gateway.publish(price(1, size=20_000), price(1, channel="ethprice", size=20_000))
        await good.subscribe("bitcoinprice")
        with trio.move_on_after(0.5):
            while True:
                await bad.stream.send_all(all_of_it * 50)
        held = [sum(map(len, each.stream.pending)) for each in gateway.sessions]
        assert max(held) < 512 * 1024
        assert max(held) > 0, "it has read everything"
        gateway.publish(price(2))
        assert (await good.message())["price"] == 2.5


# ---- what is not the client's fault ---------------------------------------------------------------------------------


async def test_a_bug_of_ours_is_told_by_1011(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway, await gateway.client() as one:
        with monkeypatch.context() as patch:
            patch.setattr(Joining, "join", lambda *_: 1 / 0)
            await one.send(SUBSCRIBE)
            closed = await one.closed()
    assert (closed.code, closed.reason) == (1011, "the daemon failed; its log says why")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the session of 127.0.0.1 failed"
    ]


async def test_a_bug_in_the_task_that_writes_is_told_too(monkeypatch: pytest.MonkeyPatch, contexts: Contexts) -> None:
    tls, trusting = contexts
    async with open_gateway(tls=tls, trusting=trusting) as gateway, await secure_client(gateway, trusting) as one:
        await one.subscribe("bitcoinprice")
        with monkeypatch.context() as patch:
            patch.setattr(gateway.hub, "advance", lambda *_: 1 / 0)
            [session] = gateway.sessions
            gateway.hub.blocked(session.subscriber)
            closed = await one.closed()
    assert closed.code == 1011


async def test_who_is_still_opening_when_the_stop_begins_is_told_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    let = trio.Event()
    async with open_gateway() as gateway, trio.open_nursery() as nursery:
        original = ClientStream.send_all

        async def late(self: ClientStream, data: bytes | bytearray | memoryview) -> None:
            await let.wait()
            await original(self, data)

        monkeypatch.setattr(ClientStream, "send_all", late)
        stream = await gateway.dial()
        await stream.send_all(handshake())
        await gateway.wait(lambda: gateway.door.statistics().clients_open > 0)
        gateway.door.stop_accepting()
        nursery.start_soon(gateway.sessions.say_goodbye, "the daemon is stopping", SOON_S, 1.0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        let.set()
        with trio.fail_after(SOON_S):
            received = b""
            while b"\r\n\r\n" not in received:
                received += bytes(await stream.receive_some(4096))
        client = HandMade(stream, received.partition(b"\r\n\r\n")[2])
        async with client:
            assert (await client.message())["type"] == "welcome"
            assert (await client.message())["type"] == "goodbye"
            closed = await client.closed()
            assert closed.code == 1001
