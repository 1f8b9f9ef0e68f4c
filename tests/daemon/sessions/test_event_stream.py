"""Event streams over real sockets, through the real front door and hub: what `GET /events` promises.

That it resumes exactly, wherever it was cut, is in `test_event_resume`.
"""

import logging
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pytest
import trio
import trio.testing

from connectors.base import StateChange
from daemon.front.limits import Limits
from tests.daemon.serving import LIMITS, SOON_S, Gateway, certificate, handshake, open_gateway, policy, price
from tests.daemon.sessions.event_source import EventSource, Message

CHANNELS = "/events?channels=bitcoinprice"


def request(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: localhost", *headers, "", ""]).encode()


class Stream:
    """A client that reads an event stream.

    Attributes:
        head: status line and headers of the answer, the names in lower case.
        source: what came in.
    """

    def __init__(self, stream: trio.abc.Stream, last_id: str = "") -> None:
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self.source = EventSource(last_id)
        self._taken = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await trio.aclose_forcefully(self.stream)

    async def ask(self, sent: bytes) -> None:
        with trio.fail_after(SOON_S):
            await self.stream.send_all(sent)
            received = b""
            while b"\r\n\r\n" not in received:
                data = bytes(await self.stream.receive_some(4096))
                assert data, received
                received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.rest = rest
        if self.headers["content-type"] == "text/event-stream":
            self.source.feed(rest)

    async def error(self) -> Message:
        """The body, of an error."""
        with trio.fail_after(SOON_S):
            while len(self.rest) < int(self.headers["content-length"]):
                self.rest += bytes(await self.stream.receive_some(4096))
        decoded: Message = msgspec.json.decode(self.rest)
        return decoded

    async def more(self) -> bool:
        data = bytes(await self.stream.receive_some(65536))
        self.source.feed(data)
        return bool(data)

    async def message(self) -> Message:
        """The next one."""
        with trio.fail_after(SOON_S):
            while len(self.source.messages) <= self._taken:
                assert await self.more(), "the stream has ended"
        self._taken += 1
        return self.source.messages[self._taken - 1]

    async def until(self, tag: str) -> Message:
        while True:
            message = await self.message()
            if message["type"] == tag:
                return message

    async def leave(self) -> None:
        """Read to the end, and close."""
        await self.ended()
        await self.stream.aclose()

    async def ended(self) -> None:
        """Read to the end, which is an orderly one."""
        with trio.fail_after(SOON_S):
            while await self.more():
                pass


@asynccontextmanager
async def opened(
    gateway: Gateway, target: str = CHANNELS, *headers: str, receive_buffer: int | None = None, version: str = "1.1"
) -> AsyncIterator[Stream]:
    async with Stream(await gateway.dial(receive_buffer=receive_buffer)) as stream:
        await stream.ask(request(target, *headers, version=version))
        yield stream


async def asked(gateway: Gateway, target: str, *headers: str, method: str = "GET") -> Stream:
    """The answer to a request that opens nothing."""
    stream = Stream(await gateway.dial())
    await stream.ask(request(target, *headers, method=method))
    return stream


def limited(**changes: float) -> Limits:
    return msgspec.structs.replace(LIMITS, **changes)


# ---- what comes -----------------------------------------------------------------------------------------------------


async def test_prices_come_at_once_and_each_message_is_as_on_the_websocket() -> None:
    async with open_gateway() as gateway:
        gateway.publish(StateChange("bitcoinprice", "live"), price(1), price(9, channel="ethprice"), price(2))
        async with opened(gateway) as stream, await gateway.client() as websocket:
            await websocket.say(type="subscribe", channels=["bitcoinprice"])
            assert (await stream.message())["type"] == "welcome"
            for _ in range(3):
                one, other = await stream.message(), await websocket.message()
                assert one | {"timestamp": ""} == other | {"timestamp": ""}
            assert one["price"] == 2.5
            gateway.publish(
                price(3), StateChange("bitcoinprice", "stale", "silence"), price(4), price(8, channel="ethprice")
            )
            for _ in range(3):
                assert await stream.message() == await websocket.message()
            gateway.sequencer.broadcast_test("hello")
            assert gateway.hub.statistics().subscribers == 2
            assert (await stream.message())["message"] == "hello"


async def test_the_answer_is_for_a_browser_and_for_what_stands_in_between() -> None:
    async with open_gateway() as gateway, opened(gateway) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-cache, no-transform, no-store"
        assert stream.headers["content-encoding"] == "identity"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["x-content-type-options"] == "nosniff"
        assert stream.headers["connection"] == "close"
        assert stream.headers["access-control-allow-origin"] == "*"
        assert not stream.headers.keys() & {"content-length", "transfer-encoding"}
        await stream.until("status")
        assert stream.source.retry_ms in range(1000, 4001)


async def test_ids_are_positions_and_only_data_has_them() -> None:
    async with open_gateway() as gateway:
        epoch = gateway.tape.epoch
        gateway.publish(price(1), price(2, channel="ethprice"))
        async with opened(gateway) as stream:
            gateway.publish(StateChange("bitcoinprice", "live"), price(3))
            gateway.sequencer.broadcast_test("hello")
            await stream.until("test")
            ids = dict(zip([each["type"] for each in stream.source.messages], stream.source.ids, strict=True))
            assert ids == {
                "welcome": "",
                "subscribed": "",
                "status": f"{epoch}-2",  # the snapshot's position; the status itself says nothing
                "price_update": f"{epoch}-4",
                "test": f"{epoch}-4",
            }


async def test_the_options_are_those_of_a_subscribe() -> None:
    async with open_gateway() as gateway:
        gateway.publish(price(1), price(2, channel="ethprice"))
        async with opened(gateway, "/events?channels=bitcoinprice&channels=ethprice&instruments=ETH/USDT") as stream:
            assert (await stream.until("price_update"))["instrument"] == "ETH/USDT"
        async with opened(gateway, "/events?channels=*&snapshot=false&interval_ms=50") as stream:
            assert (await stream.until("subscribed"))["channels"] == ["bitcoinprice", "ethprice"]
            gateway.publish(price(3), price(4))
            update = await stream.until("price_update")
            assert (update["price"], update["prev_seq"]) == (4.5, 3)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_http_1_0_gets_the_same(version: str) -> None:
    async with open_gateway() as gateway, opened(gateway, version=version) as stream:
        assert "transfer-encoding" not in stream.headers
        gateway.publish(price(1))
        assert (await stream.until("price_update"))["price"] == 1.5


async def test_every_client_gets_the_tapes_own_bytes() -> None:
    """A pass frames and joins once for all of them, whatever their number."""
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        written.append(data)
        return os.write(fd, data)

    async with open_gateway(write=write) as gateway, opened(gateway) as one, opened(gateway) as other:
        await one.until("status")
        await other.until("status")
        gateway.publish(price(1))
        assert (await one.message(), len(written)) == (await other.message(), 2)
        assert written[0] is written[1]


# ---- coming back ----------------------------------------------------------------------------------------------------


async def test_last_event_id_brings_exactly_what_was_missed() -> None:
    async with open_gateway() as gateway:
        async with opened(gateway) as stream:
            gateway.publish(price(1))
            await stream.until("price_update")
            last_id = stream.source.last_id
        gateway.publish(price(2), price(9, channel="ethprice"), price(3))
        for target, *headers in (
            (CHANNELS, f"Last-Event-ID: {last_id}"),
            (f"{CHANNELS}&last_event_id={last_id}",),
            (f"{CHANNELS}&lastEventId={last_id}",),
            (f"{CHANNELS}&lasteventid={last_id}",),
            (f"{CHANNELS}&last-event-id={last_id}",),
            (f"{CHANNELS}&Last-Event-ID={last_id}",),
            (f"{CHANNELS}&lastEventId=&last_event_id={last_id}",),
            (f"{CHANNELS}&lastEventId=other-1", f"Last-Event-ID: {last_id}"),
            (f"{CHANNELS}&last_event_id=other-1", f"Last-Event-ID: {last_id}"),
        ):
            async with opened(gateway, target, *headers) as stream:
                assert (await stream.until("subscribed"))["recovered"] == {"bitcoinprice": True}
                assert [(await stream.until("price_update"))["price"] for _ in range(2)] == [2.5, 3.5]


@pytest.mark.parametrize("last_id", ["k3v-1", "17", "-", "{tape}-x", "{tape}-99999", "{tape}--1", "\xff", "a" * 500])
async def test_an_id_that_is_no_position_here_is_answered_with_the_snapshot(last_id: str) -> None:
    async with open_gateway() as gateway:
        gateway.publish(price(1))
        last_id = last_id.replace("{tape}", gateway.tape.epoch)
        async with Stream(await gateway.dial()) as stream:
            await stream.ask(request(CHANNELS, f"Last-Event-ID: {last_id}").decode().encode("latin-1"))
            subscribed = await stream.until("subscribed")
            assert subscribed["recovered"] == {"bitcoinprice": False}
            assert subscribed["reason"]
            assert (await stream.until("price_update"))["price"] == 1.5
            errors = [each["message"] for each in stream.source.messages if each["type"] == "error"]
            assert bool(errors) == (last_id in ("17", "-", f"{gateway.tape.epoch}-x", "\xff", "a" * 500))
            assert all("Last-Event-ID" in each for each in errors)
            gateway.publish(price(2))
            await stream.until("price_update")
            assert stream.source.last_id == f"{gateway.tape.epoch}-2"


async def test_a_slow_reader_is_behind_and_then_has_everything() -> None:
    async with open_gateway() as gateway, opened(gateway, receive_buffer=4096) as slow, opened(gateway) as good:
        for number in range(200):
            gateway.publish(price(number, size=20_000))
            assert (await good.until("price_update"))["price"] == number + 0.5
        assert gateway.hub.statistics().behind == 1
        assert [(await slow.until("price_update"))["price"] for _ in range(200)] == [n + 0.5 for n in range(200)]
        gateway.publish(price(200))
        assert (await slow.until("price_update"))["price"] == 200.5
        assert slow.source.last_id == f"{gateway.tape.epoch}-201"
        assert gateway.hub.statistics().behind == 0


async def test_who_reads_too_slowly_is_told_exactly_how_much_it_missed() -> None:
    async with open_gateway() as gateway, opened(gateway, receive_buffer=4096) as slow:
        await slow.until("status")
        gateway.tape.max_entries = 50
        for number in range(400):
            gateway.publish(price(number, size=20_000))
        seen: list[int] = []
        while (message := await slow.message())["type"] == "price_update":
            seen.append(message["seq"])
        assert message["type"] == "lagged"
        assert seen == list(range(1, len(seen) + 1))
        assert (message["from_seq"], message["to_seq"], message["missed"]) == (len(seen) + 1, 400, 399 - len(seen))
        assert (await slow.message())["seq"] == 400
        gateway.publish(price(400))
        assert (await slow.message())["prev_seq"] == 400


# ---- being let in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status", "code", "said"),
    [
        ("", 400, "invalid_field", "there are: bitcoinprice, ethprice"),
        ("?channels=", 400, "invalid_field", "there are: bitcoinprice, ethprice"),
        ("?channel=bitcoinprice", 400, "invalid_field", "it is channels"),
        ("?channels=bitcoinprise", 404, "unknown_channel", "bitcoinprice"),
        ("?channels=bitcoinprice&instruments=BTC/USD", 404, "unknown_instrument", "BTC/USDT"),
        ("?channels=*&instruments=", 400, "invalid_field", "instruments"),
        ("?channels=*&interval_ms=49", 400, "invalid_field", "50 to 3600000"),
        ("?channels=*&interval_ms=fast", 400, "invalid_field", "interval_ms: 'fast'"),
        ("?channels=*&interval_ms=100&interval_ms=200", 400, "invalid_field", "2 times"),
        ("?channels=*&snapshot=no", 400, "invalid_field", "snapshot: 'no'"),
        ("?channels=" + ",".join("abcdefghi"), 400, "too_many_channels", "9 names; at most 8"),
    ],
)
async def test_mistakes_in_the_query_are_explained(query: str, status: int, code: str, said: str) -> None:
    async with open_gateway() as gateway, await asked(gateway, f"/events{query}") as stream:
        error = await stream.error()
        assert (stream.status, error["type"], error["code"]) == (status, "error", code)
        assert said in error["message"]
        assert gateway.hub.statistics().subscribers == 0


