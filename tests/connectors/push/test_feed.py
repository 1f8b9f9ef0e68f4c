"""One connection to a venue, from connecting to its end: in memory with a jumping clock, at the edges over sockets.

How one connection takes over from another is in `test_handover`.
"""

import base64
import gc
import hashlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import inf

import pytest
import trio
import trio.testing
from trio_websocket import (
    WebSocketConnection,
    WebSocketRequest,
    serve_websocket,
    wrap_server_stream,
)

from connectors.base import (
    ConnectorError,
    Event,
    PayloadError,
    StateChange,
    VenueClosed,
    VenueRefused,
    VenueUnavailable,
)
from connectors.push import connection
from connectors.push.address import Address
from connectors.push.feed import Feed
from connectors.push.inlet import BATCHES
from connectors.push.intake import FeedStatistics
from connectors.push.venue import Conversation, Ignored
from protocol.frames import close_frame, ping_frame, text_frame
from tests.connectors.push.scripted_venue import Hub, Script, Venue, Words, say


@pytest.fixture
def hub() -> Hub:
    return Hub()


def make_feed(*instruments: str, url: str = "ws://venue/public", timeout_s: float = 10) -> Feed:
    return Feed(Words(*instruments), url, user_agent="tickerd/test", data_s=30, timeout_s=timeout_s)


async def failure_of(feed: Feed, hub: Hub) -> ConnectorError:
    """Run it until it raises, as a supervisor would: one plain error must come out."""
    with trio.fail_after(20_000), pytest.raises(ConnectorError) as caught:
        await feed.run(hub)
    return caught.value


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> Callable[[Script], Venue]:
    """Gives the feed a scripted venue for its dials."""

    def install(script: Script) -> Venue:
        venue = Venue(script)
        venue.nursery = nursery
        monkeypatch.setattr(connection, "dial", venue.dial)
        return venue

    return install


