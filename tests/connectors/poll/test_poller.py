"""The loop that polls: its schedule, its deadlines, and what a failure leaves behind."""

import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from connectors.base import (
    Connector,
    ConnectorError,
    Event,
    PayloadError,
    StateChange,
    TopicNote,
    VenueRefused,
    VenueUnavailable,
)
from connectors.poll.host import Host
from connectors.poll.poller import Poller
from connectors.poll.ticks import REPEATED_BYTES_AT_ONCE, REPEATED_BYTES_PER_S
from connectors.poll.venue import MAX_BODY_BYTES, Answer, Outcome, Pause, PollRequest
from protocol.channels import Channel
from protocol.kinds import KINDS
from tests.connectors.poll.streaming import streamed

START_MS = 1_765_211_445_000


class World:
    """A context that writes down what it is told, with the time."""

    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []
        self.reports: list[StateChange] = []
        self.notes: list[TopicNote] = []
        self.errors: list[tuple[float, ConnectorError]] = []

    async def publish(self, events: Sequence[Event]) -> None:
        await trio.lowlevel.checkpoint()
        self.events += [(trio.current_time(), event) for event in events]

    async def report(self, change: StateChange) -> None:
        await trio.lowlevel.checkpoint()
        self.reports.append(change)

    async def note(self, notes: Sequence[TopicNote]) -> None:
        self.notes += notes

    def now_ms(self) -> int:
        return START_MS + round(trio.current_time() * 1_000)

    async def supervise(self, connector: Connector, delay_s: float = 0.0) -> None:
        """Run again for ever, as late as the error asks and `delay_s` later."""
        while True:
            try:
                await connector.run(self)
            except ConnectorError as error:
                self.errors.append((trio.current_time(), error))
                await trio.sleep((error.retry_after_s or 0.0) + delay_s)