async def test_what_is_known_of_it_takes_effect_as_on_the_websocket() -> None:
    async with open_gateway() as gateway, opened(gateway, "/events?channels=nonsense,ethprice") as stream:
        assert (await stream.until("error"))["code"] == "unknown_channel"
        assert (await stream.message())["channels"] == ["ethprice"]


async def test_head_is_answered_with_the_same_head_and_nothing_else() -> None:
    async with open_gateway() as gateway, await asked(gateway, CHANNELS, method="HEAD") as head, opened(gateway) as get:
        assert head.headers | {"date": ""} == get.headers | {"date": ""}
        await head.ended()
        assert head.rest == b""
        assert head.source.messages == []
        assert len(gateway.sessions) == 1


async def test_other_methods_are_refused() -> None:
    async with open_gateway() as gateway, await asked(gateway, CHANNELS, method="POST") as stream:
        assert (stream.status, stream.headers["allow"]) == (405, "GET, HEAD")


async def test_a_mistake_does_not_end_the_connection() -> None:
    async with open_gateway() as gateway, await asked(gateway, "/events?channels=bitcoinprise") as stream:
        await stream.error()
        await stream.ask(request(CHANNELS))
        assert stream.status == 200
        assert (await stream.message())["type"] == "welcome"


async def test_clients_are_counted_together_with_those_of_the_websocket() -> None:
    async with open_gateway() as gateway:
        before = gateway.door.admission.policy
        limits = msgspec.structs.replace(before.limits, clients=2)
        gateway.door.admission.policy = msgspec.structs.replace(before, limits=limits)
        async with opened(gateway), await gateway.client():
            async with await asked(gateway, CHANNELS) as third:
                assert third.status == 503
                assert int(third.headers["retry-after"]) > 0
                assert (await third.error())["code"] == "full"
            async with await gateway.dial() as fourth:
                await fourth.send_all(handshake())
                assert bytes(await fourth.receive_some(12)) == b"HTTP/1.1 503"
        with trio.fail_after(SOON_S):
            await gateway.all_gone()
            await trio.testing.wait_all_tasks_blocked()
        assert gateway.door.statistics().clients_open == 0


