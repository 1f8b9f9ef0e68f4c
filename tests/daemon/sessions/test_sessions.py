"""Websocket clients over real sockets, through the real front door and hub: what the contract promises each of them.

What they do wrong, and how they are closed, is in `test_session_closing`.
"""

import json
import os
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from trio_websocket import connect_websocket_url
from websockets.trio.client import connect
from websockets.typing import Subprotocol

from connectors.base import StateChange
from tests.daemon.serving import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    SOON_S,
    SUBSCRIBE,
    TEXT,
    Gateway,
    certificate,
    client_frame,
    open_gateway,
    price,
)

MSGPACK = "tickerd.v1.msgpack"


# ---- the conversation -----------------------------------------------------------------------------------------------


async def test_the_welcome_comes_first() -> None:
    async with open_gateway() as gateway:
        gateway.publish(price(1), price(2))
        async with await gateway.upgrade(await gateway.dial()) as client:
            welcome = await client.message()
            assert welcome["type"] == "welcome"
            assert welcome["channels"] == ["bitcoinprice", "ethprice"]
            assert welcome["epoch"] == gateway.tape.epoch
            assert welcome["seq"] == 2
            assert welcome["heartbeat_s"] == 60.0
            assert welcome["server"] == {"name": "tickerd", "version": "test"}
            assert "simulated" not in welcome


async def test_the_welcome_says_that_the_venues_are_simulated() -> None:
    async with open_gateway() as gateway:
        gateway.sessions.simulated = True
        async with await gateway.upgrade(await gateway.dial()) as client:
            assert (await client.message())["simulated"] is True


async def test_what_is_lost_on_the_way_is_sent_again_eight_times_before_the_client_counts_as_dead() -> None:
    async with open_gateway() as gateway, await gateway.client():
        (session,) = gateway.sessions
        sender = socket.socket(fileno=os.dup(session.stream.fd))
        with sender:
            try:
                wait_ms = sender.getsockopt(socket.IPPROTO_TCP, 44)  # TCP_RTO_MAX_MS
            except OSError:
                pytest.skip("this kernel bounds no retransmission timeout")
            assert wait_ms == max(1000, gateway.sessions.limits.silent_after_s * 1000 / 8)


async def test_a_subscribe_is_answered_then_the_status_then_the_snapshot_then_what_is_new() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        gateway.publish(StateChange("bitcoinprice", "live"), price(1), price(2), price(9, channel="ethprice"))
        await client.send(SUBSCRIBE)
        subscribed = await client.message()
        assert (subscribed["type"], subscribed["id"], subscribed["channels"]) == ("subscribed", 1, ["bitcoinprice"])
        assert (subscribed["epoch"], subscribed["seq"]) == (gateway.tape.epoch, 4)
        status = await client.message()
        assert (status["type"], status["channel"], status["state"]) == ("status", "bitcoinprice", "live")
        newest = await client.message()
        assert (newest["type"], newest["price"], newest["seq"]) == ("price_update", 2.5, 3)
        gateway.publish(price(3), price(10, channel="ethprice"), price(4))
        for expected, seq, prev_seq in ((3.5, 5, 3), (4.5, 7, 5)):
            update = await client.message()
            assert (update["price"], update["seq"], update["prev_seq"]) == (expected, seq, prev_seq)
        gateway.publish(StateChange("bitcoinprice", "stale", "silence"))
        status = await client.message()
        assert (status["type"], status["state"], status["reason"]) == ("status", "stale", "silence")


async def test_nothing_of_a_channel_follows_the_answer_to_its_unsubscribe() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.subscribe("bitcoinprice", "ethprice")
        await client.say(type="unsubscribe", channels=["bitcoinprice"], id="u")
        unsubscribed = await client.message()
        assert (unsubscribed["type"], unsubscribed["id"]) == ("unsubscribed", "u")
        gateway.publish(price(1), StateChange("bitcoinprice", "down"), price(2, channel="ethprice"))
        assert (await client.message())["connector_id"] == "ethprice"


