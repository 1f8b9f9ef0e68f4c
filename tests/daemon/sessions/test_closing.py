"""How sessions end, over real sockets: what clients do wrong, what they fail to do, and the daemon's own stop.

Each test leaves through `open_gateway`, which lets a fresh client in: none of this harms anybody else.
"""

import logging
import os
import socket
import struct

import msgspec
import pytest
import trio
import trio.testing

from daemon.fanout.joining import Joining
from daemon.front.limits import Limits
from daemon.sessions.client import ConnectedClient
from daemon.sessions.sessions import RETURNS_PER_S
from protocol.messages import Pong
from tests.daemon.serving import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LIMITS,
    PING,
    PONG,
    SOON_S,
    SUBSCRIBE,
    TEXT,
    Closed,
    Gateway,
    HandMade,
    client_frame,
    open_gateway,
    price,
)


def limits(**changes: object) -> Limits:
    return msgspec.structs.replace(LIMITS, **changes)


# ---- what breaks the protocol ---------------------------------------------------------------------------------------

VIOLATIONS = {
    "binary on JSON": (client_frame(BINARY, b"x"), 1003),
    "not UTF-8": (client_frame(TEXT, b"\xff\xfe"), 1007),
    "half a character": (client_frame(TEXT, b"\xe2\x82"), 1007),
    "not UTF-8 in a fragment": (
        client_frame(TEXT, b"{", fin=False) + client_frame(CONTINUATION, b"\xff"),
        1007,
    ),
    "unmasked": (client_frame(TEXT, b"{}", masked=False), 1002),
    "reserved opcode": (client_frame(0x3, b""), 1002),
    "reserved bit": (client_frame(TEXT | 0x40, b"{}"), 1002),
    "fragmented ping": (client_frame(PING, b"", fin=False), 1002),
    "continuation of nothing": (client_frame(CONTINUATION, b"x"), 1002),
    "close code of one byte": (client_frame(CLOSE, b"\x03"), 1002),
    "over the limit": (client_frame(TEXT, b"x" * 3000), 1009),
    "over the limit in fragments": (
        client_frame(TEXT, b"x" * 1500, fin=False) + client_frame(CONTINUATION, b"x" * 1500),
        1009,
    ),
}