async def test_pages_of_other_origins_are_let_in_only_where_they_are_listed() -> None:
    async with open_gateway() as gateway:
        admission = gateway.door.admission
        async with opened(gateway, CHANNELS, "Origin: https://other.example") as other:
            assert other.headers["access-control-allow-origin"] == "*"
        admission.policy = policy(admission.limits, origins=frozenset())
        async with await asked(gateway, CHANNELS, "Origin: https://other.example") as refused:
            assert (refused.status, (await refused.error())["code"]) == (403, "forbidden")
        async with opened(gateway, CHANNELS, "Origin: http://localhost") as own:
            assert "access-control-allow-origin" not in own.headers
        admission.policy = policy(admission.limits, origins=frozenset({"https://listed.example"}))
        async with opened(gateway, CHANNELS, "Origin: https://listed.example") as listed:
            assert listed.headers["access-control-allow-origin"] == "https://listed.example"
            assert listed.headers["vary"] == "Origin"
        async with await asked(gateway, "/channels", "Origin: https://listed.example") as plain:
            assert plain.headers["access-control-allow-origin"] == "https://listed.example"
        async with await asked(gateway, "/channels", "Origin: https://other.example") as plain:
            assert "access-control-allow-origin" not in plain.headers
            assert plain.headers["vary"] == "Origin"