class TestSession:
    """In memory: hours pass in no time."""

    async def test_data_is_published_in_order_until_the_venue_hangs_up(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await say("ok a", "a 1.10", "news", "a 1.2", "pong", "a 1.30")(websocket)
            await websocket.aclose(4004, "No data received in 30s")

        venue = in_memory(script)
        feed = make_feed("a")
        error = await failure_of(feed, hub)
        assert isinstance(error, VenueUnavailable)
        assert str(error) == "the connection to Words closed: 4004 No data received in 30s"
        assert hub.prices == ["1.10", "1.2", "1.30"]
        assert hub.changes == []
        assert venue.heard == ["give a"]
        [(path, headers)] = venue.paths
        assert path == "/public"
        assert headers[b"user-agent"] == b"tickerd/test"
        assert feed.statistics() == FeedStatistics(connections=1, frames=6, events=3, ignored=1)

    async def test_what_is_known_of_a_connection_that_is_over_does_not_wait_for_the_collector(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        class Talk(Conversation):
            def handle(self, payload: bytes, received_ms: int) -> Ignored:
                return Ignored("news")

        talks: list[weakref.ref[Talk]] = []

        class Talking(Words):
            def converse(self) -> Talk:
                talk = Talk()
                talks.append(weakref.ref(talk))
                return talk

        in_memory(say("news"))
        feed = Feed(Talking("a"), "ws://venue/public", user_agent="tickerd/test", data_s=30, timeout_s=10)
        gc.collect()
        gc.disable()
        try:
            error = await failure_of(feed, hub)
            assert [talk() for talk in talks] == [None], error
        finally:
            gc.enable()

    async def test_silence_despite_pongs(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        venue = in_memory(say("ok a"))
        error = await failure_of(make_feed("a"), hub)
        assert str(error) == "Words sent no data for 30 s though it answers pings"
        assert isinstance(error, VenueUnavailable)
        assert trio.current_time() == pytest.approx(30, abs=1)
        assert venue.heard == ["give a", "ping"]
        [reason] = venue.closes
        assert reason is not None
        assert reason.code == 1000

    async def test_silence_after_data(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        in_memory(say("a 1", every_s=25, times=4))
        error = await failure_of(make_feed("a"), hub)
        assert str(error) == "Words sent no data for 30 s though it answers pings"
        assert hub.prices == ["1"] * 4
        assert trio.current_time() == pytest.approx(75 + 30, abs=1)

    async def test_a_lone_rare_instrument_does_not_cost_a_connection_every_half_minute(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        venue = in_memory(say("ok a", "a 1"))
        feed = make_feed("a")
        lasted_s = []
        for _ in range(7):
            began_s = trio.current_time()
            await failure_of(feed, hub)
            lasted_s.append(trio.current_time() - began_s)
        assert lasted_s == pytest.approx([30, 60, 120, 240, 480, 900, 900], abs=1)
        # It trades again, and then not: that is a venue that has fallen silent.
        venue.script = say("ok a", "a 1", "a 2", every_s=20, times=3)
        await failure_of(feed, hub)
        began_s = trio.current_time()
        venue.script = say("ok a")
        error = await failure_of(feed, hub)
        assert trio.current_time() - began_s == pytest.approx(30, abs=1)
        assert str(error) == "Words sent no data for 30 s though it answers pings"

    async def test_a_half_open_connection(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        venue = in_memory(say("a 1", every_s=1, times=3))
        venue.answers_pings = False
        feed = make_feed("a")
        feed.silence_s = 300
        error = await failure_of(feed, hub)
        assert str(error) == "Words sent nothing for 30 s, not even an answer to a ping"
        assert trio.current_time() == pytest.approx(32, abs=1)

    async def test_an_illiquid_instrument_is_stale_and_costs_the_others_nothing(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await say("ok a", "ok b")(websocket)
            await say("a 1", every_s=10, times=360)(websocket)
            await say("b 7")(websocket)
            await websocket.aclose(1001)

        in_memory(script)
        error = await failure_of(make_feed("a", "b"), hub)
        assert str(error) == "the connection to Words closed: 1001"
        assert hub.changes == [StateChange("bprice", "stale", "no data from Words for 30 s: B")]
        assert hub.prices == ["1"] * 360 + ["7"]

    async def test_a_subscription_without_an_answer_is_told_and_asked_again(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await say("ok a", "a 1")(websocket)
            await trio.sleep(26)
            await websocket.aclose(1001)

        venue = in_memory(script)
        await failure_of(make_feed("a", "b"), hub)
        assert venue.heard == ["give a", "give b", "ping", "give b"]
        reason = "Words did not answer the subscription of B in 10 s"
        assert hub.changes == [StateChange("bprice", "stale", reason, 15)]

    async def test_an_unknown_instrument_is_set_aside_also_on_the_next_connection(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await trio.sleep(1)
            if len(venue.paths) == 1:
                await say("no b")(websocket)
            await say("a 1")(websocket)
            await websocket.aclose(1001)

        venue = in_memory(script)
        feed = make_feed("a", "b")
        for _ in range(2):
            await failure_of(feed, hub)
        assert hub.prices == ["1", "1"]
        assert venue.heard == ["give a", "give b", "give a"]
        down = "unknown to Words: B (set aside, asked again in 1 min)"
        assert [(change.channel, change.state, change.reason) for change in hub.changes] == [
            ("bprice", "down", down)
        ] * 2

    async def test_a_refusal_during_a_listings_hiccup_costs_a_minute_on_the_same_connection(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        came_s: dict[str, float] = {}

        async def script(websocket: WebSocketConnection) -> None:
            began_s = trio.current_time()
            await say("ok a", "no b")(websocket)
            for second in range(200):
                await say(f"a {second}")(websocket)
                if venue.heard.count("give b") == 2:
                    came_s.setdefault("b", trio.current_time() - began_s)
                    await say("ok b", f"b {second}")(websocket)
                await trio.sleep(1)
            await websocket.aclose(1001)

        venue = in_memory(script)
        await failure_of(make_feed("a", "b"), hub)
        assert came_s["b"] == pytest.approx(60, abs=2)
        assert len(venue.paths) == 1
        down = "unknown to Words: B (set aside, asked again in 1 min)"
        assert hub.changes == [StateChange("bprice", "down", down, 60)]
        assert hub.prices.count("199") == 2

    async def test_all_refused(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await trio.sleep(1)
            await say("no a", "no b")(websocket)

        venue = in_memory(script)
        feed = make_feed("a", "b")
        error = await failure_of(feed, hub)
        assert isinstance(error, VenueRefused)
        assert str(error) == "unknown to Words: A, unknown to Words: B"
        assert error.retry_after_s == pytest.approx(60, abs=1)
        # Until then there is nothing to connect for.
        again = await failure_of(feed, hub)
        assert isinstance(again, VenueRefused)
        assert len(venue.paths) == 1
        await trio.sleep(60)
        await failure_of(feed, hub)
        assert len(venue.paths) == 2

    async def test_a_busy_venue_is_asked_again(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await say("later a")(websocket)
            await trio.sleep(16)
            await say("a 1")(websocket)
            await websocket.aclose(1001)

        venue = in_memory(script)
        await failure_of(make_feed("a"), hub)
        assert venue.heard == ["give a", "give a"]
        assert hub.changes == [StateChange("aprice", "stale", "Words is busy", 15)]

    async def test_pings_while_we_are_closing_do_not_hide_the_reason(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            # trio-websocket's reader cannot answer these once we have begun to close, and raises.
            with suppress(trio.BrokenResourceError):
                await venue.far[0].send_all(text_frame(b"no a") + ping_frame())
                while True:
                    await venue.far[0].send_all(ping_frame())
                    await trio.sleep(0.01)

        venue = in_memory(script)
        assert str(await failure_of(make_feed("a"), hub)) == "unknown to Words: A"

    async def test_the_venues_own_ping_text_is_answered(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        venue = in_memory(say("ping", "a 1"))
        await failure_of(make_feed("a"), hub)
        assert venue.heard[:2] == ["give a", "pong"]

    async def test_garbage_is_borne_in_small_doses_only(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        in_memory(say("what is this?", "a 1", *["???"] * 11))
        error = await failure_of(make_feed("a"), hub)
        assert isinstance(error, PayloadError)
        assert str(error) == "too much cannot be read; at last: Words sent b'???'"
        assert hub.prices == ["1"]

    @pytest.mark.parametrize("code", [1000, 1001, 1006, 1009, 1011, 3000, 4001, 4002, 4004, 4006, 4999])
    async def test_close_codes(
        self, code: int, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            if code == 1006:
                await trio.aclose_forcefully(venue.streams[0])
            else:
                await websocket.aclose(code, "so\nthere")

        venue = in_memory(script)
        error = await failure_of(make_feed("a"), hub)
        assert isinstance(error, VenueRefused) == (code == 4002)
        assert isinstance(error, VenueUnavailable) == (code != 4002)
        if code == 1006:
            assert str(error) == "Words dropped the connection"
        else:
            assert str(error) == f"the connection to Words closed: {code} so there"

    async def test_cancellation_says_goodbye_and_leaves_nothing(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        venue = in_memory(say("a 1", every_s=1, times=1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_feed("a").run, hub)
            await hub.first.wait()
            # Not while the subscription is being sent: behind half a frame there is no goodbye.
            await trio.sleep(0.5)
            before = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - before < 1
        await trio.testing.wait_all_tasks_blocked()
        [reason] = venue.closes
        assert reason is not None
        assert reason.code == 1000

    async def test_a_busy_hub_slows_the_venue_and_is_not_taken_for_silence(
        self, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, hub: Hub
    ) -> None:
        # Lockstep: a send returns when it has been received, so what is sent is what is held.
        near, far = trio.testing.lockstep_stream_pair()
        sent = 0

        async def dial(address: Address, **_: object) -> trio.abc.Stream:
            return near

        async def blast() -> None:
            nonlocal sent
            async with trio.open_nursery() as reader:
                request = await wrap_server_stream(reader, far)
                await request.accept()
                while True:
                    await far.send_all(text_frame(b"a %d" % sent))
                    sent += 1

        monkeypatch.setattr(connection, "dial", dial)
        hub.open = trio.Event()
        nursery.start_soon(blast)
        nursery.start_soon(make_feed("a").run, hub)
        await trio.sleep(1000)
        assert sent <= BATCHES + 3
        assert (hub.prices, hub.changes) == ([], [])
        hub.open.set()
        await hub.hundred.wait()
        assert hub.prices[:100] == [str(n) for n in range(100)]
        nursery.cancel_scope.cancel()

    async def test_a_venue_that_never_reads_is_given_up(
        self, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, hub: Hub
    ) -> None:
        near, far = trio.testing.lockstep_stream_pair()

        async def dial(address: Address, **_: object) -> trio.abc.Stream:
            return near

        monkeypatch.setattr(connection, "dial", dial)

        async def shake_hands() -> None:
            async with trio.open_nursery() as reader:
                request = await wrap_server_stream(reader, far)
                await request.accept()
                reader.cancel_scope.cancel()

        nursery.start_soon(shake_hands)
        assert str(await failure_of(make_feed("a"), hub)) == "Words does not read what is sent to it"

    async def test_a_slow_opening_handshake_is_no_silence(
        self,
        autojump_clock: trio.testing.MockClock,
        in_memory: Callable[[Script], Venue],
        hub: Hub,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await trio.sleep(1)
            await say("ok a", "a 1")(websocket)

        venue = in_memory(script)

        async def slow_dial(address: Address, **_: object) -> trio.abc.Stream:
            await trio.sleep(25)
            return await venue.dial(address)

        monkeypatch.setattr(connection, "dial", slow_dial)
        await failure_of(make_feed("a"), hub)
        assert trio.current_time() == pytest.approx(25 + 1 + 30, abs=1)
        assert hub.changes == []

    async def test_a_flood_of_the_venues_pings_is_survived(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        frames = text_frame(b"ping") * 1000 + text_frame(b"a 1")

        async def script(websocket: WebSocketConnection) -> None:
            await venue.far[0].send_all(frames)

        venue = in_memory(script)
        await failure_of(make_feed("a"), hub)
        assert hub.prices == ["1"]
        assert 1 <= venue.heard.count("pong") <= 100

    async def test_connects_are_spaced(
        self, autojump_clock: trio.testing.MockClock, in_memory: Callable[[Script], Venue], hub: Hub
    ) -> None:
        async def script(websocket: WebSocketConnection) -> None:
            await websocket.aclose(1001)

        venue = in_memory(script)
        feed = make_feed("a")
        start = trio.current_time()
        for _ in range(4):
            await failure_of(feed, hub)
        assert len(venue.paths) == 4
        assert trio.current_time() - start == pytest.approx(0.9)

    async def test_a_bug_is_not_taken_for_the_venues_fault(
        self,
        autojump_clock: trio.testing.MockClock,
        in_memory: Callable[[Script], Venue],
        hub: Hub,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(self: Words, payload: bytes, received_ms: int) -> list[Event]:
            raise ZeroDivisionError

        in_memory(say("a 1"))
        monkeypatch.setattr(Words, "handle", broken)
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            await make_feed("a").run(hub)


# ---- real sockets ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def server(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """Answers each connection by hand; yields the URL."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/public"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def websocket_server(script: Script) -> AsyncIterator[str]:
    async def handler(request: WebSocketRequest) -> None:
        await script(await request.accept())

    async with trio.open_nursery() as nursery:
        running = await nursery.start(serve_websocket, handler, "127.0.0.1", 0, None)
        yield f"ws://127.0.0.1:{running.port}/public"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            VenueRefused,
            "refuses to serve this address: HTTP 403",
        ),
        (b"HTTP/1.1 451 X\r\nContent-Length: 0\r\n\r\n", VenueRefused, "refuses to serve this address: HTTP 451"),
        (
            b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
            VenueUnavailable,
            "answered the opening handshake with HTTP 503",
        ),
        (
            b"HTTP/1.1 301 X\r\nContent-Length: 0\r\n\r\n",
            VenueUnavailable,
            "answered the opening handshake with HTTP 301",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            VenueUnavailable,
            "answered the opening handshake with HTTP 200",
        ),
        (
            b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n",
            VenueUnavailable,
            "does not speak the websocket protocol",
        ),
        (b"220 smtp ready\r\n\r\n", VenueUnavailable, "does not speak the websocket protocol"),
        (b"", VenueClosed, "hung up during the opening handshake"),
        (b"HTTP/1.1 101", VenueClosed, "hung up during the opening handshake"),
    ],
)
async def test_answers_to_the_opening_handshake(answer: bytes, kind: type[ConnectorError], why: str, hub: Hub) -> None:
    async def reply(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with server(reply) as url:
        error = await failure_of(make_feed("a", url=url), hub)
    assert (type(error), str(error)) == (kind, f"Words {why}")


@pytest.mark.parametrize(("asked", "granted_s"), [("17", 17), ("999999", 3600), ("soon", None), ("-1", None)])
async def test_a_wait_that_the_venue_asks_for_is_passed_on(hub: Hub, asked: str, granted_s: float | None) -> None:
    async def reply(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(f"HTTP/1.1 429 X\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n".encode())

    async with server(reply) as url:
        assert (await failure_of(make_feed("a", url=url), hub)).retry_after_s == granted_s


async def test_no_answer_at_all(hub: Hub) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with server(silent) as url:
        error = await failure_of(make_feed("a", url=url, timeout_s=0.1), hub)
    assert str(error) == "Words did not answer the opening handshake in 0.1 s"


async def test_nobody_there(hub: Hub) -> None:
    async with server(trio.aclose_forcefully) as url:
        pass
    error = await failure_of(make_feed("a", url=url), hub)
    assert str(error) == "no connection to 127.0.0.1: Connection refused"


async def test_a_conversation_over_a_socket_with_pings_and_fragments(hub: Hub) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        assert await websocket.get_message() == "give a"
        await websocket.send_message("a 1")
        await websocket.ping(b"alive?")
        await websocket.send_message("a 2")
        await websocket.aclose(1012, "restart")

    async with websocket_server(script) as url:
        with trio.fail_after(5):
            error = await failure_of(make_feed("a", url=url), hub)
    assert str(error) == "the connection to Words closed: 1012 restart"
    assert hub.prices == ["1", "2"]


GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def by_hand(frames: bytes, hub: Hub) -> ConnectorError:
    """The end of a connection on which the venue sends these bytes in one piece with a lawful handshake."""

    async def raw(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        key = head.lower().partition(b"sec-websocket-key: ")[0]
        key = head[len(key) :].split(b"\r\n")[0].split()[1]
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        upgrade = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        with suppress(trio.BrokenResourceError):
            await stream.send_all(upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frames)
            while await stream.receive_some():
                continue

    async with server(raw) as url:
        with trio.fail_after(5):
            return await failure_of(make_feed("a", url=url), hub)


@pytest.mark.parametrize(
    ("frames", "prices", "why"),
    [
        (b"\x01\x02a \x89\x00\x80\x011" + text_frame(b"a 2") + close_frame(1000), ["1", "2"], "closed: 1000"),
        (text_frame(b"a 1") + b"\xc1\x00", ["1"], "closed: 1002"),
        (text_frame(b"a 1") + b"\x81\x81mask", ["1"], "closed: 1002"),
        (text_frame(b"a 1") + b"\x01\x01\xff\x80\x01\xff", ["1"], "closed: 1007"),
        (text_frame(b"a 1") + b"\x81\x7f" + (1 << 40).to_bytes(8, "big") + bytes(5 << 20), ["1"], "closed: 1009"),
        (text_frame(b"a \xff") + text_frame(b"a 1") + close_frame(1000), ["\ufffd", "1"], "closed: 1000"),
        (text_frame(b"a 1") + ping_frame() * 50 + close_frame(1001), ["1"], "closed: 1001"),
    ],
)
async def test_frames_lawful_and_not(frames: bytes, prices: list[str], why: str, hub: Hub) -> None:
    error = await by_hand(frames, hub)
    assert why in str(error)
    assert hub.prices == prices


async def test_a_reset_connection(hub: Hub) -> None:
    async def script(websocket: WebSocketConnection) -> None:
        await websocket.get_message()
        await websocket.send_message("a 1")
        await hub.first.wait()
        streams[0].setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(streams[0])

    streams: list[trio.SocketStream] = []

    async def raw(stream: trio.SocketStream) -> None:
        streams.append(stream)
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            await script(await request.accept())

    async with server(raw) as url:
        with trio.fail_after(5):
            error = await failure_of(make_feed("a", url=url), hub)
    assert str(error) == "Words dropped the connection"


def test_a_bad_address_is_known_at_construction() -> None:
    with pytest.raises(ValueError, match="must begin with ws:// or wss://"):
        make_feed("a", url="http://venue/")
    feed = make_feed("a", url="wss://venue/")
    assert feed.target.ssl_context is not None
    assert (feed.name, feed.channels, feed.data_s) == ("words", ("aprice",), 30)
    assert inf > feed.silence_s