@pytest.mark.parametrize("what", VIOLATIONS)
async def test_a_violation_is_told_by_its_close_code_and_ends_the_connection(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames, code = VIOLATIONS[what]
    async with open_gateway() as gateway, await gateway.client() as client, await gateway.client() as other:
        await client.subscribe("bitcoinprice")
        await other.subscribe("bitcoinprice")
        await client.stream.send_all(frames)
        assert (await client.closed()).code == code
        await client.send(struct.pack("!H", code), CLOSE)
        await client.ended()
        gateway.publish(price(1))
        assert (await other.message())["price"] == 1.5
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("limit_bytes", [2048, 4096])
async def test_a_message_over_the_limit_is_no_failure_of_ours(
    limit_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """trio-websocket's reader, which takes 4096 bytes at a time, goes on for one more read beside the session's."""
    async with open_gateway(limits=limits(message_bytes=limit_bytes)) as gateway, await gateway.client() as client:
        await client.send(b"x" * (limit_bytes + 200))
        assert (await client.closed()).code == 1009
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.send(b"and more")
        await client.send(struct.pack("!H", 1009), CLOSE)
        await client.stream.aclose()
        with trio.fail_after(SOON_S):
            for session in gateway.sessions:
                await session.wait_gone()
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_text_on_messagepack_is_unsupported_data() -> None:
    async with open_gateway() as gateway, await gateway.client(subprotocol="tickerd.v1.msgpack") as client:
        await client.send(b"{}")
        assert (await client.closed()).code == 1003


@pytest.mark.parametrize("frame", [client_frame(TEXT, b"x" * 60_000), client_frame(TEXT, b"\xff" * 60_000)])
async def test_a_client_that_goes_on_sending_still_learns_why(frame: bytes) -> None:
    """A socket that is closed with unread bytes in it is reset, and the close frame would be lost."""
    async with open_gateway(limits=limits(message_bytes=30_000)) as gateway, await gateway.client() as client:
        for _ in range(30):
            await client.stream.send_all(frame)
        assert (await client.closed()).code in (1007, 1009)
        await trio.aclose_forcefully(client.stream)
        await gateway.all_gone()


async def test_a_client_that_ignores_that_it_was_refused_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sessions.websocket._LINGER_S", 0.1)
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.send(b"\xff")
        assert (await client.closed()).code == 1007
        # It neither answers nor closes: it is given a moment, and no more.
        with trio.fail_after(SOON_S):
            await gateway.all_gone()


async def test_no_message_follows_the_close_frame() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.subscribe("bitcoinprice")
        await client.send(b"x", BINARY)
        assert (await client.closed()).code == 1003
        gateway.publish(price(1))
        gateway.sequencer.broadcast_test("hello")
        await client.send(struct.pack("!H", 1003), CLOSE)
        with pytest.raises(Closed, match="behind 0 bytes"):
            await client.payload()


async def test_a_flood_is_answered_then_limited_then_closed() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.stream.send_all(client_frame(TEXT, b'{"type":"ping"}') * 70)
        for _ in range(50):
            assert (await client.message())["type"] == "pong"
        for _ in range(5):
            assert (await client.message())["code"] == "rate_limited"
        closed = await client.closed()
        assert closed.code == 1008
        assert "5 frames in a row" in closed.reason


async def test_garbage_in_a_row_is_closed_and_one_command_in_between_is_not() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        for _ in range(2):
            for _ in range(4):
                await client.send(b"garbage")
                assert (await client.message())["code"] == "malformed"
            await client.say(type="ping")
            assert (await client.message())["type"] == "pong"
        for _ in range(5):
            await client.send(b"garbage")
        assert (await client.closed()).code == 1008


async def test_a_client_that_sends_and_does_not_read_is_no_longer_read() -> None:
    """Its replies are kept up to a bound, then its commands wait: it cannot make the daemon hold its answers."""
    many = limits(commands_per_s=1e6, commands_burst=1_000_000, channels_per_command=8, errors_in_a_row=1_000_000)
    async with open_gateway(limits=many) as gateway, await gateway.client(receive_buffer=4096) as bad:
        command = client_frame(TEXT, b'{"type":"ping","data":"%s"}' % (b"x" * 1500))
        [session] = gateway.sessions
        sent = 0
        with trio.fail_after(SOON_S):
            while True:
                with trio.move_on_after(0.2) as stuck:
                    await bad.stream.send_all(command * 10)
                if stuck.cancelled_caught:
                    break
                sent += 10
        assert sent * len(command) > 300_000, "it has not come to the bound"
        assert sum(map(len, session.stream.pending)) < 300_000


# ---- what breaks the connection -------------------------------------------------------------------------------------


async def test_half_a_close_is_the_end() -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        assert isinstance(client.stream, trio.SocketStream)
        await client.stream.send_eof()
        await client.ended()
        await gateway.all_gone()


async def test_a_reset_is_the_end_and_nothing_to_log(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway:
        for last in (b"", client_frame(TEXT, SUBSCRIBE) * 20, client_frame(TEXT, SUBSCRIBE)[:9]):
            client = await gateway.client()
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_all(last)
            client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await client.stream.aclose()
            await gateway.all_gone()
        assert gateway.hub.statistics().subscribers == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_bug_in_one_session_is_logged_once_and_is_nobody_elses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_gateway() as gateway, await gateway.client() as one, await gateway.client() as other:
        await other.subscribe("bitcoinprice")
        with monkeypatch.context() as patch:
            patch.setattr(Joining, "join", lambda *_: 1 / 0)
            await one.send(SUBSCRIBE)
            await one.ended()
        gateway.publish(price(1))
        assert (await other.message())["price"] == 1.5
        assert gateway.hub.statistics().subscribers == 1
    [failed] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert failed.getMessage() == "the session of 127.0.0.1 failed"
    assert failed.exc_info is not None


# ---- pings, silence, slowness ---------------------------------------------------------------------------------------


async def test_the_server_pings_when_it_is_time_and_not_before() -> None:
    async with open_gateway(limits=limits(ping_every_s=0.05)) as gateway, await gateway.client() as client:
        await gateway.sessions.sweep()
        await client.say(type="ping")
        with trio.fail_after(SOON_S):
            assert (await client.frame())[0] == TEXT
            for _ in range(2):
                await trio.sleep(0.06)
                await gateway.sessions.sweep()
                assert await client.frame() == (PING, b"")


async def test_a_silent_client_is_closed_and_one_that_answers_is_not() -> None:
    async with (
        open_gateway(limits=limits(silent_after_s=0.4)) as gateway,
        await gateway.client() as silent,
        await gateway.client() as alive,
    ):
        await gateway.sessions.sweep()
        assert len(gateway.sessions) == 2
        await trio.sleep(0.3)
        await alive.send(b"", PONG)
        await trio.sleep(0.2)
        await gateway.sessions.sweep()
        closed = await silent.closed()
        assert (closed.code, closed.reason) == (4001, "nothing was received for 0.4 s, no pong either")
        await silent.ended()
        await alive.say(type="ping")
        assert (await alive.message())["type"] == "pong"


async def _make_behind(gateway: Gateway, *good: HandMade) -> int:
    """Publish until somebody is behind; the good ones read everything meanwhile."""
    for number in range(1000):
        gateway.publish(price(number, size=20_000))
        for client in good:
            assert (await client.message())["price"] == number + 0.5
        if gateway.hub.statistics().behind:
            return number
    raise AssertionError("nobody falls behind")


async def test_a_slow_consumer_is_closed_and_the_others_keep_receiving() -> None:
    async with (
        open_gateway(limits=limits(write_deadline_s=0.2)) as gateway,
        await gateway.client(receive_buffer=4096) as slow,
        await gateway.client() as good,
    ):
        await slow.subscribe("bitcoinprice")
        await good.subscribe("bitcoinprice")
        count = await _make_behind(gateway, good)
        await gateway.sessions.sweep()
        assert len(gateway.sessions) == 2, "it still has time"
        await trio.sleep(0.25)
        for number in range(count + 1, count + 20):
            gateway.publish(price(number, size=20_000))
            assert (await good.message())["price"] == number + 0.5
        await gateway.sessions.sweep()
        assert gateway.hub.statistics().subscribers == 1
        number = 0

        async def read_again() -> None:
            """Whole messages, in order."""
            nonlocal number
            while True:
                assert (await slow.message())["price"] == number + 0.5
                number += 1

        with pytest.raises(Closed) as closed:
            await read_again()
        assert closed.value.code == 4000
        assert closed.value.reason == "slow consumer: nothing could be written for 0.2 s"
        assert 0 < number <= count + 1


async def test_a_slow_client_that_takes_a_little_now_and_then_is_not_closed() -> None:
    async with (
        open_gateway(limits=limits(write_deadline_s=0.3)) as gateway,
        await gateway.client(receive_buffer=4096) as slow,
    ):
        await slow.subscribe("bitcoinprice")
        count = await _make_behind(gateway)
        for number in range(count + 1, count + 50):
            gateway.publish(price(number, size=20_000))
        for number in range(count + 50):
            if number % 8 == 0 and number < 80:
                await trio.sleep(0.05)
            await gateway.sessions.sweep()
            assert (await slow.message())["price"] == number + 0.5
        await gateway.sessions.sweep()
        await slow.say(type="ping")
        assert (await slow.message())["type"] == "pong"
        assert gateway.hub.statistics().behind == 0


async def test_a_slow_client_that_takes_a_little_counts_as_alive_though_its_pong_waits() -> None:
    async with (
        open_gateway(limits=limits(silent_after_s=0.3, write_deadline_s=5)) as gateway,
        await gateway.client(receive_buffer=4096) as slow,
    ):
        await slow.subscribe("bitcoinprice")
        count = await _make_behind(gateway)
        for number in range(count + 1, count + 80):
            gateway.publish(price(number, size=20_000))
        for _ in range(4):
            await trio.sleep(0.1)
            for _ in range(12):
                await slow.message()
        assert gateway.hub.statistics().behind == 1
        await gateway.sessions.sweep()
        await trio.sleep(0.05)
        assert len(gateway.sessions) == 1


async def test_a_client_that_does_not_read_collects_no_pings() -> None:
    async with (
        open_gateway(limits=limits(ping_every_s=0.001)) as gateway,
        await gateway.client(receive_buffer=4096) as slow,
    ):
        await slow.subscribe("bitcoinprice")
        await _make_behind(gateway)
        [session] = gateway.sessions
        before = list(map(len, session.stream.pending))
        for _ in range(5):
            await trio.sleep(0.002)
            await gateway.sessions.sweep()
        assert list(map(len, session.stream.pending)) == before


async def test_the_sweeper_runs_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    gateway = Gateway()
    swept: list[float] = []

    async def sweep() -> None:
        swept.append(trio.current_time())

    gateway.sessions.sweep = sweep  # type: ignore[method-assign]  # to see when it is called
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.sessions.run)
        await trio.sleep(3.5)
        nursery.cancel_scope.cancel()
    assert swept == [1.0, 2.0, 3.0]


# ---- the daemon's own stop ------------------------------------------------------------------------------------------


async def _take_leave(client: HandMade, *, answering: bool = True) -> float:
    """Read to the goodbye and the close frame behind it, agree to close. Returns `retry_after_s`."""
    goodbye = await client.until("goodbye")
    assert (goodbye["code"], goodbye["reason"]) == (1001, "stopping")
    with pytest.raises(Closed) as closed:
        await client.payload()
    assert (closed.value.code, closed.value.reason) == (1001, "stopping")
    if answering:
        await client.send(struct.pack("!H", 1001), CLOSE)
        await client.ended()
    return float(goodbye["retry_after_s"])


async def test_goodbye_comes_behind_what_is_on_the_tape_and_spreads_the_return() -> None:
    async with open_gateway() as gateway:
        clients = [await gateway.client() for _ in range(8)]
        for client in clients:
            await client.subscribe("bitcoinprice")
        retries: list[float] = []

        async def leave(client: HandMade) -> None:
            async with client:
                assert [(await client.message())["price"] for _ in range(30)] == [n + 0.5 for n in range(30)]
                retries.append(await _take_leave(client))

        gateway.publish(*(price(number, size=10_000) for number in range(30)))
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(leave, client)
            await gateway.sessions.say_goodbye("stopping", SOON_S, 30.0)
        assert trio.current_time() - began_s < SOON_S / 2, "nobody held it up"
        assert len(gateway.sessions) == 0
        assert len(set(retries)) > 4
        assert all(0 < each <= 8 / RETURNS_PER_S for each in retries)


@pytest.mark.parametrize(("clients", "longest_s"), [(1, 0.01), (2, 0.01), (2_000, 10.0), (10_000, 10.0)])
async def test_a_crowd_spreads_its_return_and_a_lone_client_comes_back_at_once(
    clients: int, longest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        monkeypatch.setattr(type(gateway.sessions), "__len__", lambda _: clients)
        drawn: list[tuple[float, float]] = []

        def draw(low: float, high: float) -> float:
            drawn.append((low, high))
            return high

        monkeypatch.setattr("random.uniform", draw)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.sessions.say_goodbye, "stopping", SOON_S, 10.0)
            waits_s = await _take_leave(client)
        assert 0 < waits_s <= longest_s
        assert (0, longest_s) in drawn or clients < 2_000


async def test_the_connection_stays_until_the_client_has_agreed_to_close() -> None:
    async with open_gateway() as gateway, await gateway.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(gateway.sessions.say_goodbye, "stopping", SOON_S, 5.0)
        await _take_leave(client, answering=False)
        with trio.move_on_after(0.1) as waiting:
            await client.stream.receive_some()
        assert waiting.cancelled_caught
        await client.say(type="ping")  # what was under way when it read the close frame
        await client.send(struct.pack("!H", 1001), CLOSE)
        await client.ended()


async def test_a_client_that_never_answers_holds_the_stop_no_longer_than_the_grace() -> None:
    async with open_gateway() as gateway, await gateway.client() as mute, await gateway.client() as good:
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_take_leave, good)
            await gateway.sessions.say_goodbye("stopping", 0.4, 5.0)
        assert 0.35 < trio.current_time() - began_s < 1.5
        await _take_leave(mute, answering=False)
        await mute.ended()


async def test_a_client_that_does_not_read_holds_the_stop_no_longer_than_the_grace() -> None:
    async with open_gateway() as gateway, await gateway.client(receive_buffer=4096) as slow:
        await slow.subscribe("bitcoinprice")
        await _make_behind(gateway)
        began_s = trio.current_time()
        await gateway.sessions.say_goodbye("stopping", 0.4, 5.0)
        assert 0.35 < trio.current_time() - began_s < 1.5
        assert len(gateway.sessions) == 0


async def test_a_ping_that_crosses_our_close_neither_holds_the_stop_nor_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """trio-websocket's reader fails over it (0.12.2), and then nobody would read the client's answer."""
    async with open_gateway() as gateway, await gateway.client() as client:
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.sessions.say_goodbye, "stopping", SOON_S, 5.0)
            await _take_leave(client, answering=False)
            await client.send(b"crossing", PING)
            await client.send(struct.pack("!H", 1001), CLOSE)
            await client.ended()
        assert trio.current_time() - began_s < SOON_S / 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_cancelling_closes_at_once() -> None:
    async with open_gateway() as gateway, await gateway.client() as idle, await gateway.client() as closing:
        await closing.send(b"x", BINARY)
        assert (await closing.closed()).code == 1003
        gateway.door.stop_accepting()
        gateway.ending.cancel()
        await idle.ended()
        await closing.ended()