# ---- going ----------------------------------------------------------------------------------------------------------


async def test_a_client_that_goes_is_noticed_and_costs_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_gateway() as gateway:
        async with opened(gateway) as stream:
            await stream.until("status")
            assert len(gateway.sessions) == 1
        await gateway.all_gone()
        assert (len(gateway.sessions), gateway.hub.statistics().subscribers) == (0, 0)
        said = [record.getMessage() for record in caplog.records]
        assert "client 127.0.0.1 connected (sse)" in said
        assert any(line.startswith("client 127.0.0.1 closed: ") for line in said)


async def test_a_client_that_is_reset_is_noticed() -> None:
    async with open_gateway() as gateway:
        dialled = await gateway.dial()
        async with Stream(dialled) as stream:
            await stream.ask(request(CHANNELS))
            await stream.until("status")
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await gateway.all_gone()


async def test_what_comes_behind_the_request_is_ignored_up_to_a_limit() -> None:
    async with open_gateway() as gateway:
        async with Stream(await gateway.dial()) as stream:
            await stream.ask(request(CHANNELS) + request("/channels") + b"\x00garbage\r\n")
            assert (await stream.message())["type"] == "welcome"
            await stream.stream.send_all(b"x" * 1000)
            await stream.until("status")
            gateway.publish(price(1))
            assert (await stream.message())["price"] == 1.5
            with trio.fail_after(SOON_S), suppress(trio.BrokenResourceError):
                while True:
                    await stream.stream.send_all(b"x" * 10_000)
        await gateway.all_gone()