class Plain:
    """The simplest venue: asks for its paths, publishes what they say."""

    retry_s = 0.0
    notice = ""

    def __init__(self, *paths: str) -> None:
        self.paths = paths or ("/a",)
        self.pause: Pause | None = None

    def tick(self, now_s: float) -> Outcome:
        return Outcome(requests=[PollRequest(path) for path in self.paths])

    def answer(self, request: PollRequest, answer: Answer) -> Outcome:
        if answer.status == 429:
            raise VenueUnavailable("asked for a pause", retry_after_s=answer.retry_after_s)
        if answer.status != 200:
            raise VenueUnavailable(f"HTTP {answer.status}")
        if answer.body == b"odd":
            raise PayloadError(f"{request.path} is odd")
        event = Event("c", "", answer.body, answer.received_ms)
        return Outcome(events=[event], pause=self.pause)


Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Venue:
    """Answers with `handler`, and remembers when it was asked for what."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler
        self.asked: list[tuple[float, httpx.Request]] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((round(trio.current_time(), 3), request))
        return streamed(await self.handler(request) if self.handler else httpx.Response(200, content=b"1"))

    @property
    def times(self) -> list[float]:
        return [at_s for at_s, _ in self.asked]

    def host(self, timeout_s: float = 8.0) -> Host:
        return Host(
            "Acme",
            "http://acme.test/root",
            timeout_s=timeout_s,
            user_agent="tickerd/1.2.3",
            headers={"x-key": "sesame"},
            transport=httpx.MockTransport(self),
        )


def channel(name: str = "c", cadence_s: float | None = 10.0) -> Channel:
    return Channel(name=name, exchange="acme", kind=KINDS["prices"], cadence_s=cadence_s)


async def answers_with(status: int, **headers: str) -> httpx.Response:
    await trio.lowlevel.checkpoint()
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_polls_at_once_and_then_at_a_fixed_rate(autojump_clock: MockClock) -> None:
    async def slow(_request: httpx.Request) -> httpx.Response:
        await trio.sleep(3.0)
        return httpx.Response(200, content=b"42")

    venue, world = Venue(slow), World()
    poller = Poller(channel(), Plain(), venue.host(), delay_s=0.5)
    with trio.move_on_after(35):
        await poller.run(world)
    assert venue.times == [0.5, 10.5, 20.5, 30.5]
    assert [at_s for at_s, _ in world.events] == [3.5, 13.5, 23.5, 33.5]
    assert world.events[1][1].received_ms == START_MS + 13_500
    assert poller.name == "c"
    assert poller.channels == ("c",)


async def test_a_request_says_who_asks_and_carries_the_key_in_a_header(
    autojump_clock: MockClock,
) -> None:
    class Asking(Plain):
        def tick(self, now_s: float) -> Outcome:
            return Outcome(requests=[PollRequest("/x", {"symbols": '["A","B"]'}, {"If-None-Match": "e"})])

    venue = Venue()
    with trio.move_on_after(1):
        await Poller(channel(), Asking(), venue.host()).run(World())
    ((_, request),) = venue.asked
    assert str(request.url) == "http://acme.test/root/x?symbols=%5B%22A%22%2C%22B%22%5D"
    assert request.headers["user-agent"] == "tickerd/1.2.3"
    assert request.headers["if-none-match"] == "e"
    assert request.headers["x-key"] == "sesame"


async def test_a_poll_that_overruns_skips_ticks_and_never_bursts(autojump_clock: MockClock) -> None:
    lasts_s = iter([25.0, 1.0, 1.0])

    async def uneven(_request: httpx.Request) -> httpx.Response:
        await trio.sleep(next(lasts_s))
        return httpx.Response(200, content=b"1")

    venue = Venue(uneven)
    with trio.move_on_after(45):
        await Poller(channel(), Plain(), venue.host(timeout_s=30.0)).run(World())
    assert venue.times == [0.0, 30.0, 40.0]


async def test_a_busy_hub_slows_the_polls_without_a_burst_after(autojump_clock: MockClock) -> None:
    class Busy(World):
        async def publish(self, events: Sequence[Event]) -> None:
            if not self.events:
                await trio.sleep(33.0)
            await super().publish(events)

    venue = Venue()
    with trio.move_on_after(55):
        await Poller(channel(), Plain(), venue.host()).run(Busy())
    assert venue.times == [0.0, 40.0, 50.0]


async def test_a_run_after_a_failure_waits_for_the_next_tick(autojump_clock: MockClock) -> None:
    async def broken(_request: httpx.Request) -> httpx.Response:
        return await answers_with(503)

    venue, world = Venue(broken), World()
    poller = Poller(channel(), Plain(), venue.host())
    with trio.move_on_after(25):
        for _ in range(50):
            with pytest.raises(VenueUnavailable):
                await poller.run(world)
    assert venue.times == [0.0, 10.0, 20.0], "whatever the supervisor does, there is no storm"


async def test_an_error_says_when_the_next_tick_is_and_a_late_tick_is_polled_at_once(
    autojump_clock: MockClock,
) -> None:
    async def broken_at_first(_request: httpx.Request) -> httpx.Response:
        if trio.current_time() < 5.0:
            await trio.sleep(2.0)
            return httpx.Response(500)
        return httpx.Response(200, content=b"1")

    venue, world = Venue(broken_at_first), World()
    with trio.move_on_after(35):
        await world.supervise(Poller(channel(), Plain(), venue.host()), delay_s=3.0)
    ((at_s, error),) = world.errors
    assert at_s == pytest.approx(2.0)
    assert error.retry_after_s == pytest.approx(8.0)
    assert venue.times == [0.0, 13.0, 20.0, 30.0]


async def test_a_failure_that_took_long_skips_ticks_too(autojump_clock: MockClock) -> None:
    async def silent(_request: httpx.Request) -> NoReturn:
        await trio.sleep_forever()

    venue, world = Venue(silent), World()
    with trio.move_on_after(65):
        await world.supervise(Poller(channel(), Plain(), venue.host(timeout_s=23.0)))
    assert venue.times == [0.0, 30.0, 60.0]
    assert [error.retry_after_s for _, error in world.errors] == [pytest.approx(7.0)] * 2


async def test_failed_polls_keep_the_venues_own_distance(autojump_clock: MockClock) -> None:
    class Counted(Plain):
        retry_s = 60.0

    async def broken(_request: httpx.Request) -> httpx.Response:
        return await answers_with(500)

    venue, world = Venue(broken), World()
    with trio.move_on_after(125):
        await world.supervise(Poller(channel(), Counted(), venue.host()))
    assert venue.times == [0.0, 60.0, 120.0]


async def test_a_pause_stops_every_poller_of_the_host(autojump_clock: MockClock) -> None:
    async def limited(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/b") and trio.current_time() < 5.0:
            return await answers_with(429, retry_after="47")
        return httpx.Response(200, content=b"1")

    venue, first, second = Venue(limited), World(), World()
    host = venue.host()
    other = Venue()
    with trio.move_on_after(65):
        async with trio.open_nursery() as nursery:
            a = Poller(channel("a"), Plain("/a"), host)
            b = Poller(channel("b"), Plain("/b"), host, delay_s=1.0)
            elsewhere = Poller(channel(), Plain(), other.host())
            nursery.start_soon(first.supervise, a)
            nursery.start_soon(second.supervise, b)
            nursery.start_soon(World().supervise, elsewhere)
    assert venue.times == [0.0, 1.0, 48.0, 48.0, 50.0, 51.0, 60.0, 61.0]
    assert other.times == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    ((at_s, error),) = first.errors
    assert at_s == 10.0
    assert str(error) == "asked for a pause"
    assert error.retry_after_s == pytest.approx(38.0)


async def test_a_budget_that_runs_out_within_a_tick_stops_the_requests_that_are_left(
    autojump_clock: MockClock,
) -> None:
    venue, world = Venue(), World()
    poll = Plain("/a", "/b", "/c")
    poll.pause = Pause(30.0, "nearly used up")
    with trio.move_on_after(25):
        await world.supervise(Poller(channel(), poll, venue.host()))
    assert venue.times == [0.0]
    assert len(world.events) == 1
    assert [str(error) for _, error in world.errors] == ["nearly used up"]


async def test_follow_up_requests_come_before_the_others(autojump_clock: MockClock) -> None:
    class Halving(Plain):
        def answer(self, request: PollRequest, answer: Answer) -> Outcome:
            if request.path == "/ab":
                return Outcome(requests=[PollRequest("/a"), PollRequest("/b")])
            return super().answer(request, answer)

    venue = Venue()
    with trio.move_on_after(1):
        await Poller(channel(), Halving("/ab", "/cd"), venue.host()).run(World())
    assert [request.url.path for _, request in venue.asked] == [f"/root/{name}" for name in ("ab", "a", "b", "cd")]


async def test_one_malformed_answer_does_not_keep_the_others_from_being_published(
    autojump_clock: MockClock,
) -> None:
    async def odd(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"odd" if request.url.path == "/root/a" else b"7")

    world = World()
    with pytest.raises(PayloadError, match="/a is odd"):
        await Poller(channel(), Plain("/a", "/b"), Venue(odd).host()).run(world)
    assert [event.data for _, event in world.events] == [b"7"]


async def test_a_malformed_answer_about_some_instruments_is_noted_of_these_while_others_come(
    autojump_clock: MockClock,
) -> None:
    class Each(Plain):
        def tick(self, now_s: float) -> Outcome:
            return Outcome(requests=[PollRequest(path, instruments=(path[1:],)) for path in self.paths])

    odd_until_s = 25.0

    async def odd(request: httpx.Request) -> httpx.Response:
        bad = request.url.path == "/root/a" and trio.current_time() < odd_until_s
        return httpx.Response(200, content=b"odd" if bad else b"7")

    world = World()
    with trio.move_on_after(45):
        await Poller(channel(), Each("/a", "/b"), Venue(odd).host()).run(world)
    assert world.notes == [TopicNote("c", "a", "unreadable", "/a is odd")] * 3
    assert [at_s for at_s, _ in world.events] == [0, 10, 20, 30, 30, 40, 40], "on schedule, and nobody fails"
    assert world.reports == []
    odd_until_s = 1e9
    with pytest.raises(PayloadError, match="/a is odd"):
        await Poller(channel(), Each("/a"), Venue(odd).host()).run(World())


async def test_an_event_without_a_request_is_published(autojump_clock: MockClock) -> None:
    class Cached(Plain):
        def tick(self, now_s: float) -> Outcome:
            return Outcome(events=[Event("c", "", b"1", 7, cached=True)])

    venue, world = Venue(), World()
    with trio.move_on_after(15):
        await Poller(channel(), Cached(), venue.host()).run(world)
    assert venue.asked == []
    assert [at_s for at_s, _ in world.events] == [0.0, 10.0]


async def test_a_notice_is_told_once_per_run_and_only_after_data(autojump_clock: MockClock) -> None:
    class Talking(Plain):
        notice = "slowly"

    async def later(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if trio.current_time() > 5.0 else 500, content=b"1")

    world = World()
    poll = Talking()
    with trio.move_on_after(35):
        await world.supervise(Poller(channel(), poll, Venue(later).host()))
    assert world.reports == [StateChange("c", "live", "slowly")]
    poll.notice = ""
    world.reports.clear()
    with trio.move_on_after(10):
        await Poller(channel(), poll, Venue().host()).run(world)
    assert world.reports == []


@pytest.mark.parametrize("drips", [False, True])
async def test_an_answer_has_one_deadline_for_all_of_it(autojump_clock: MockClock, drips: bool) -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(1.0 if drips else 1e6)
            yield b"1"

    async def slow(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body())

    with pytest.raises(VenueUnavailable, match=r"^Acme did not answer within 8 s$"):
        await Poller(channel(), Plain(), Venue(slow).host()).run(World())
    assert trio.current_time() == pytest.approx(8.0)


@pytest.mark.parametrize(("excess", "taken"), [(0, True), (1, False)])
async def test_a_body_has_the_bound_of_its_request(autojump_clock: MockClock, excess: int, taken: bool) -> None:
    class Bounded(Plain):
        def tick(self, now_s: float) -> Outcome:
            return Outcome(requests=[PollRequest("/a", most_bytes=1000)])

    async def big(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"1" * (1000 + excess))

    world = World()
    with trio.move_on_after(25):
        await world.supervise(Poller(channel(), Bounded(), Venue(big).host()))
    assert bool(world.events) == taken
    assert {str(error) for _, error in world.errors} == (
        set() if taken else {"Acme sent a body of more than 1000 bytes"}
    )


@pytest.mark.parametrize("status", [404, 503])
async def test_an_error_whose_body_is_refused_is_still_that_error(autojump_clock: MockClock, status: int) -> None:
    async def big(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=b"1" * (MAX_BODY_BYTES + 1))

    with pytest.raises(VenueUnavailable, match=f"^HTTP {status}$"):
        await Poller(channel(), Plain(), Venue(big).host()).run(World())


async def test_a_bomb_is_not_unpacked(autojump_clock: MockClock) -> None:
    """3 401 bytes, gzip in gzip, took 2.9 GiB: httpx unpacks what it is told to, and looks at the size afterwards."""
    content = gzip.compress(b"\0" * 50_000_000, 9)
    sent = {"gzip": content, "gzip, gzip": gzip.compress(content, 9)}
    codings = iter(sent)
    asked: list[str] = []

    async def bomb(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        coding = next(codings)
        return httpx.Response(200, headers={"content-encoding": coding}, stream=httpx.ByteStream(sent[coding]))

    errors = []
    tracemalloc.start()
    try:
        for _ in sent:
            with pytest.raises(VenueUnavailable) as refused:
                await Poller(channel(), Plain(), Venue(bomb).host()).run(World())
            errors.append(str(refused.value))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert errors == [
        "Acme sent a body of more than 1048576 bytes",
        "Acme sent a body in a coding that was not asked for: 'gzip, gzip'",
    ]
    assert peak_bytes < 8 * MAX_BODY_BYTES
    assert asked == ["gzip", "gzip"]


async def test_a_body_in_tiny_pieces_leaves_others_their_turn() -> None:
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(6400):
                yield b"1"

    async def tiny(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Pieces())

    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bystander)
        with trio.move_on_after(1):
            await Poller(channel(), Plain(), Venue(tiny).host()).run(world)
        nursery.cancel_scope.cancel()
    assert world.events[0][1].data == b"1" * 6400
    assert turns > 100


async def test_an_event_that_is_larger_than_its_kind_ever_is_stays_off_the_tape(autojump_clock: MockClock) -> None:
    most = KINDS["prices"].most_bytes

    class Sized(Plain):
        def answer(self, request: PollRequest, answer: Answer) -> Outcome:
            sizes = {"/a": (most + 1, 5), "/b": (most, most + 2)}[request.path]
            return Outcome(events=[Event("c", f"{size}", b"1" * size, 0) for size in sizes])

    class Huge(Plain):
        def answer(self, request: PollRequest, answer: Answer) -> Outcome:
            return Outcome(events=[Event("c", f"{most + 1}", b"1" * (most + 1), 0)])

    world = World()
    with trio.move_on_after(1):
        await Poller(channel(), Sized("/a", "/b"), Venue().host()).run(world)
    assert [event.instrument for _, event in world.events] == ["5", f"{most}"]
    assert {note.instrument: note.reason for note in world.notes} == {
        f"{size}": f"Acme sent {size} bytes for {size}, of which at most {most} are taken"
        for size in (most + 1, most + 2)
    }
    with pytest.raises(PayloadError, match=f"^Acme sent {most + 1} bytes for {most + 1}, of which at most {most} are"):
        await Poller(channel(), Huge("/a"), Venue().host()).run(World())


async def test_repeats_of_an_unchanged_body_cost_a_bounded_part_of_the_tape(autojump_clock: MockClock) -> None:
    size = 200_000

    class Repeating(Plain):
        refreshes = 0

        def tick(self, now_s: float) -> Outcome:
            if now_s >= 60 * self.refreshes:
                self.refreshes += 1
                return Outcome(requests=[PollRequest("/a")])
            return Outcome(events=[Event("c", "", b"1" * size, 0, cached=True)])

        def answer(self, request: PollRequest, answer: Answer) -> Outcome:
            return Outcome(events=[Event("c", "", b"1" * size, 0)])

    world = World()
    top = Channel(name="c", exchange="acme", kind=KINDS["top"], cadence_s=0.1)
    with trio.move_on_after(119):
        await Poller(top, Repeating(), Venue().host()).run(world)
    repeats = [event for _, event in world.events if event.cached]
    assert REPEATED_BYTES_PER_S * 100 < size * len(repeats) <= REPEATED_BYTES_PER_S * 119 + REPEATED_BYTES_AT_ONCE
    left_out = StateChange("c", "live", "repeats of more than 65536 bytes/s are left out")
    # Told once; a fresh body is told without it.
    assert world.reports == [left_out, StateChange("c", "live", ""), left_out]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ReadTimeout(""), VenueUnavailable, "Acme did not answer within 8 s"),
        (httpx.PoolTimeout(""), VenueUnavailable, "Acme did not answer within 8 s"),
        (httpx.ConnectError("refused\n."), VenueUnavailable, "Acme cannot be reached: refused"),
        (httpx.ConnectError(""), VenueUnavailable, "Acme cannot be reached"),
        (httpx.ReadError("x"), VenueUnavailable, "Acme broke off before its answer was complete"),
        (
            httpx.RemoteProtocolError("x"),
            VenueUnavailable,
            "Acme broke off before its answer was complete",
        ),
        (
            httpx.UnsupportedProtocol("x"),
            VenueRefused,
            "Acme's base URL is not an http:// or https:// address",
        ),
    ],
)
async def test_what_httpx_raises_becomes_one_plain_sentence(
    autojump_clock: MockClock,
    error: httpx.HTTPError,
    kind: type[ConnectorError],
    words: str,
) -> None:
    async def failing(_request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(kind) as raised:
        await Poller(channel(), Plain(), Venue(failing).host()).run(World())
    assert str(raised.value) == words


async def test_why_a_connection_failed_is_looked_for_in_the_causes(
    autojump_clock: MockClock,
) -> None:
    async def failing(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("") from OSError("certificate has expired")

    with pytest.raises(VenueUnavailable, match="cannot be reached: certificate has expired"):
        await Poller(channel(), Plain(), Venue(failing).host()).run(World())


async def test_a_base_url_that_is_none_is_refused() -> None:
    host = Host("Acme", "http://acme.test:port/", timeout_s=1.0, user_agent="tickerd/1")
    with pytest.raises(VenueRefused, match="Acme's base URL cannot be used"):
        await Poller(channel(), Plain(), host).run(World())


async def test_a_bug_in_a_venues_part_comes_out_as_it_is_and_the_schedule_goes_on(
    autojump_clock: MockClock,
) -> None:
    class Buggy(Plain):
        def answer(self, request: PollRequest, answer: Answer) -> Outcome:
            raise KeyError("oops")

    venue = Venue()
    poller = Poller(channel(), Buggy(), venue.host())
    for _ in range(3):
        with pytest.raises(KeyError):
            await poller.run(World())
    assert venue.times == [0.0, 10.0, 20.0]


def test_a_channel_without_a_cadence_cannot_be_polled() -> None:
    with pytest.raises(ValueError, match="'c' has no cadence"):
        Poller(channel(cadence_s=None), Plain(), Venue().host())


async def test_over_a_real_socket_an_endless_body_is_cut_off_and_a_closed_port_is_told() -> None:
    async def endless(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        try:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await stream.send_all(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, endless, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        host = Host("Acme", f"http://127.0.0.1:{port}", timeout_s=20.0, user_agent="tickerd/1")
        with pytest.raises(VenueUnavailable, match="more than 1048576 bytes"):
            await Poller(channel(), Plain(), host).run(World())
        nursery.cancel_scope.cancel()
    with pytest.raises(VenueUnavailable, match="Acme cannot be reached"):
        await Poller(channel(), Plain(), host).run(World())


async def test_https_is_spoken_and_why_it_fails_is_told() -> None:
    async def no_tls(stream: trio.SocketStream) -> None:
        await stream.receive_some(65_536)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, no_tls, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        host = Host("Acme", f"HTTPS://127.0.0.1:{port}", timeout_s=20.0, user_agent="tickerd/1")
        with pytest.raises(VenueUnavailable, match=r"cannot be reached: .*SSL"):
            await Poller(channel(), Plain(), host).run(World())
        nursery.cancel_scope.cancel()


# ---- clocks that are set, and pauses --------------------------------------------------------------------------------


class Set(World):
    """A world whose wall clock is set, or whose machine sleeps without its other clock noticing."""

    step_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.step_ms


class Cached(Plain):
    """A venue whose body is good for an hour."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []
        self._until_s = 0.0

    def tick(self, now_s: float) -> Outcome:
        if self._events and now_s < self._until_s:
            return Outcome(events=[msgspec.structs.replace(event, cached=True) for event in self._events])
        return super().tick(now_s)

    def answer(self, request: PollRequest, answer: Answer) -> Outcome:
        outcome = super().answer(request, answer)
        self._events, self._until_s = outcome.events, answer.at_s + 3600.0
        return outcome