async def test_pings_and_mistakes_are_answered_in_order() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.say(type="ping", id=1, data={"a": [1.50]})
        await client.send(b"{nonsense")
        await client.say(type="dance", id=2)
        await client.say(type="subscribe", channels=["bitcoinprise", "ethprice"], id=3)
        pong = await client.message()
        assert (pong["type"], pong["id"], pong["data"]) == ("pong", 1, {"a": [1.5]})
        seen = [await client.message() for _ in range(5)]
        assert [each.get("code", each["type"]) for each in seen] == [
            "malformed",
            "unknown_type",
            "unknown_channel",
            "subscribed",
            "status",
        ]
        assert "bitcoinprice" in seen[2]["message"]
        assert seen[3]["channels"] == ["ethprice"]
        assert all(each["timestamp"].endswith("Z") for each in seen)


async def test_a_test_message_reaches_everybody_subscribed_or_not() -> None:
    async with open_gateway() as gateway, await gateway.client() as one, await gateway.client() as other:
        await other.subscribe("bitcoinprice")
        gateway.sequencer.broadcast_test("hello")
        assert gateway.hub.statistics().subscribers == 2
        for client in (one, other):
            assert (await client.message())["message"] == "hello"


async def test_a_resume_brings_exactly_what_was_missed() -> None:
    async with open_gateway() as gateway:
        async with await gateway.client() as client:
            await client.subscribe("bitcoinprice")
            gateway.publish(price(1))
            position = {"epoch": gateway.tape.epoch, "seq": (await client.message())["seq"]}
        gateway.publish(price(2), price(3))
        async with await gateway.client() as client:
            await client.say(type="subscribe", channels=["bitcoinprice"], since=position)
            assert (await client.until("subscribed"))["recovered"] == {"bitcoinprice": True}
            assert (await client.message())["type"] == "status"
            assert [(await client.message())["price"] for _ in range(2)] == [2.5, 3.5]
            gateway.publish(price(4))
            assert (await client.message())["price"] == 4.5


async def test_messagepack_is_the_same_in_binary_frames() -> None:
    async with open_gateway() as gateway, await gateway.client(subprotocol=MSGPACK) as client:
        gateway.publish(price(7))
        await client.send(msgspec.msgpack.encode({"type": "subscribe", "channels": ["bitcoinprice"], "id": 1}), BINARY)
        with trio.fail_after(SOON_S):
            frames = [await client.frame() for _ in range(3)]
        assert [opcode for opcode, _ in frames] == [BINARY] * 3
        messages: list[dict[str, Any]] = [msgspec.msgpack.decode(payload) for _, payload in frames]
        assert [each["type"] for each in messages] == ["subscribed", "status", "price_update"]
        assert float(messages[2]["price"]) == 7.5


# ---- frames ---------------------------------------------------------------------------------------------------------


async def test_a_command_in_the_segment_of_the_handshake_is_not_lost() -> None:
    async with open_gateway() as gateway:
        behind = client_frame(TEXT, SUBSCRIBE) + client_frame(TEXT, b'{"type":"ping"}')
        async with await gateway.upgrade(await gateway.dial(), behind=behind) as client:
            assert [(await client.message())["type"] for _ in range(4)] == ["welcome", "subscribed", "status", "pong"]


async def test_half_a_command_in_the_segment_of_the_handshake_waits_for_the_other_half() -> None:
    async with open_gateway() as gateway:
        frame = client_frame(TEXT, SUBSCRIBE)
        async with await gateway.upgrade(await gateway.dial(), behind=frame[:9]) as client:
            assert (await client.message())["type"] == "welcome"
            for at in range(9, len(frame)):
                await client.stream.send_all(frame[at : at + 1])
            assert (await client.message())["type"] == "subscribed"