async def test_the_sweeper_pings_with_a_comment_and_the_position() -> None:
    async with open_gateway(limits=limited(ping_every_s=0.0)) as gateway, opened(gateway) as stream:
        await stream.until("status")
        gateway.publish(price(9, channel="ethprice"))
        await gateway.sessions.sweep()
        gateway.publish(price(1))
        await stream.until("price_update")
        assert stream.source.comments == ["ping"]
        gateway.publish(price(9, channel="ethprice"))
        await gateway.sessions.sweep()
        with trio.fail_after(SOON_S):
            while len(stream.source.comments) < 2 or stream.source.torn:
                await stream.more()
        assert stream.source.last_id == f"{gateway.tape.epoch}-3"


async def test_who_sends_nothing_is_not_dead_but_the_kernel_watches() -> None:
    limits = limited(silent_after_s=0.0, write_deadline_s=3.0)
    async with open_gateway(limits=limits) as gateway, opened(gateway) as stream:
        await stream.until("status")
        await gateway.sessions.sweep()
        gateway.publish(price(1))
        assert (await stream.message())["price"] == 1.5
        [session] = gateway.sessions
        with socket.socket(fileno=os.dup(session.stream.fd)) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000


async def test_who_takes_nothing_is_dropped_with_a_word() -> None:
    async with open_gateway(limits=limited(write_deadline_s=0.0)) as gateway:
        async with opened(gateway, receive_buffer=4096) as slow:
            await slow.until("status")
            while not gateway.hub.statistics().behind:
                gateway.publish(price(1, size=100_000))
            await trio.sleep(0.05)
            await gateway.sessions.sweep()
            goodbye = await slow.until("goodbye")
            assert goodbye["code"] == 4000
            assert "slow consumer" in goodbye["reason"]
            await slow.ended()
            assert not slow.source.torn
        await gateway.all_gone()