async def test_after_hours_of_sleep_a_body_is_not_repeated_but_asked_for_at_once(autojump_clock: MockClock) -> None:
    venue, world = Venue(), Set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Poller(channel(), Cached(), venue.host()).run, world)
        await trio.sleep(25)
        assert venue.times == [0.0]
        assert [event.cached for _, event in world.events] == [False, True, True]
        world.step_ms = 2 * 3_600_000
        await trio.sleep(2)
        nursery.cancel_scope.cancel(reason="enough is known")
    assert len(venue.times) == 2
    assert venue.times[1] < 26.5, "not only at the next tick, at 30 s"
    (_, newest) = world.events[-1]
    assert not newest.cached
    assert newest.received_ms > START_MS + 2 * 3_600_000


@pytest.mark.parametrize("step_ms", [-86_400_000, -3_600_000, -2_000, 2_000])
async def test_setting_the_clock_back_or_by_a_little_changes_no_schedule(
    autojump_clock: MockClock, step_ms: int
) -> None:
    venue, world = Venue(), Set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Poller(channel(), Plain(), venue.host()).run, world)
        await trio.sleep(15)
        world.step_ms = step_ms
        await trio.sleep(20)
        nursery.cancel_scope.cancel(reason="enough is known")
    assert venue.times == [0.0, 10.0, 20.0, 30.0]