async def test_a_fragmented_message_is_one_and_a_ping_may_come_in_between() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.stream.send_all(
            client_frame(TEXT, SUBSCRIBE[:10], fin=False)
            + client_frame(CONTINUATION, b"", fin=False)
            + client_frame(PING, b"in between")
            + client_frame(CONTINUATION, SUBSCRIBE[10:])
        )
        with trio.fail_after(SOON_S):
            assert await client.frame() == (PONG, b"in between")
        assert (await client.message())["type"] == "subscribed"


async def test_ping_frames_are_answered_with_their_payload() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        for payload in (b"", b"x" * 125):
            await client.send(payload, PING)
            with trio.fail_after(SOON_S):
                assert await client.frame() == (PONG, payload)


async def test_a_client_that_closes_gets_its_code_back_and_then_the_end() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.subscribe("bitcoinprice")
        await client.send(struct.pack("!H", 1000) + b"bye", CLOSE)
        assert (await client.closed()).code == 1000
        await client.ended()
        await gateway.all_gone()
        assert gateway.hub.statistics().subscribers == 0


# ---- independent clients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [None, "tickerd.v1.json"])
async def test_a_client_made_with_trio_websocket(subprotocol: str | None) -> None:
    async with open_gateway() as gateway, trio.open_nursery() as nursery:
        with trio.fail_after(SOON_S):
            url = f"ws://127.0.0.1:{gateway.port}/ws"
            offered = [subprotocol] if subprotocol else None
            websocket = await connect_websocket_url(nursery, url, subprotocols=offered)
            assert websocket.subprotocol == subprotocol
            assert json.loads(await websocket.get_message())["type"] == "welcome"
            await websocket.send_message(SUBSCRIBE.decode())
            assert json.loads(await websocket.get_message())["type"] == "subscribed"
            assert json.loads(await websocket.get_message())["type"] == "status"
            gateway.publish(*(price(number) for number in range(100)))
            prices = [json.loads(await websocket.get_message())["price"] for _ in range(100)]
            assert prices == [number + 0.5 for number in range(100)]
            await websocket.ping(b"alive")
            await websocket.aclose(1000)
            await gateway.all_gone()


async def _with_websockets(gateway: Gateway, url: str, subprotocol: str, context: ssl.SSLContext | None = None) -> None:
    def decode(message: str | bytes) -> dict[str, Any]:
        decoded = json.loads(message) if isinstance(message, str) else msgspec.msgpack.decode(message)
        assert isinstance(decoded, dict)
        return decoded

    def encode(command: dict[str, Any]) -> str | bytes:
        return msgspec.msgpack.encode(command) if subprotocol == MSGPACK else json.dumps(command)

    with trio.fail_after(SOON_S):
        async with connect(url, subprotocols=[Subprotocol(subprotocol)], ssl=context) as websocket:
            assert websocket.subprotocol == subprotocol
            assert decode(await websocket.recv())["type"] == "welcome"
            await websocket.send(encode({"type": "subscribe", "channels": ["bitcoinprice"]}))
            assert [decode(await websocket.recv())["type"] for _ in range(2)] == ["subscribed", "status"]
            gateway.publish(*(price(number, size=500) for number in range(300)))
            for number in range(300):
                assert float(decode(await websocket.recv())["price"]) == number + 0.5
            await (await websocket.ping()).wait()
            await websocket.aclose()
            assert websocket.close_code == 1000


@pytest.mark.parametrize("subprotocol", ["tickerd.v1.json", MSGPACK])
async def test_a_client_made_with_websockets(subprotocol: str) -> None:
    async with open_gateway() as gateway:
        await _with_websockets(gateway, f"ws://127.0.0.1:{gateway.port}/ws", subprotocol)


# ---- many -----------------------------------------------------------------------------------------------------------