async def test_a_handshake_that_is_never_answered_ends_by_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that comes through the front door gets here; a change in trio-websocket could make it so."""

    async def never(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    async with open_gateway(limits=limits(handshake_s=0.1)) as gateway:
        with monkeypatch.context() as patch:
            patch.setattr("daemon.sessions.websocket.wrap_server_stream", never)
            stream = await gateway.dial()
            with pytest.raises(AssertionError, match="no answer to the handshake"):
                await gateway.upgrade(stream)
            await stream.aclose()


async def test_messages_while_a_session_is_just_ending_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tasks are over, its connection is broken and not closed yet: nothing may try to catch it up."""
    broken = False

    def write(fd: int, data: bytes) -> int:
        if broken:
            raise BrokenPipeError
        return os.write(fd, data)

    async with open_gateway(write=write) as gateway:
        leave = gateway.sessions.leave

        async def leave_after_messages(client: ConnectedClient) -> None:
            nonlocal broken
            broken = True
            gateway.sequencer.broadcast_test("one of a pass")
            client.subscriber.stream.fd = -1
            client.subscriber.say(Pong(timestamp="", id=1))
            broken = False
            await leave(client)

        monkeypatch.setattr(gateway.sessions, "leave", leave_after_messages)
        async with await gateway.client():
            pass
        await gateway.all_gone()
        monkeypatch.undo()
        assert gateway.door.statistics().failed_count == 0