async def _stop(gateway: Gateway, *streams: Stream) -> None:
    """Stop as the daemon does; each client must have everything, a `goodbye`, and an orderly end."""
    async with trio.open_nursery() as nursery:
        gateway.door.stop_accepting()
        gateway.publish(price(1))
        nursery.start_soon(gateway.sessions.say_goodbye, "the daemon is stopping", SOON_S, 10.0)
        for stream in streams:
            nursery.start_soon(stream.leave)
    for stream in streams:
        update, goodbye = stream.source.messages[-2:]
        assert (update["type"], goodbye["type"], goodbye["code"]) == ("price_update", "goodbye", 1001)
        assert stream.source.retry_ms == round(goodbye["retry_after_s"] * 1000)
        assert stream.source.last_id == f"{gateway.tape.epoch}-1"
    assert len(gateway.sessions) == 0


async def test_a_planned_stop_is_announced_and_then_the_stream_ends() -> None:
    async with open_gateway() as gateway, opened(gateway) as one, opened(gateway) as other:
        await one.until("status")
        await other.until("status")
        with trio.fail_after(SOON_S):
            await _stop(gateway, one, other)


async def test_a_bug_in_one_stream_harms_nobody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_gateway() as gateway, opened(gateway) as good:
        await good.until("status")
        with monkeypatch.context() as broken:
            broken.setattr("daemon.fanout.joining.Joining.join", lambda *_: 1 / 0)
            async with opened(gateway) as stream:
                await stream.ended()
        assert "ZeroDivisionError" in caplog.text
        gateway.publish(price(1))
        assert (await good.message())["price"] == 1.5


# ---- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and one that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    pem, key = certificate(folder)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem, key)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_over_tls_it_is_the_same_to_the_end(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    tls, trusting = contexts
    async with open_gateway(tls=tls, trusting=trusting) as gateway:

        async def secure(**options: int) -> Stream:
            stream = trio.SSLStream(await gateway.dial(**options), trusting, server_hostname="localhost")
            return Stream(stream)

        async with await secure() as one, await secure() as other, await secure(receive_buffer=4096) as slow:
            for each in (one, other, slow):
                await each.ask(request(CHANNELS + "&snapshot=false"))
                await each.until("status")
            with trio.fail_after(SOON_S):
                # No https_compatible: the end must be signed, or this raises.
                await _stop(gateway, one, other, slow)


async def test_a_slow_reader_over_tls_has_everything_in_the_end(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    tls, trusting = contexts
    async with open_gateway(tls=tls, trusting=trusting) as gateway:
        dialled = trio.SSLStream(await gateway.dial(receive_buffer=4096), trusting, server_hostname="localhost")
        async with Stream(dialled) as slow:
            await slow.ask(request(CHANNELS))
            for number in range(200):
                gateway.publish(price(number, size=20_000))
                await trio.lowlevel.checkpoint()
            assert [(await slow.until("price_update"))["price"] for _ in range(200)] == [n + 0.5 for n in range(200)]


async def test_an_event_source_that_comes_back_after_a_flood_has_all_of_the_quiet_channel() -> None:
    async with open_gateway() as gateway:
        gateway.publish(price(1, channel="ethprice"))
        last_id = f"{gateway.tape.epoch}-1"
        for number in range(0, 2 * gateway.tape.max_entries, 1000):
            gateway.sequencer.publish([[price(number + each) for each in range(1000)]])
            gateway.publish(price(number, channel="ethprice"))
        async with opened(gateway, "/events?channels=ethprice", f"Last-Event-ID: {last_id}") as stream:
            assert (await stream.until("subscribed"))["recovered"] == {"ethprice": True}
            found = [(await stream.until("price_update"))["price"] for _ in range(20)]
            assert found == [number + 0.5 for number in range(0, 2 * gateway.tape.max_entries, 1000)]
            assert stream.source.last_id == f"{gateway.tape.epoch}-{gateway.tape.head}"