async def test_fifty_clients_connect_at_once_and_each_gets_everything() -> None:
    async with open_gateway() as gateway:
        subscribed = 0

        async def serve_one() -> None:
            nonlocal subscribed
            async with await gateway.client() as client:
                await client.subscribe("bitcoinprice")
                subscribed += 1
                if subscribed == 50:
                    gateway.publish(*(price(number) for number in range(20)))
                assert [(await client.message())["price"] for _ in range(20)] == [n + 0.5 for n in range(20)]

        with trio.fail_after(SOON_S):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(serve_one)
        await gateway.all_gone()
        statistics = gateway.hub.statistics()
        assert (statistics.subscribers, statistics.groups) == (0, 0)


async def test_no_byte_goes_to_a_descriptor_that_is_closed() -> None:
    """Its number may be the next client's by then."""
    strays: list[int] = []

    def write(fd: int, data: bytes) -> int:
        if fd not in {session.stream.fd for session in gateway.sessions}:
            strays.append(fd)
        return len(data)  # nobody reads here; it is about who is written to

    leaving = [
        client_frame(CLOSE, struct.pack("!H", 1000)),
        client_frame(TEXT, b"\xff"),
        client_frame(TEXT, b"x", masked=False),
        client_frame(TEXT, b"x" * 4000),
        client_frame(BINARY, b"x"),
    ]
    async with open_gateway(write=write) as gateway:
        for last in leaving * 4:
            async with await gateway.client() as client:
                await client.subscribe("bitcoinprice")
                await client.stream.send_all(last)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.closed)
                    for number in range(60):
                        gateway.publish(price(number))
                        await trio.lowlevel.checkpoint()
                await client.send(struct.pack("!H", 1000), CLOSE)
        assert strays == []


# ---- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and one that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    pem, key = certificate(folder)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem, key)
    return server, ssl.create_default_context(cafile=str(pem))


@pytest.mark.parametrize("subprotocol", ["tickerd.v1.json", MSGPACK])
async def test_wss_is_the_same(contexts: tuple[ssl.SSLContext, ssl.SSLContext], subprotocol: str) -> None:
    tls, trusting = contexts
    async with open_gateway(tls=tls, trusting=trusting) as gateway:
        await _with_websockets(gateway, f"wss://localhost:{gateway.port}/ws", subprotocol, trusting)


async def test_tls_clients_that_stall_cost_the_others_nothing(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """One never begins its handshake, one stops in the middle of it, one reads nothing."""
    tls, trusting = contexts
    async with open_gateway(tls=tls, trusting=trusting) as gateway:

        async def secure(*, receive_buffer: int | None = None) -> trio.SSLStream[trio.SocketStream]:
            stream = await gateway.dial(receive_buffer=receive_buffer)
            return trio.SSLStream(stream, trusting, server_hostname="localhost", https_compatible=True)

        async with await gateway.dial(), await gateway.dial() as halfway:
            await halfway.send_all(b"\x16\x03\x01\x02\x00\x01")
            async with (
                await gateway.upgrade(await secure(receive_buffer=4096)) as slow,
                await gateway.upgrade(await secure()) as good,
            ):
                await slow.subscribe("bitcoinprice")
                await good.subscribe("bitcoinprice")
                for number in range(200):
                    gateway.publish(price(number, size=20_000))
                    assert (await good.message())["price"] == number + 0.5
                assert sum(bool(session.stream.pending) for session in gateway.sessions) >= 1, "none was slow"
                # What the slow one has not lost is in order, and whole.
                for number in range(200):
                    assert (await slow.message())["price"] == number + 0.5


async def test_an_invalid_frame_over_tls_is_told(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    tls, trusting = contexts
    async with open_gateway(tls=tls, trusting=trusting) as gateway:
        stream = trio.SSLStream(await gateway.dial(), trusting, server_hostname="localhost", https_compatible=True)
        async with await gateway.upgrade(stream) as client:
            await client.send(b"\xff")
            assert (await client.closed()).code == 1007