async def test_many_ticks_that_were_slept_through_are_one(autojump_clock: MockClock) -> None:
    venue, world = Venue(), Set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Poller(channel(), Plain(), venue.host()).run, world)
        await trio.sleep(5)
        world.step_ms = 3_600_000
        await trio.sleep(4)
        nursery.cancel_scope.cancel(reason="enough is known")
    assert len(venue.times) == 2


async def test_a_run_that_follows_one_that_was_cancelled_asks_at_once(autojump_clock: MockClock) -> None:
    venue, world = Venue(), World()
    poller = Poller(channel(), Plain(), venue.host())
    with trio.move_on_after(12):
        await poller.run(world)
    with trio.move_on_after(12):
        await poller.run(world)
    assert venue.times == [0.0, 10.0, 12.0, 22.0]


async def test_but_not_while_the_venue_has_asked_for_a_pause(autojump_clock: MockClock) -> None:
    venue, world = Venue(lambda _: answers_with(429, retry_after="60")), World()
    poller = Poller(channel(), Plain(), venue.host())
    with pytest.raises(VenueUnavailable):
        await poller.run(world)
    with trio.move_on_after(0):
        await poller.run(world)
    with pytest.raises(VenueUnavailable) as failure:
        await poller.run(world)
    assert failure.value.retry_after_s is not None
    assert failure.value.retry_after_s >= 59
    assert venue.times == [0.0]
